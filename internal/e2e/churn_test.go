package e2e

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// metric reads one value of the metrics page.
func (s *server) metric(name string) float64 {
	s.t.Helper()
	v := s.metricOr(name, math.NaN())
	if math.IsNaN(v) {
		s.t.Fatalf("no metric %s", name)
	}
	return v
}

// metricOr gives missing for what the metrics page does not have: a counter that nothing was added to.
func (s *server) metricOr(name string, missing float64) float64 {
	s.t.Helper()
	resp, err := http.Get(s.AdminURL + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return f
		}
	}
	return missing
}

// openFiles lists what a process's descriptors are, sorted.
func openFiles(t *testing.T, pid int) (files []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if file, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else closed meanwhile
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// sampled is a quantity y over x.
type sampled struct{ x, y []float64 }

func (s *sampled) add(x, y float64) { s.x, s.y = append(s.x, x), append(s.y, y) }

// growth fits a line through the samples between two places, and gives its rise from one to the other as a share of its value
// at the first.
func (s *sampled) growth(from, to float64) float64 {
	var n, sx, sy, sxx, sxy float64
	for i, x := range s.x {
		if x >= from && x <= to {
			n, sx, sy, sxx, sxy = n+1, sx+x, sy+s.y[i], sxx+x*x, sxy+x*s.y[i]
		}
	}
	slope := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	return slope * (to - from) / ((sy-slope*sx)/n + slope*from)
}

func TestGrowth(t *testing.T) {
	var s sampled
	for x := range 101 {
		s.add(float64(x), 1000+float64(x)) // 1025 at 25, 1100 at 100
	}
	if got, want := s.growth(25, 100), 75.0/1025; math.Abs(got-want) > 1e-9 {
		t.Errorf("growth %v, want %v", got, want)
	}
}

// The places where a client leaves.
const (
	leaveInBody   = iota // in the middle of its request
	leaveSoon            // queued, or while the engine is silent
	leaveAtHead          // with the head of the answer
	leaveInMidst         // after some of the answer
	leavingPhases        // their number
)

// leave begins a request and goes, with a FIN or a reset.
func (s *server) leave(model string, phase int, stream, reset bool) error {
	nc, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.BaseURL, "http://"), "/v1"))
	if err != nil {
		return err
	}
	c := nc.(*net.TCPConn)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if reset {
		c.SetLinger(0)
	}
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"echo: %s"}],"model":%q,"stream":%v}`, strings.Repeat("word ", 40), model, stream)
	request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", s.Key("a"), len(body), body)
	if phase == leaveInBody {
		request = request[:len(request)-20]
	}
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	switch phase {
	case leaveSoon:
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond)
	case leaveAtHead:
		_, err = io.ReadFull(c, make([]byte, 40))
	case leaveInMidst:
		_, err = io.ReadFull(c, make([]byte, 400))
	}
	return err
}

// Requests come and go, one in five cancelled somewhere, over models that come and go themselves: at the end everything is as it
// was in the beginning, and memory does not grow with the number of requests served.
func TestChurn(t *testing.T) {
	// Where the collector happens to stand moves the line by 3 % over 200,000 requests. A leak grows with the number of requests and
	// that does not, so the full run is long enough to tell them apart.
	n := scaled(30_000, 200_000)
	const models, workers = 4, 48
	var entries []string
	for i := range models {
		entries = append(entries, simModel(t, fmt.Sprint("m", i), "scaling: {replicas: [0, 1], scaledown_after: 500ms, metric: {concurrency: 24}}\ncold: {grace: 100ms, heartbeat: 100ms}",
			"--sim-start", "200ms", "--sim-ttft", "3ms", "--sim-itl", "100us"))
	}
	s := serve(t, config(entries...)+"telemetry: {access_log: false}\n")
	pid := s.PID()
	quiet := func() {
		t.Helper()
		s.http.CloseIdleConnections()
		s.Until(30*time.Second, "all models are cold and nobody is connected", func() bool {
			state := s.state()
			for _, m := range state.Models {
				if m.State != "cold" || m.QueuedRequests > 0 {
					return false
				}
			}
			return state.Clients == 0 && len(s.Engines()) == 0
		})
	}
	// What every first request makes is no leak: all models once, and as many connections as there will be.
	var warm sync.WaitGroup
	for i := range workers {
		warm.Go(func() {
			s.ask(t.Context(), "a", fmt.Sprint("m", i%models), "warm", i%2 == 0).wants(t, "warm", i%2 == 0)
		})
	}
	warm.Wait()
	quiet()
	time.Sleep(11 * time.Second) // fasthttp keeps idle workers for 10 s
	goroutines, open := s.metric("go_goroutines"), descriptors(t, pid)
	before := openFiles(t, pid)

	var next, left, answered atomic.Int64
	begin := time.Now()
	var memory sampled
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				memory.add(float64(next.Load()), float64(rss(t, pid)))
			}
		}
	})
	finish := sync.OnceFunc(func() { close(stop); sampler.Wait() })
	defer finish()
	for quarter := 1; quarter <= 4; quarter++ {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for {
					i := next.Add(1)
					if i > int64(n*quarter/4) {
						next.Add(-1)
						return
					}
					model, stream := fmt.Sprint("m", rand.IntN(models)), rand.IntN(2) == 0
					if i%500 == 0 { // a pause for a model to go away in
						time.Sleep(700 * time.Millisecond)
					}
					if i%5 == 0 {
						if err := s.leave(model, rand.IntN(leavingPhases), stream, rand.IntN(2) == 0); err != nil {
							t.Errorf("request %d: %v", i, err)
							return
						}
						left.Add(1)
						continue
					}
					marker := fmt.Sprint("marker ", i)
					if !s.ask(t.Context(), "a", model, marker, stream).wants(t, marker, stream) {
						return
					}
					answered.Add(1)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		took := time.Since(begin)
		quiet()
		t.Logf("%d requests in %v: resident %.1f MiB when all is quiet", next.Load(), took.Round(time.Second), float64(rss(t, pid))/(1<<20))
	}
	finish()
	// A line through all samples: single ones differ by a tenth, as the collector happens to have run or not.
	// Pools are full and the heap has its size after some 15,000 requests: a short run counts from there.
	from := scaled(n/2, n/4)
	growth := memory.growth(float64(from), float64(n)) * 100
	t.Logf("answered %d, left %d; resident %+.1f %% from request %d on, by %d samples", answered.Load(), left.Load(), growth, from, len(memory.x))
	if limit := float64(scaled(10, 3)); growth > limit {
		t.Errorf("resident memory grew by %.1f %% from request %d to %d, limit %v %%", growth, from, n, limit)
	}
	s.Until(20*time.Second, fmt.Sprintf("goroutines are back to %v", goroutines), func() bool { return s.metric("go_goroutines") <= goroutines })
	for deadline := time.Now().Add(20 * time.Second); descriptors(t, pid) > open; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("descriptors were %v, and are now\n%v", before, openFiles(t, pid))
			break
		}
	}
	for _, m := range s.state().Models {
		if m.Crashes != 0 || m.StartFailures != 0 {
			t.Errorf("%s: %d crashes, %d failed starts", m.Name, m.Crashes, m.StartFailures)
		}
	}
}
