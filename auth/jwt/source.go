package jwt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshEvery = time.Hour        // while all is well
	kidInterval  = 30 * time.Second // between two fetches for the sake of unknown kids: a flood of them costs the issuer two a minute
	maxStale     = 24 * time.Hour   // keys are used that long after they were last fetched
	fetchTimeout = 10 * time.Second // discovery and keys together
	firstRetry   = time.Second
	lastRetry    = 5 * time.Minute
	maxDocument  = 256 << 10 // bytes
	kidPatience  = 2 * time.Second
)

// fetched is the outcome of the last good fetch.
type fetched struct {
	keys keySet
	at   time.Time
}

// source keeps an issuer's keys fresh. Whoever needs them reads the last good ones: only a token with an unknown kid waits, and only for a
// fetch that the bounds above allow.
type source struct {
	issuer  Issuer
	client  *http.Client
	log     *slog.Logger
	current atomic.Pointer[fetched] // nil until the first good fetch
	wanted  chan struct{}           // holds one wish for a fetch

	mu       sync.Mutex    // guards the fields below
	done     chan struct{} // closed when the fetch under way or to come has ended
	wished   bool          // somebody waits for a fetch that has not begun
	serving  bool          // somebody waits for the fetch that is under way
	nextWish time.Time     // when an unknown kid may cause the next fetch
}

func newSource(issuer Issuer, client *http.Client, log *slog.Logger) *source {
	return &source{issuer: issuer, client: client, log: log, wanted: make(chan struct{}, 1), done: make(chan struct{})}
}

// run fetches until ctx ends.
func (s *source) run(ctx context.Context) {
	retry := firstRetry
	for {
		s.begin()
		err := s.fetch(ctx)
		if ctx.Err() != nil {
			s.ended()
			return
		}
		wait := refreshEvery
		if err != nil {
			s.log.Warn("an issuer's keys could not be fetched; those fetched before stay in use", "issuer", s.issuer.URL, "error", err, "retry_in", retry)
			wait, retry = retry, min(retry*2, lastRetry)
		} else {
			retry = firstRetry
		}
		s.ended()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wanted:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// begin makes the fetch that follows the one that was wished for. The first keys of all are waited for without a wish.
func (s *source) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.wanted:
	default:
	}
	s.serving, s.wished = s.wished || s.current.Load() == nil, false
}

// ended wakes those who wait for the fetch.
func (s *source) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = false
	close(s.done)
	s.done = make(chan struct{})
}

// find returns the key for kid; ErrNoKeys, or an error that matches ErrInvalid.
func (s *source) find(ctx context.Context, kid string) (publicKey, error) {
	if key, ok := s.look(kid); ok {
		return key, nil
	}
	ctx, cancel := context.WithTimeout(ctx, kidPatience)
	defer cancel()
	for done := s.wish(); done != nil && ctx.Err() == nil; done = s.underWay() {
		select {
		case <-done:
		case <-ctx.Done():
		}
		if key, ok := s.look(kid); ok {
			return key, nil
		}
	}
	if s.fresh() == nil {
		return publicKey{}, ErrNoKeys
	}
	return publicKey{}, fmt.Errorf("%w: no key has the kid %.64q", ErrInvalid, kid)
}

func (s *source) fresh() *fetched {
	f := s.current.Load()
	if f == nil || time.Since(f.at) > maxStale {
		return nil
	}
	return f
}

func (s *source) look(kid string) (publicKey, bool) {
	f := s.fresh()
	if f == nil {
		return publicKey{}, false
	}
	return f.keys.find(kid)
}

// wish asks for a fetch, or joins those who did, and returns what tells of its end; nil if an unknown kid caused one not long ago.
func (s *source) wish() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wished || s.serving {
		return s.done
	}
	now := time.Now()
	if now.Before(s.nextWish) {
		return nil
	}
	s.nextWish = now.Add(kidInterval)
	s.wished = true
	select {
	case s.wanted <- struct{}{}:
	default:
	}
	return s.done
}

// underWay is wish for one who has wished already: a fetch that had begun before does not count.
func (s *source) underWay() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wished || s.serving {
		return s.done
	}
	return nil
}

func (s *source) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	address := s.issuer.JWKSURL
	if address == "" {
		var err error
		if address, err = s.discover(ctx); err != nil {
			return err
		}
	}
	data, err := s.get(ctx, address)
	if err != nil {
		return err
	}
	keys, skipped, err := parseKeys(data)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	if len(skipped) > 0 {
		s.log.Debug("some of an issuer's keys are not used", "issuer", s.issuer.URL, "error", errors.Join(skipped...))
	}
	s.current.Store(&fetched{keys: keys, at: time.Now()})
	return nil
}

// discover finds the JWKS. The document must name the issuer that it was asked of (OpenID Connect Discovery 1.0 §4.3).
func (s *source) discover(ctx context.Context) (string, error) {
	address := strings.TrimSuffix(s.issuer.URL, "/") + "/.well-known/openid-configuration"
	data, err := s.get(ctx, address)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return "", fmt.Errorf("%s: %w", address, err)
	}
	if document.Issuer != s.issuer.URL {
		return "", fmt.Errorf("%s names the issuer %.200q, not %q", address, document.Issuer, s.issuer.URL)
	}
	if err := checkURL(document.JWKSURI); err != nil {
		return "", fmt.Errorf("%s: jwks_uri %.200q %w", address, document.JWKSURI, err)
	}
	return document.JWKSURI, nil
}

func (s *source) get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%s is larger than %d KiB", address, maxDocument>>10)
	}
	return data, nil
}
