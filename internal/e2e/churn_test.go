package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
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
	resp, err := http.Get(s.AdminURL + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return f
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
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
	n := scaled(20_000, 200_000)
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

	var resident [5]int
	resident[0] = rss(t, pid)
	var next, left, answered atomic.Int64
	begin := time.Now()
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
		resident[quarter] = rss(t, pid)
		t.Logf("%d requests in %v: resident %.1f MiB", next.Load(), took.Round(time.Second), float64(resident[quarter])/(1<<20))
	}
	growth := float64(resident[4]-resident[1]) / float64(resident[1]) * 100
	t.Logf("answered %d, left %d; resident %.1f %% from 25 %% to 100 %%", answered.Load(), left.Load(), growth)
	// A short run's memory has not settled when its first quarter is over.
	if limit := float64(scaled(10, 3)); growth > limit {
		t.Errorf("resident memory grew by %.1f %% from 25 %% to 100 %% of the run, limit %v %%", growth, limit)
	}
	s.Until(20*time.Second, fmt.Sprintf("goroutines are back to %v", goroutines), func() bool { return s.metric("go_goroutines") <= goroutines })
	s.Until(20*time.Second, fmt.Sprintf("descriptors are back to %d", open), func() bool { return descriptors(t, pid) <= open })
	for _, m := range s.state().Models {
		if m.Crashes != 0 || m.StartFailures != 0 {
			t.Errorf("%s: %d crashes, %d failed starts", m.Name, m.Crashes, m.StartFailures)
		}
	}
}
