package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Kind is what sort of place a model comes from.
type Kind int

const (
	FromHub    Kind = iota // a repository of a hub
	FromFolder             // a folder of this machine
	FromWeb                // a folder of a plain web server
	FromS3                 // a prefix of a bucket
)

func (k Kind) String() string {
	return [...]string{"hub", "folder", "web server", "object store"}[k]
}

// Origin is a place that a model comes from, as a command line or a configuration names it. The zero value is none.
type Origin struct {
	Kind Kind
	Text string // the hub's name of the model, the folder's absolute path, or the address; without credentials
	// Name is what the store calls the model: the hub's name, else one made of Text, so that two places never share one.
	Name string
}

// ParseOrigin reads "org/name" as a hub's model, "http://…", "https://…" and "s3://bucket/prefix" as addresses, and what begins with "/", "."
// or "file://" as a folder, whose relative path counts from dir. It looks at no file and asks nobody.
func ParseOrigin(text, dir string) (Origin, error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if isURL {
		switch scheme = strings.ToLower(scheme); scheme {
		case "http", "https", "s3":
			return parseAddress(scheme, text)
		case "file":
			if text = rest; !strings.HasPrefix(text, "/") {
				return Origin{}, fmt.Errorf("%q: write file:///absolute/path", shorten("file://"+rest))
			}
		default:
			return Origin{}, fmt.Errorf("%q: models come from a hub (org/name), a folder (/path or ./path), http://, https:// or s3://", shorten(text))
		}
	}
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") {
		if !filepath.IsAbs(text) {
			text = filepath.Join(dir, text)
		}
		text = filepath.Clean(text)
		return Origin{Kind: FromFolder, Text: text, Name: nameFor("local", filepath.Base(text), text)}, nil
	}
	if err := CheckRepo(text); err != nil {
		return Origin{}, fmt.Errorf("%w; a folder's path begins with '/' or './'", err)
	}
	return Origin{Kind: FromHub, Text: text, Name: text}, nil
}

// parseAddress takes an address without anything that would have to be kept out of logs.
func parseAddress(scheme, text string) (Origin, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Origin{}, withoutQuery(err)
	}
	switch {
	case u.Host == "":
		return Origin{}, fmt.Errorf("%q names no host", shorten(u.Redacted()))
	case u.User != nil:
		return Origin{}, fmt.Errorf("%q holds credentials: they belong into the environment", shorten(u.Redacted()))
	case u.RawQuery != "" || u.Fragment != "":
		return Origin{}, fmt.Errorf("%s://%s%s: the address of a folder has no query or fragment", u.Scheme, u.Host, shorten(u.Path))
	}
	u.Scheme = scheme
	kind := FromWeb
	if scheme == "s3" {
		kind = FromS3
	}
	plain := strings.TrimRight(u.String(), "/")
	return Origin{Kind: kind, Text: plain, Name: nameFor(u.Hostname(), path.Base("/"+u.Path), plain)}, nil
}

// Raw is the address as an engine takes it: Text of an address is written as a URL, and names in buckets are not.
func (o Origin) Raw() string {
	if raw, err := url.PathUnescape(o.Text); err == nil && o.Kind == FromS3 {
		return raw
	}
	return o.Text
}

var notInRepo = regexp.MustCompile(`[^A-Za-z0-9_.]+|-{2,}|\.{2,}`)

// nameFor makes a name that CheckRepo accepts: a place, the last part of a path for people, and eight digits of the whole for uniqueness.
func nameFor(place, base, whole string) string {
	clean := func(s, otherwise string, most int) string {
		s = strings.Trim(notInRepo.ReplaceAllString(s, "-"), "-._")
		if len(s) > most {
			s = strings.Trim(s[:most], "-._")
		}
		if s == "" {
			return otherwise
		}
		return s
	}
	sum := sha256.Sum256([]byte(whole))
	return clean(place, "web", 40) + "/" + clean(base, "model", 40) + "-" + hex.EncodeToString(sum[:4])
}

// Access is what reaching origins takes, besides their names. The zero value is the public hub without a token.
type Access struct {
	HubEndpoint string // "" is DefaultEndpoint
	HubToken    string // "": anonymous; goes to HubEndpoint only
	Connections int    // at once; 0 is 96
	// Env looks up variables, as os.LookupEnv does, for origins that have settings of their own there (AWS_…); nil: there are none.
	Env func(name string) (string, bool)
	// S3 opens an origin of kind FromS3; it is s3.Open, which this package must not know. nil: there are no object stores.
	S3 func(o Origin, a Access) (Opened, error)
}

// Opened is a Source that holds connections until it is closed.
type Opened interface {
	Source
	io.Closer
}

// Open returns the source of an origin. It connects to nothing yet.
func (o Origin) Open(a Access) (Opened, error) {
	switch o.Kind {
	case FromHub:
		hub, err := NewHub(HubOptions{Repo: o.Text, Endpoint: a.HubEndpoint, Token: a.HubToken, Connections: a.Connections})
		if err != nil {
			return nil, err
		}
		return closing{hub, hub.Close}, nil
	case FromFolder:
		folder, err := NewFolder(o.Text)
		if err != nil {
			return nil, err
		}
		return closing{folder, func() {}}, nil
	case FromWeb:
		plain, err := NewPlain(o.Text, "", a.Connections)
		if err != nil {
			return nil, err
		}
		return closing{plain, plain.Close}, nil
	case FromS3:
		if a.S3 == nil {
			return nil, errors.New("no object store can be read here")
		}
		return a.S3(o, a)
	}
	return nil, fmt.Errorf("BUG: an origin of kind %d", o.Kind)
}

// closing gives a Source the Close of an io.Closer.
type closing struct {
	Source
	close func()
}

func (c closing) Close() error {
	c.close()
	return nil
}
