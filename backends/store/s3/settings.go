package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"gopkg.in/ini.v1"
)

// Settings say how an object store is reached and who asks. They come from the environment; see ReadSettings.
type Settings struct {
	Endpoint  *url.URL // nil: Amazon's
	Region    string   // "": asked of the server where it matters, else us-east-1
	PathStyle bool     // http://HOST/BUCKET/KEY instead of http://BUCKET.HOST/KEY
	CABundle  string   // a file of PEM certificates to trust; "": the system's
	// Identity says in words where the credentials came from.
	Identity string
	// Anonymous is true if requests are not signed: no credentials were found, or it was asked for.
	Anonymous bool

	fixed bool
	creds *credentials.Credentials
}

// ReadSettings reads what Amazon's tools read, through lookup (os.LookupEnv, or a model's own environment over it):
//
//   - AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL; AWS_REGION, AWS_DEFAULT_REGION; AWS_CA_BUNDLE;
//   - AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; else AWS_PROFILE (or "default") of AWS_SHARED_CREDENTIALS_FILE and
//     AWS_CONFIG_FILE (keys, SSO, credential_process; its region and endpoint_url, too); else a container's or web identity's role
//     (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_…); else, at Amazon's own endpoint and unless AWS_EC2_METADATA_DISABLED=true,
//     the machine's role; else none;
//   - RUNAI_STREAMER_S3_UNSIGNED=1 or AWS_NO_SIGN_REQUEST=true: no credentials at all;
//     RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING=0 or 1: the style of addresses, which else is by path where an endpoint is given. They are the
//     streaming loader's own names, so that one setting means the same to it and to us.
//
// Names: https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html.
func ReadSettings(ctx context.Context, lookup func(string) (string, bool)) (Settings, error) {
	get := func(names ...string) (name, value string) {
		for _, n := range names {
			if v, _ := lookup(n); v != "" {
				return n, v
			}
		}
		return names[0], ""
	}
	value := func(names ...string) string { _, v := get(names...); return v }
	profile, err := readProfile(value)
	if err != nil {
		return Settings{}, err
	}
	s := Settings{Region: value("AWS_REGION", "AWS_DEFAULT_REGION"), CABundle: value("AWS_CA_BUNDLE")}
	if s.Region == "" {
		s.Region = profile.key("region")
	}
	if s.CABundle == "" {
		s.CABundle = profile.key("ca_bundle")
	}
	name, endpoint := get("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	if endpoint == "" {
		name, endpoint = "endpoint_url of the profile "+profile.name, profile.key("endpoint_url")
	}
	if endpoint != "" {
		if s.Endpoint, err = parseEndpoint(name, endpoint); err != nil {
			return Settings{}, err
		}
		s.PathStyle = true
	}
	switch value("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING") {
	case "0":
		s.PathStyle = true
	case "1":
		s.PathStyle = false
	}
	return s, s.identify(ctx, value, profile)
}

// Fixed says whether the credentials are keys that stay, of the environment or a file, and not those of a role.
func (s Settings) Fixed() bool { return s.fixed }

