package process

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"pilotlight/backends"
	"pilotlight/bench/sglangsim"
)

// sleeping launches a simulated engine that may sleep.
func sleeping(t *testing.T, how backends.Sleep, args ...string) *Replica {
	t.Helper()
	spec := simulated(args...)
	spec.Sleep = how
	r, err := newDriver(t, nil).Launch(t.Context(), spec, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return r
}

// recorded is the state that the record on disk has.
func recorded(t *testing.T, r *Replica) State {
	t.Helper()
	b, err := os.ReadFile(r.driver.recordPath(r.record.name()))
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	return rec.State
}

func seenBy(t *testing.T, r *Replica) (v sglangsim.Stats) {
	t.Helper()
	resp, err := http.Get("http://" + r.Endpoint().Addr + "/sim/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSleepAndWake(t *testing.T) {
	for _, how := range []backends.Sleep{backends.SleepKV, backends.SleepWeights} {
		t.Run(string(how), func(t *testing.T) {
			r := sleeping(t, how)
			for range 2 {
				if err := r.Sleep(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := recorded(t, r); s != StateAsleep {
					t.Errorf("asleep, and recorded as %s", s)
				}
				if err := r.Wake(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := recorded(t, r); s != StateReady {
					t.Errorf("awake, and recorded as %s", s)
				}
			}
			v := seenBy(t, r)
			// One generation before the first sleep, and one after each wake; no probe that generates.
			if v.Sleeps != 2 || v.Wakes != 2 || v.Routes["POST /generate"] != 3 || v.Finished != 3 || v.Routes["GET /health_generate"] != 0 {
				t.Errorf("the engine has seen %+v", v)
			}
		})
	}
}

// What SGLang would die of is refused, and not sent.
func TestSleepOutOfTurn(t *testing.T) {
	r := sleeping(t, backends.SleepWeights)
	if err := r.Wake(t.Context()); !errors.Is(err, errWrongTurn) {
		t.Errorf("waking an engine that is awake: %v", err)
	}
	if err := r.Sleep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Sleep(t.Context()); !errors.Is(err, errWrongTurn) {
		t.Errorf("putting a sleeper to sleep: %v", err)
	}
	if _, err := r.generates(t.Context()); !errors.Is(err, errWrongTurn) {
		t.Errorf("a probe that generates: %v", err)
	}
	if v := seenBy(t, r); v.Routes["GET /health_generate"] != 0 || v.Routes["POST /resume_memory_occupation"] != 0 || v.Routes["POST /release_memory_occupation"] != 1 {
		t.Errorf("the engine has seen %v", v.Routes)
	}
	if err := r.Wake(t.Context()); err != nil { // it is none the worse for it
		t.Error(err)
	}
}

func TestAnEngineWithoutAMemorySaverStaysAwake(t *testing.T) {
	r := sleeping(t, "")
	if err := r.Sleep(t.Context()); err == nil {
		t.Error("it went to sleep")
	}
	if v := seenBy(t, r); len(v.Routes) != 1 { // its probe
		t.Errorf("the engine has seen %v", v.Routes)
	}
}

func TestSleepGoesWrong(t *testing.T) {
	for _, c := range []struct {
		args  string
		wake  bool
		after time.Duration // the limit; 0: none is needed
		says  string
	}{
		{"--sim-sleep-fault status", false, 0, "/release_memory_occupation: status 500"},
		{"--sim-sleep-fault die", false, 0, "/release_memory_occupation: "},
		{"--sim-sleep-fault hang", false, 500 * time.Millisecond, "context deadline exceeded"},
		{"--sim-sleep-fault busy", false, 500 * time.Millisecond, "still busy"},
		{"--sim-hang-after 0s", false, 500 * time.Millisecond, "context deadline exceeded"},
		{"--sim-wake-fault status", true, 0, "/resume_memory_occupation: status 500"},
		{"--sim-wake-fault die", true, 0, "/resume_memory_occupation: "},
		{"--sim-wake-fault hang", true, 500 * time.Millisecond, "context deadline exceeded"},
		{"--sim-wake-fault mute", true, 0, "its weights are lost"},
		{"--sim-wake-fault late", true, 0, "/generate: "},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := sleeping(t, backends.SleepWeights, strings.Fields(c.args)...)
			limited := func(do func(context.Context) error) error {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.after > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.after)
				}
				defer cancel()
				return do(ctx)
			}
			err := error(nil)
			if c.wake {
				if err := r.Sleep(t.Context()); err != nil {
					t.Fatal(err)
				}
				err = limited(r.Wake)
			} else {
				err = limited(r.Sleep)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			// Nobody knows what it has now: nothing more is sent to it.
			for _, do := range []func(context.Context) error{r.Sleep, r.Wake} {
				if err := do(t.Context()); !errors.Is(err, errWrongTurn) {
					t.Errorf("after that: %v", err)
				}
			}
		})
	}
}

// A client that leaves is no longer counted by anybody while SGLang still generates for it: the release would kill the engine.
func TestSleepEndsWhatWasLeftBehind(t *testing.T) {
	r := sleeping(t, backends.SleepWeights, "--sim-itl", "20ms", "--sim-disconnect-delay", "1h")
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.Endpoint().Addr+"/generate", strings.NewReader(`{"text":"a long one","sampling_params":{"max_new_tokens":8000},"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.Endpoint().APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	if v := seenBy(t, r); v.Running != 1 {
		t.Fatalf("%d running, so nothing was tested", v.Running)
	}
	if err := r.Sleep(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Wake(t.Context()); err != nil {
		t.Error(err)
	}
	if v := seenBy(t, r); v.Aborted != 1 {
		t.Errorf("%d aborted", v.Aborted)
	}
}
