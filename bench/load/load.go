// Package load drives an OpenAI-compatible endpoint with an open loop: requests go out when the plan says, whether or not earlier ones
// were answered, and latencies count from the planned time. So a server that stalls is seen to stall for everybody who would have
// asked meanwhile (no coordinated omission), and a generator that falls behind charges itself.
//
// Arrivals and Trace make the plan, Run sends it, Result holds what was seen and prints itself as text, JSON or a page with plots.
// A Run has goroutines of its own and waits for them; different runs share nothing.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Caller is one API key and whom it stands for.
type Caller struct {
	Tenant string
	Key    string // empty: no Authorization header is sent
}

// Share is a model with its weight among the others.
type Share struct {
	Name   string
	Weight float64
}

// Options say what to send where.
type Options struct {
	// URL is the base URL that a client would be given, such as http://127.0.0.1:8000/v1.
	URL     string
	Callers []Caller // taken in turn; none: one without a key
	Models  []Share  // drawn by weight; at least one
	// Stream is the share of requests that ask for a stream, 0 to 1.
	Stream float64
	Plan   []Arrival
	// Timeout of a request, from its planned time; 0 means 10 minutes.
	Timeout time.Duration
	// MaxInFlight bounds the requests at once. What exceeds it is not sent, and counted as dropped. 0 means 10,000.
	MaxInFlight int
	// Warmup is how much of the plan's beginning is sent and left out of the figures.
	Warmup time.Duration
	// SharedPrefix is how many tokens all prompts begin with.
	SharedPrefix int
	// Seed of models, streams and texts. The same plan and seed send the same requests.
	Seed uint64
	// Progress is told of the run now and then, never by two goroutines at once; nil: nobody is.
	Progress func(sent, done, failed int)
	// Transport carries the requests; nil means one of HTTP/1.1 (as the official SDKs speak it) with enough connections.
	Transport http.RoundTripper

	// sleep is for short times, exactly; nil means the kernel's. Tests in a bubble have time of their own.
	sleep func(time.Duration)
}

const (
	defaultTimeout     = 10 * time.Minute
	defaultMaxInFlight = 10_000
	progressEvery      = 5 * time.Second
	// Node's fetch keeps idle connections so long. SGLang closes them after 5 s, and a request sent just then would count as failed.
	idleConn = 4 * time.Second
	// Go's timers wait in epoll, which knows whole milliseconds only: they end up to one too late, and a busy machine adds to it.
	timerSlack = 2 * time.Millisecond
)

// withDefaults is o with its zero values replaced, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return o, errors.New("the URL must be a base URL such as http://127.0.0.1:8000/v1") // it may hold a password: not repeated
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return o, errors.New("the URL must have no user, query or fragment")
	case len(o.Models) == 0:
		return o, errors.New("no model to ask for")
	case len(o.Plan) == 0:
		return o, errors.New("no arrivals are planned")
	case !(o.Stream >= 0 && o.Stream <= 1):
		return o, fmt.Errorf("share of streams %v: it must lie between 0 and 1", o.Stream)
	case o.Timeout < 0 || o.MaxInFlight < 0 || o.Warmup < 0 || o.SharedPrefix < 0 || o.SharedPrefix > maxTokens:
		return o, errors.New("time-out, requests in flight, warm-up and shared prefix must be 0 or more, and prompts no longer than 16 million tokens")
	case o.Warmup > o.Plan[len(o.Plan)-1].At:
		return o, fmt.Errorf("the plan's last request comes at %v, within the warm-up of %v", o.Plan[len(o.Plan)-1].At, o.Warmup)
	}
	for _, m := range o.Models {
		if !(m.Weight > 0 && m.Weight <= 1e6) {
			return o, fmt.Errorf("model %q: its weight must be a number above 0", m.Name)
		}
	}
	o.URL = strings.TrimRight(o.URL, "/")
	if len(o.Callers) == 0 {
		o.Callers = []Caller{{Tenant: "-"}}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = defaultMaxInFlight
	}
	if o.sleep == nil {
		o.sleep = sleep
	}
	return o, nil
}

// Run sends the plan. Its error is only about options: what goes wrong with requests is in the Result. When ctx ends, nothing more is sent and
// the requests in flight are cancelled; the Result says so.
func Run(ctx context.Context, o Options) (*Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Transport == nil {
		t := &http.Transport{MaxIdleConnsPerHost: o.MaxInFlight, IdleConnTimeout: idleConn, DisableCompression: true, Protocols: new(http.Protocols)}
		t.Protocols.SetHTTP1(true)
		defer t.CloseIdleConnections()
		o.Transport = t
	}
	r := newRun(o)
	stop := r.watchStates(ctx)
	r.send(ctx)
	stop()
	return r.record.result(r, ctx.Err() != nil), nil
}

type run struct {
	o      Options
	client *http.Client
	draw   *drawer
	states *states
	record *record
	start  time.Time // set before the first request
	end    time.Time // set after the last
}

func newRun(o Options) *run {
	// A redirect is an answer: SDKs turn some of them into a GET, and following others would measure two servers.
	client := &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &run{o: o, client: client, draw: newDrawer(o), states: newStates(), record: newRecord(o.Warmup)}
}

// send keeps to the plan, and returns when the last request has ended.
func (r *run) send(ctx context.Context) {
	var wg sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	r.start = time.Now()
	ended := make(chan struct{})
	var teller sync.WaitGroup
	if r.o.Progress != nil {
		teller.Go(func() { r.tell(ended) })
	}
	for i, a := range r.o.Plan {
		q := r.draw.question(i, a) // before its time has come: making a long prompt takes a while
		planned := r.start.Add(a.At)
		if wait := time.Until(planned); wait > timerSlack {
			timer.Reset(wait - timerSlack)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if wait := time.Until(planned); wait > 0 && ctx.Err() == nil {
			r.o.sleep(wait)
		}
		if ctx.Err() != nil {
			break
		}
		if !r.record.admit(r.o.MaxInFlight) {
			r.record.drop(Call{At: a.At, Tenant: q.caller.Tenant, Model: q.model, Stream: q.stream, MaxTokens: a.MaxTokens, Error: errDropped})
			continue
		}
		wg.Go(func() {
			c := r.ask(ctx, q, planned)
			c.At = a.At
			r.record.done(c)
		})
	}
	wg.Wait()
	r.end = time.Now()
	close(ended)
	teller.Wait()
}

// tell reports how far the run is.
func (r *run) tell(ended <-chan struct{}) {
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.o.Progress(r.record.progress())
		case <-ended:
			return
		}
	}
}

// sleep waits in the kernel, which keeps short times to some 0.1 ms.
func sleep(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, by less than timerSlack
}