// identify finds credentials, in the order that Amazon's tools look for them.
func (s *Settings) identify(ctx context.Context, value func(...string) string, profile profile) error {
	id, secret := value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")
	switch {
	case value("RUNAI_STREAMER_S3_UNSIGNED") == "1" || isYes(value("AWS_NO_SIGN_REQUEST")):
		s.anonymous("none, as asked for")
		return nil
	case id != "" && secret == "":
		return errors.New("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not: set both, or neither")
	case id == "" && secret != "":
		return errors.New("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not: set both, or neither")
	case id != "":
		s.keys(id, secret, value("AWS_SESSION_TOKEN"))
		s.Identity = "AWS_ACCESS_KEY_ID of the environment"
		return nil
	}
	if found, err := s.fromProfile(ctx, profile); err != nil {
		return fmt.Errorf("the profile %q: %w", profile.name, err)
	} else if found {
		return nil
	}
	role := &credentials.IAM{Region: s.Region}
	role.Container.AuthorizationToken = value("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	role.Container.CredentialsFullURI = value("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	role.Container.CredentialsRelativeURI = value("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
	role.EKSIdentity.TokenFile = value("AWS_WEB_IDENTITY_TOKEN_FILE")
	role.EKSIdentity.RoleARN = value("AWS_ROLE_ARN")
	role.EKSIdentity.RoleSessionName = value("AWS_ROLE_SESSION_NAME")
	switch {
	case role.EKSIdentity.TokenFile != "":
		_, err := s.fetch(ctx, role, "web identity "+role.EKSIdentity.RoleARN)
		return err
	case role.Container.CredentialsFullURI != "" || role.Container.CredentialsRelativeURI != "":
		_, err := s.fetch(ctx, role, "the container's role")
		return err
	case s.Endpoint == nil && value("AWS_EC2_METADATA_DISABLED") != "true":
		// Elsewhere than at Amazon nobody answers, or somebody who should not be asked.
		if found, err := s.fetch(ctx, role, "the machine's role"); err == nil && found {
			return nil
		}
	}
	s.anonymous("none found")
	return nil
}

// fromProfile takes a profile's keys, or has its SSO session or credential_process followed.
func (s *Settings) fromProfile(ctx context.Context, p profile) (found bool, err error) {
	id, secret := p.key("aws_access_key_id"), p.key("aws_secret_access_key")
	switch {
	case id != "" && secret != "":
		s.keys(id, secret, p.key("aws_session_token"))
		s.Identity = "profile " + p.name
		return true, nil
	case id != "" || secret != "":
		return false, errors.New("it holds one half of a pair of keys: aws_access_key_id and aws_secret_access_key go together")
	case p.key("sso_role_name") != "" || p.key("credential_process") != "":
		return s.fetch(ctx, &credentials.FileAWSCredentials{Profile: p.name}, "profile "+p.name)
	case p.asked:
		return false, errNoKeys
	}
	return false, nil
}

var errNoKeys = errors.New("it holds no keys (a role_arn is not followed: use credential_process, or set AWS_ACCESS_KEY_ID)")

// fetchTimeout bounds how long a provider of credentials may take. A role's service is on the same machine or network.
const fetchTimeout = 2 * time.Second

// fetch asks a provider once, so that what is wrong with it is known before the first request.
func (s *Settings) fetch(ctx context.Context, provider credentials.Provider, from string) (bool, error) {
	client := &http.Client{Timeout: fetchTimeout, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: fetchTimeout / 2}).DialContext, DisableKeepAlives: true,
	}}
	creds := credentials.New(provider)
	got, err := creds.GetWithContext(&credentials.CredContext{Client: client, Context: ctx})
	if err != nil {
		return false, fmt.Errorf("getting credentials from %s: %w", from, err)
	}
	if got.AccessKeyID == "" || got.SecretAccessKey == "" {
		return false, errNoKeys
	}
	s.creds, s.Identity = creds, from
	return true, nil
}

func (s *Settings) keys(id, secret, token string) {
	s.fixed, s.creds = true, credentials.NewStatic(id, secret, token, credentials.SignatureV4)
}

func (s *Settings) anonymous(why string) {
	s.Anonymous, s.Identity = true, why
	s.creds = credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
}

// profile is one section of the files that `aws configure` writes.
type profile struct {
	name  string
	asked bool // by AWS_PROFILE, so that its absence is an error
	file  []*ini.Section
}

// key is a value of the profile; the credentials file comes before the config file.
func (p profile) key(name string) string {
	for _, section := range p.file {
		if section.HasKey(name) {
			return section.Key(name).String()
		}
	}
	return ""
}

func readProfile(value func(...string) string) (profile, error) {
	p := profile{name: value("AWS_PROFILE", "AWS_DEFAULT_PROFILE")}
	p.asked = p.name != ""
	if !p.asked {
		p.name = "default"
	}
	home := value("HOME")
	credsFile, configFile := value("AWS_SHARED_CREDENTIALS_FILE"), value("AWS_CONFIG_FILE")
	if credsFile == "" && home != "" {
		credsFile = filepath.Join(home, ".aws", "credentials")
	}
	if configFile == "" && home != "" {
		configFile = filepath.Join(home, ".aws", "config")
	}
	for _, f := range []struct{ path, section string }{{credsFile, p.name}, {configFile, "profile " + p.name}, {configFile, p.name}} {
		if f.path == "" {
			continue
		}
		file, err := ini.LoadSources(ini.LoadOptions{AllowNestedValues: true, SkipUnrecognizableLines: true}, f.path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // the latter: a home such as /dev/null
			continue
		} else if err != nil {
			return profile{}, fmt.Errorf("reading %s: %w", f.path, err)
		}
		if section, err := file.GetSection(f.section); err == nil && (f.section != "default" || len(section.Keys()) > 0) {
			p.file = append(p.file, section)
		}
	}
	if p.asked && p.file == nil {
		return profile{}, fmt.Errorf("AWS_PROFILE=%q is neither in %s nor in %s", p.name, credsFile, configFile)
	}
	return p, nil
}

func isYes(v string) bool {
	return strings.EqualFold(v, "true") || strings.EqualFold(v, "yes") || v == "1"
}
