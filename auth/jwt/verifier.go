package jwt

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// MaxToken is the length in bytes of the longest token that is looked at.
	MaxToken = 8 << 10
	// goodFor and badFor are how long an answer is given again. A key that its issuer withdraws is honoured for goodFor longer than the set it
	// was in.
	goodFor = time.Minute
	badFor  = 10 * time.Second
	// Answers remembered, apart from each other, so that a flood of wrong tokens pushes no good one out: some 350 bytes each.
	goodEntries = 20_000
	badEntries  = 5_000
)

// methods are all that any key can be pinned to.
var methods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

type digest = [sha256.Size]byte

// Verifier accepts the tokens of some issuers.
type Verifier struct {
	sources map[string]*source
	mean    func(Caller) (any, error) // may be nil
	good    *lru.Cache[digest, remembered[Caller]]
	bad     *lru.Cache[digest, remembered[error]]
	cancel  context.CancelFunc
	running sync.WaitGroup
}

type remembered[T any] struct {
	answer T
	until  time.Time
}

// Options are what New needs besides the issuers.
type Options struct {
	Transport http.RoundTripper // nil: http.DefaultTransport
	Log       *slog.Logger      // nil: nothing is logged
	// Mean makes of a verified token what its user needs, once; its error makes the token invalid. nil: nothing.
	Mean func(Caller) (any, error)
}

// New fetches the issuers' keys in the background from now on, until Close. It waits for none of them.
func New(issuers []Issuer, o Options) (*Verifier, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	v := &Verifier{sources: map[string]*source{}, mean: o.Mean}
	client := &http.Client{Transport: o.Transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 3 {
			return errors.New("redirected too often")
		}
		return checkParsed(r.URL)
	}}
	for _, issuer := range issuers {
		errs = append(errs, issuer.Validate())
		if v.sources[issuer.URL] != nil {
			errs = append(errs, fmt.Errorf("issuer %q is named twice", issuer.URL))
		}
		v.sources[issuer.URL] = newSource(issuer, client, log)
	}
	var err error
	v.good, err = lru.New[digest, remembered[Caller]](goodEntries)
	errs = append(errs, err)
	v.bad, err = lru.New[digest, remembered[error]](badEntries)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	for _, s := range v.sources {
		v.running.Go(func() { s.run(ctx) })
	}
	return v, nil
}

// Close stops fetching and waits until that has ended. Verify goes on with the keys that are there.
func (v *Verifier) Close() {
	v.cancel()
	v.running.Wait()
}

// Verify tells whose token it is: an error that matches ErrInvalid, or ErrNoKeys. A token whose key is unknown may wait two seconds
// for a fetch, or until ctx ends; others never wait. A token seen before is answered from memory, for at most a minute (ten
// seconds if it is wrong) and never beyond its expiry, without allocating.
func (v *Verifier) Verify(ctx context.Context, token []byte, now time.Time) (Caller, error) {
	if len(token) > MaxToken {
		return Caller{}, fmt.Errorf("%w: %d bytes long", ErrInvalid, len(token))
	}
	sum := digest(sha256.Sum256(token))
	if known, ok := v.good.Get(sum); ok && now.Before(known.until) {
		return known.answer, nil
	}
	if known, ok := v.bad.Get(sum); ok && now.Before(known.until) {
		return Caller{}, known.answer
	}
	caller, leeway, err := v.verify(ctx, string(token), now)
	switch {
	case err == nil:
		until := now.Add(goodFor)
		if end := caller.Expires.Add(leeway); end.Before(until) {
			until = end
		}
		v.good.Add(sum, remembered[Caller]{caller, until})
	case errors.Is(err, errFinal):
		v.bad.Add(sum, remembered[error]{err, now.Add(badFor)})
	}
	return caller, err
}

// errFinal is matched by errors that are remembered: what time or a fetch under way will change soon is not.
var errFinal = errors.New("final")

type finalError struct{ error }

func (e finalError) Is(target error) bool { return target == errFinal }
func (e finalError) Unwrap() error        { return e.error }

