// Package static is the driver of replicas that somebody else runs: it knows them by URL, watches their
// health, and never starts or stops anything. A Launch waits for a URL to be healthy and claims it; a
// claimed URL that stays down counts as a replica's end, so that whoever owns the replicas treats it like
// any other loss.
//
// A Driver and its Replicas are safe for concurrent use.
package static

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"pilotlight/backends"
)

// Options are what a Driver needs to know.
type Options struct {
	// Logger gets URLs coming and going. nil: nothing is logged.
	Logger *slog.Logger
	// Interval is the time between two checks of a claimed URL, give or take a fifth, so that many models
	// on one server do not ask in step. 0 means 5 s.
	Interval time.Duration
	// WaitInterval is the same while a Launch waits. 0 means 1 s.
	WaitInterval time.Duration
	// Timeout bounds one check. 0 means 25 s: an SGLang that generates for its health check takes up to 20 s
	// to say that it failed.
	Timeout time.Duration
	// Failures in a row make a claimed URL count as down. 0 means 3: one bad answer happens to a server
	// that is busy with a long prompt.
	Failures int
	// Transport carries the checks. nil: one of the driver's own, without a proxy.
	Transport http.RoundTripper
	// Jitter returns the pause to use for an interval. nil: a random one within a fifth of it.
	Jitter func(time.Duration) time.Duration
}

const (
	defaultInterval     = 5 * time.Second
	defaultWaitInterval = time.Second
	defaultTimeout      = 25 * time.Second
	defaultFailures     = 3
	defaultStartTimeout = 20 * time.Minute
)

// Driver hands out URLs. Make one with New.
type Driver struct {
	opts   Options
	logger *slog.Logger
	client *http.Client

	mu sync.Mutex // guards claimed and servers
	// claimed holds the URLs in use, per model: two models may share a server, two replicas of a model not.
	claimed map[claim]bool
	servers map[server]*looks
}

type claim struct{ model, url string }

// New makes a driver.
func New(opts Options) *Driver {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&opts.Interval, defaultInterval)
	orDefault(&opts.WaitInterval, defaultWaitInterval)
	orDefault(&opts.Timeout, defaultTimeout)
	orDefault(&opts.Failures, defaultFailures)
	if opts.Transport == nil {
		// Keep-alive is off: SGLang closes idle connections after 5 s, which is just when we would reuse one.
		opts.Transport = &http.Transport{DisableKeepAlives: true}
	}
	if opts.Jitter == nil {
		opts.Jitter = func(d time.Duration) time.Duration {
			return d - d/5 + rand.N(2*d/5+1)
		}
	}
	return &Driver{
		opts: opts, logger: opts.Logger, claimed: make(map[claim]bool), servers: make(map[server]*looks),
		client: &http.Client{
			Transport: opts.Transport, Timeout: opts.Timeout,
			// A redirect (to a login page, say) is no healthy model server.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func orDefault[T time.Duration | int](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	}
}

// Launch blocks until one of the spec's URLs that no other replica of the model has claimed is healthy, and
// claims it: the first that answers, if several are. Errors are *backends.Failure: unreachable if
// none was healthy within spec.StartTimeout, stopped if ctx ended, invalid_launch_argument for a URL that
// is none. id only names the replica. progress, which may be nil, is called once, with phase launch.
func (d *Driver) Launch(ctx context.Context, spec *backends.Spec, id uint64, progress func(backends.Progress)) (*Replica, error) {
	targets := make([]*target, 0, len(spec.URLs))
	for _, text := range spec.URLs {
		t, err := d.newTarget(text, spec)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return nil, &backends.Failure{Class: backends.ClassBadFlag, Permanent: true, Message: "the model has no URL"}
	}
	if progress != nil {
		progress(backends.Progress{Phase: backends.PhaseLaunch})
	}
	timeout := spec.StartTimeout
	orDefault(&timeout, defaultStartTimeout)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t, err := d.claimHealthy(waiting, spec.Model, targets)
	switch {
	case t != nil:
		return d.watch(spec, id, t), nil
	case ctx.Err() != nil:
		return nil, &backends.Failure{Class: backends.ClassStopped, Message: "the start was cancelled", Err: ctx.Err()}
	default:
		return nil, unreachable(err)
	}
}

var errAllClaimed = errors.New("every server of the model is in use")

// claimHealthy asks all unclaimed targets, each in its own rhythm so that one that hangs does not hide
// another, and claims the first that is healthy. It returns nil and the last that went wrong when ctx ends.
func (d *Driver) claimHealthy(ctx context.Context, model string, targets []*target) (*target, error) {
	asking, cancel := context.WithCancel(ctx)
	healthy := make(chan *target)
	problem := errAllClaimed
	var mu sync.Mutex // guards problem
	var askers sync.WaitGroup
	defer askers.Wait()
	defer cancel()
	for _, t := range targets {
		askers.Go(func() {
			var last time.Time
			for {
				if !d.isClaimed(model, t) {
					err := d.look(asking, t, &last, d.opts.WaitInterval)
					if err == nil {
						select {
						case healthy <- t:
						case <-asking.Done():
						}
					} else if asking.Err() == nil {
						mu.Lock()
						problem = err
						mu.Unlock()
					}
				}
				select {
				case <-asking.Done():
					return
				case <-time.After(d.opts.Jitter(d.opts.WaitInterval)):
				}
			}
		})
	}
	for {
		select {
		case t := <-healthy:
			if d.claim(model, t) {
				return t, nil
			} // else another launch was faster
		case <-ctx.Done():
			mu.Lock()
			defer mu.Unlock()
			return nil, problem
		}
	}
}

func (d *Driver) isClaimed(model string, t *target) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.claimed[claim{model, t.url}]
}

func (d *Driver) claim(model string, t *target) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := claim{model, t.url}
	if d.claimed[key] {
		return false
	}
	d.claimed[key] = true
	return true
}

func (d *Driver) unclaim(model string, t *target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.claimed, claim{model, t.url})
}

func unreachable(err error) *backends.Failure {
	return &backends.Failure{
		Class: backends.ClassUnreachable, Message: "the model's server does not answer its health check",
		Advice: "check that it runs, and its URL, probe path and key", Err: err,
	}
}

// drain reads what is worth reading of a check's answer.
func drain(body io.ReadCloser) error {
	_, err := io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	return errors.Join(err, body.Close())
}
