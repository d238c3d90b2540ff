package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A replica is killed again and again under load. A client that has seen nothing of its answer sees no error; one in the middle of a stream is
// told in the stream. The full figures: one of four every 10 s for ten minutes.
func TestKilledReplicasCostNoAnswers(t *testing.T) {
	const replicas, callers = 4, 24
	every := time.Duration(scaled(700, 10_000)) * time.Millisecond
	length := time.Duration(scaled(8, 600)) * time.Second
	s := serve(t, config(simModel(t, "many", fmt.Sprintf("scaling: {replicas: %d}\n", replicas),
		"--sim-start", "300ms", "--sim-ttft", "40ms", "--sim-itl", "2ms")))
	s.Until(30*time.Second, "all replicas are ready", func() bool { return ready(s, "many") == replicas })

	key := s.Key("tenant")
	s.Until(10*time.Second, "the key is known", func() bool {
		return s.send(t.Context(), key, `{"model":"many","messages":[]}`, false).status != 401
	})
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var work sync.WaitGroup
	var whole, cut, again atomic.Int64
	for c := range callers {
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				marker := strings.TrimSpace(strings.Repeat(fmt.Sprintf("caller %d asks %d ", c, i), 5))
				stream := i%2 == 0
				body := fmt.Sprintf(`{"messages":[{"role":"system","content":%q},{"role":"user","content":%q}],"model":"many","stream":%v}`,
					strings.Repeat(fmt.Sprint("group ", c%5, " "), 200), "echo: "+marker, stream)
				a := s.send(t.Context(), key, body, stream)
				if strings.Contains(a.header.Get("X-Pilotlight-Reason"), "attempts=") {
					again.Add(1)
				}
				switch {
				case a.err == nil && a.status == 200 && a.text == marker && a.done == stream:
					whole.Add(1)
				case stream && a.status == 200 && a.text != "" && strings.HasPrefix(marker, a.text) && !a.done && a.code != "":
					cut.Add(1) // told after its first token
				default:
					t.Errorf("want a whole answer or an error after the first token, got %v", a)
				}
			}
		})
	}
	kills := 0
	for next := time.NewTicker(every); ctx.Err() == nil; {
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			continue
		}
		if m := s.model("many"); len(m.Replicas) > 0 && ready(s, "many") > 1 {
			r := m.Replicas[rand.IntN(len(m.Replicas))]
			if r.PID == 0 || r.State != "ready" {
				continue
			}
			if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
			kills++
		}
	}
	work.Wait()
	t.Logf("%d kills: %d whole answers, %d of them after another attempt, %d streams told that they were cut", kills, whole.Load(), again.Load(), cut.Load())
	if kills < 3 || whole.Load() < 100 {
		t.Errorf("%d kills and %d answers are too few to tell", kills, whole.Load())
	}
}

func ready(s *server, model string) (n int) {
	for _, r := range s.model(model).Replicas {
		if r.State == "ready" {
			n++
		}
	}
	return n
}