func final(format string, args ...any) error {
	return finalError{fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
}

func (v *Verifier) verify(ctx context.Context, token string, now time.Time) (Caller, time.Duration, error) {
	header, issuer, err := v.peek(token)
	if err != nil {
		return Caller{}, 0, err
	}
	key, err := issuer.find(ctx, header.KeyID)
	if err != nil {
		return Caller{}, 0, err
	}
	if header.Algorithm != key.algorithm {
		return Caller{}, 0, final("its alg is %.20q, and its key is for %s", header.Algorithm, key.algorithm)
	}
	c := issuer.issuer
	claims := gojwt.MapClaims{}
	_, err = gojwt.NewParser(
		gojwt.WithValidMethods(methods), gojwt.WithStrictDecoding(), gojwt.WithJSONNumber(), gojwt.WithExpirationRequired(),
		gojwt.WithIssuer(c.URL), gojwt.WithAudience(c.Audience...),
		gojwt.WithLeeway(c.leeway()), gojwt.WithTimeFunc(func() time.Time { return now }),
	).ParseWithClaims(token, claims, func(*gojwt.Token) (any, error) { return key.key, nil })
	switch {
	case err == nil:
	case errors.Is(err, gojwt.ErrTokenNotValidYet) && !errors.Is(err, gojwt.ErrTokenExpired): // it will be
		return Caller{}, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	case errors.Is(err, gojwt.ErrTokenExpired):
		return Caller{}, 0, finalError{ErrExpired}
	default:
		return Caller{}, 0, final("%w", err)
	}
	tenant, scopes, models, err := c.Claims.read(claims)
	if err != nil {
		return Caller{}, 0, final("%w", err)
	}
	if c.Scope != "" && !slices.Contains(scopes, c.Scope) {
		return Caller{}, 0, final("it lacks the scope %s", c.Scope)
	}
	var numbers map[string]int64
	if c.Claims.Limits != "" {
		if numbers, err = amounts(lookUp(claims, c.Claims.Limits)); err != nil { // misread, they must not be taken for none
			return Caller{}, 0, final("its claim %q: %w", c.Claims.Limits, err)
		}
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return Caller{}, 0, final("%w", err)
	}
	subject, _ := claims.GetSubject() // optional, and for logs only
	caller := Caller{Tenant: tenant, Issuer: c.URL, Subject: subject, Scopes: scopes, Models: models, Limits: numbers, Expires: expires.Time}
	if v.mean != nil {
		if caller.Meaning, err = v.mean(caller); err != nil {
			return Caller{}, 0, final("%w", err)
		}
	}
	return caller, c.leeway(), nil
}

// header is what is read of a token's; keys that it carries or points to are never used.
type header struct {
	Algorithm string
	KeyID     string
}

// peek reads who a token says that it is from, which nothing has proven yet.
func (v *Verifier) peek(token string) (h header, s *source, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return h, nil, final("it has %d parts", len(parts))
	}
	head, err := object(parts[0])
	if err != nil {
		return h, nil, final("its header: %w", err)
	}
	if _, critical := head["crit"]; critical { // RFC 7515 §4.1.11: what must be understood is not
		return h, nil, final("its header has crit")
	}
	if h.Algorithm, err = text(head, "alg"); err != nil {
		return h, nil, final("its header: %w", err)
	}
	if h.KeyID, err = text(head, "kid"); err != nil {
		return h, nil, final("its header: %w", err)
	}
	claims, err := object(parts[1])
	if err != nil {
		return h, nil, final("its claims: %w", err)
	}
	name, err := text(claims, "iss")
	if err != nil {
		return h, nil, final("its claims: %w", err)
	}
	if s = v.sources[name]; s == nil {
		return h, nil, final("unknown issuer %.200q", name)
	}
	return h, s, nil
}

func object(part string) (map[string]json.RawMessage, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, err
	}
	if err := checkUnique(data); err != nil {
		return nil, err
	}
	var o map[string]json.RawMessage
	return o, json.Unmarshal(data, &o)
}

// text is a member that must be a string if it is there.
func text(o map[string]json.RawMessage, name string) (s string, err error) {
	raw, ok := o[name]
	if !ok {
		return "", nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
