package static

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a set of servers behind a RoundTripper, so that tests run in a bubble without sockets.
type fleet struct {
	mu sync.Mutex
	// status by "host path"; missing: the connection is refused.
	status map[string]int
	hang   map[string]bool // hosts that never answer
	asked  []string
	auth   map[string]string
}

var errRefused = errors.New("connection refused")

func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.URL.Host + " " + r.URL.Path
	f.mu.Lock()
	f.asked = append(f.asked, key)
	if f.auth == nil {
		f.auth = map[string]string{}
	}
	f.auth[r.URL.Host] = r.Header.Get("Authorization")
	status, hang := f.status[key], f.hang[r.URL.Host]
	f.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if status == 0 {
		return nil, errRefused
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func (f *fleet) set(key string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status[key] = status
}

func (f *fleet) count(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, a := range f.asked {
		if a == key {
			n++
		}
	}
	return n
}

func newFleet(status map[string]int) (*fleet, *Driver) {
	f := &fleet{status: status, hang: map[string]bool{}}
	return f, New(Options{Transport: f, Jitter: func(d time.Duration) time.Duration { return d }})
}

func spec(urls ...string) *backends.Spec {
	return &backends.Spec{
		Model: "m", ServedName: "served", Engine: backends.EngineOpenAI, Driver: backends.DriverStatic,
		Probe: "/health", URLs: urls, StaticAPIKey: "key",
	}
}

func TestLaunchClaimsAHealthyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{"a:80 /health": 200})
		r, err := d.Launch(t.Context(), spec("http://a"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := backends.Endpoint{Addr: "a:80", APIKey: "key", Engine: backends.EngineOpenAI, ServedName: "served"}
		if r.Endpoint() != want {
			t.Errorf("got %+v, want %+v", r.Endpoint(), want)
		}
		f.mu.Lock()
		if f.auth["a:80"] != "Bearer key" {
			t.Errorf("got authorization %q", f.auth["a:80"])
		}
		f.mu.Unlock()
		if r.Cause() != nil {
			t.Errorf("got cause %v of a healthy server", r.Cause())
		}
		time.Sleep(59 * time.Second)
		if n := f.count("a:80 /health"); n != 12 {
			t.Errorf("asked %d times in a minute, want 12", n)
		}
		if err := r.Stop(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		var cause *backends.Failure
		if !errors.As(r.Cause(), &cause) || cause.Class != backends.ClassStopped {
			t.Errorf("got %v, want stopped", r.Cause())
		}
		if err := r.Stop(t.Context(), true); err != nil {
			t.Errorf("stopping again: %v", err)
		}
	})
}

func TestServerThatGoesDownAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{"a:80 /health": 200})
		r, err := d.Launch(t.Context(), spec("http://a"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		// Two bad answers with a good one between are nothing.
		f.set("a:80 /health", 503)
		time.Sleep(11 * time.Second)
		f.set("a:80 /health", 200)
		time.Sleep(5 * time.Second)
		f.set("a:80 /health", 0) // 16 s have passed
		time.Sleep(10 * time.Second)
		select {
		case <-r.Exited():
			t.Fatal("two failed checks in a row took the server out")
		default:
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		select {
		case <-r.Exited():
		default:
			t.Fatal("three failed checks did not take the server out")
		}
		var cause *backends.Failure
		if !errors.As(r.Cause(), &cause) || cause.Class != backends.ClassUnreachable || cause.Permanent || !errors.Is(cause, errRefused) {
			t.Errorf("got %v, want unreachable", r.Cause())
		}

		began := time.Now()
		time.AfterFunc(time.Minute, func() { f.set("a:80 /health", 200) })
		r, err = d.Launch(t.Context(), spec("http://a"), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("the next launch took %v, want until the server is healthy again", took)
		}
		if err := r.Stop(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSeveralServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{"b:80 /health": 200, "c:80 /health": 200})
		f.hang["a:80"] = true
		s := spec("http://a", "http://b", "http://c")
		s.StartTimeout = 100 * time.Second
		var replicas []*Replica
		got := map[string]bool{}
		began := time.Now()
		for id := range uint64(2) {
			r, err := d.Launch(t.Context(), s, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			replicas = append(replicas, r)
			got[r.Endpoint().Addr] = true
		}
		if !got["b:80"] || !got["c:80"] || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want b and c at once: the server that hangs must not hide them", got, time.Since(began))
		}
		var f3 *backends.Failure
		if _, err := d.Launch(t.Context(), s, 3, nil); !errors.As(err, &f3) || f3.Class != backends.ClassUnreachable {
			t.Errorf("got %v, want unreachable: two are claimed, one hangs", err)
		}
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("took %v, want the start timeout", took)
		}
		// Another model may use the same servers.
		other := spec("http://b")
		other.Model = "other"
		r, err := d.Launch(t.Context(), other, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range append(replicas, r) {
			if err := r.Stop(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		if len(d.claimed) != 0 {
			t.Errorf("still claimed: %v", d.claimed)
		}
	})
}

// A server that comes up while another hangs is seen at once.
func TestHangingServerDoesNotDelayAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{})
		f.hang["a:80"] = true
		time.AfterFunc(3500*time.Millisecond, func() { f.set("b:80 /health", 200) })
		began := time.Now()
		r, err := d.Launch(t.Context(), spec("http://a", "http://b"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("took %v, want 4 s", took)
		}
		if err := r.Stop(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	})
}

