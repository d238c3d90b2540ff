package static

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"pilotlight/backends"
)

// target is one URL of a spec.
type target struct {
	url      string // normalised
	endpoint backends.Endpoint
	paths    []string     // of the health check, in order of preference
	path     atomic.Int32 // index of the one that the server knows
	looks    *looks
}

// fallback answers on every OpenAI-compatible server, also on those without a health route.
const fallback = "/v1/models"

// newTarget reads a base URL. Requests bring their own /v1, so one at its end is left out, as users of
// OpenAI's clients write it there.
func (d *Driver) newTarget(text string, spec *backends.Spec) (*target, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
	case u.Scheme != "http" && u.Scheme != "https":
		err = errors.New("the scheme is neither http nor https")
	case u.Hostname() == "":
		err = errors.New("it has no host")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		err = errors.New("it may only have a scheme, a host, a port and a path")
	}
	if err != nil {
		return nil, &backends.Failure{
			Class: backends.ClassBadFlag, Permanent: true, Message: "a URL of the model's servers is not usable",
			Advice: "write it as http://host:port or https://host/path", Err: fmt.Errorf("static url: %w", err),
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	prefix := strings.TrimSuffix(strings.TrimRight(u.EscapedPath(), "/"), "/v1")
	addr := net.JoinHostPort(u.Hostname(), port)
	t := &target{
		url: u.Scheme + "://" + addr + prefix,
		endpoint: backends.Endpoint{
			Addr: addr, TLS: u.Scheme == "https", PathPrefix: prefix, APIKey: spec.StaticAPIKey,
			Engine: spec.Engine, ServedName: spec.ServedName,
		},
	}
	for _, path := range []string{spec.Probe, fallback} {
		if path != "" {
			t.paths = append(t.paths, path)
		}
	}
	t.looks = d.looksAt(server{url: t.url, key: t.endpoint.APIKey, probe: spec.Probe})
	return t, nil
}

// check is one health check: any 2xx is healthy. A server that does not know the probe path (404) is asked
// for its models instead, and from then on only for them. nil means healthy.
func (t *target) check(ctx context.Context, client *http.Client) error {
	for i := int(t.path.Load()); ; i++ {
		status, err := t.ask(ctx, client, t.paths[i])
		switch {
		case err != nil:
			return err
		case status >= 200 && status < 300:
			t.path.Store(int32(i))
			return nil
		case status != http.StatusNotFound || i == len(t.paths)-1:
			return fmt.Errorf("health check answered with status %d", status)
		}
	}
}

func (t *target) ask(ctx context.Context, client *http.Client, path string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+path, nil)
	if err != nil {
		return 0, fmt.Errorf("health check: %w", err)
	}
	if t.endpoint.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+t.endpoint.APIKey)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("health check: %w", err)
	}
	// A body that breaks off is a server that is going away.
	if err := drain(resp.Body); err != nil {
		return 0, fmt.Errorf("health check: %w", err)
	}
	return resp.StatusCode, nil
}