// Launches that run at once get different servers.
func TestConcurrentLaunches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := newFleet(map[string]int{"a:80 /health": 200, "b:80 /health": 200, "c:80 /health": 200})
		s := spec("http://a", "http://b", "http://c")
		var mu sync.Mutex
		got := map[string]int{}
		var replicas []*Replica
		var wg sync.WaitGroup
		for id := range uint64(3) {
			wg.Go(func() {
				r, err := d.Launch(t.Context(), s, id, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[r.Endpoint().Addr]++
				replicas = append(replicas, r)
			})
		}
		wg.Wait()
		if len(got) != 3 {
			t.Errorf("got %v, want each server once", got)
		}
		for _, r := range replicas {
			if err := r.Stop(t.Context(), true); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestServerWithoutTheProbePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{"a:443 /llm/health": 404, "a:443 /llm/v1/models": 200})
		r, err := d.Launch(t.Context(), spec("https://a/llm/v1/"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e := r.Endpoint(); !e.TLS || e.PathPrefix != "/llm" || e.Addr != "a:443" {
			t.Errorf("got %+v", e)
		}
		time.Sleep(21 * time.Second)
		if n := f.count("a:443 /llm/health"); n != 1 {
			t.Errorf("the unknown path was asked for %d times, want once", n)
		}
		if n := f.count("a:443 /llm/v1/models"); n != 5 {
			t.Errorf("the models were asked for %d times, want 5", n)
		}
		if err := r.Stop(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAnswersThatAreNotHealthy(t *testing.T) {
	for _, status := range []int{302, 401, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			_, d := newFleet(map[string]int{"a:80 /health": status, "a:80 /v1/models": 200})
			s := spec("http://a")
			s.StartTimeout = 10 * time.Second
			var f *backends.Failure
			if _, err := d.Launch(t.Context(), s, 1, nil); !errors.As(err, &f) || f.Class != backends.ClassUnreachable {
				t.Errorf("status %d: got %v, want unreachable", status, err)
			}
		})
	}
}

func TestCancelledLaunch(t *testing.T) {
	for _, hang := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f, d := newFleet(map[string]int{})
			f.hang["a:80"] = hang
			ctx, cancel := context.WithTimeout(t.Context(), 7300*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := d.Launch(ctx, spec("http://a"), 1, nil)
			var failure *backends.Failure
			if !errors.As(err, &failure) || failure.Class != backends.ClassStopped || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want stopped", err)
			}
			if took := time.Since(began); took != 7300*time.Millisecond {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Stop does not wait for a check that hangs.
func TestStopDuringACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := newFleet(map[string]int{"a:80 /health": 200})
		r, err := d.Launch(t.Context(), spec("http://a"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.hang["a:80"] = true
		f.mu.Unlock()
		time.Sleep(6 * time.Second)
		began := time.Now()
		if err := r.Stop(t.Context(), true); err != nil || time.Since(began) > 0 {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

func TestUnusableURLs(t *testing.T) {
	d := New(Options{})
	for _, urls := range [][]string{{}, {"ftp://a"}, {"a:80"}, {"http://"}, {"http://u:p@a"}, {"http://a?x=1"}, {"http://a b"}, {"http://a", "://"}} {
		var f *backends.Failure
		_, err := d.Launch(t.Context(), spec(urls...), 1, nil)
		if !errors.As(err, &f) || f.Class != backends.ClassBadFlag || !f.Permanent {
			t.Errorf("%q: got %v, want a permanent invalid_launch_argument", urls, err)
		}
		if f != nil && strings.Contains(f.Message+f.Advice, "u:p") {
			t.Errorf("the client's text %q holds the URL's password", f.Message+f.Advice)
		}
	}
}

func TestDefaultJitterStaysWithinAFifth(t *testing.T) {
	d := New(Options{})
	for range 1000 {
		if got := d.opts.Jitter(5 * time.Second); got < 4*time.Second || got > 6*time.Second {
			t.Fatalf("got %v", got)
		}
	}
}

// A thousand models on one server ask it no more often than two would, see its end no later, and none hides another server's.
func TestModelsShareTheChecksOfTheirServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{status: map[string]int{"a:1 /health": 200, "b:1 /health": 200}, hang: map[string]bool{}}
		d := New(Options{Transport: f}) // jitter as in use
		const models = 1000
		var replicas []*Replica
		for i := range models {
			s := spec("http://a:1")
			s.Model = fmt.Sprint("m", i)
			r, err := d.Launch(t.Context(), s, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			replicas = append(replicas, r)
		}
		other, err := d.Launch(t.Context(), spec("http://b:1"), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		before := f.count("a:1 /health")
		time.Sleep(100 * defaultInterval)
		asked := f.count("a:1 /health") - before
		if asked < 100 || asked > 210 {
			t.Errorf("%d checks in 100 intervals", asked)
		}
		for i, silence := range []func(){
			func() { f.set("a:1 /health", 500) },
			func() { f.mu.Lock(); f.hang["b:1"] = true; f.mu.Unlock() },
		} {
			silence()
			began := time.Now()
			for _, r := range [][]*Replica{replicas, {other}}[i] {
				<-r.Exited()
			}
			// Three checks that are one and a fifth of an interval apart at most, the first half an interval late, and each as long as it may take.
			if took, most := time.Since(began), 3*defaultInterval*6/5+defaultInterval/2+time.Duration(3*i)*defaultTimeout; took > most {
				t.Errorf("case %d: all know after %v, want %v at most", i, took, most)
			}
		}
		// The same again while all wait for a server that hangs.
		var group sync.WaitGroup
		f.set("a:1 /health", 200)
		replicas = nil
		for i := range models {
			s := spec("http://a:1")
			s.Model = fmt.Sprint("m", i)
			r, err := d.Launch(t.Context(), s, 2, nil)
			if err != nil {
				t.Fatal(err)
			}
			replicas = append(replicas, r)
		}
		f.mu.Lock()
		f.hang["a:1"] = true
		f.mu.Unlock()
		began := time.Now()
		for _, r := range replicas {
			group.Go(func() { <-r.Exited() })
		}
		group.Wait()
		if took, most := time.Since(began), 3*(defaultTimeout+2*defaultInterval); took > most {
			t.Errorf("all know of a server that hangs after %v, want %v at most", took, most)
		}
		synctest.Wait()
		if len(d.claimed) != 0 {
			t.Errorf("still claimed: %v", d.claimed)
		}
	})
}
