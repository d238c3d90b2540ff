package sglangsim

import (
	"context"
	"errors"
	"testing"
	"time"
)

const (
	release = "/release_memory_occupation"
	resume  = "/resume_memory_occupation"
)

func TestSleepFaults(t *testing.T) {
	saver := func(change func(*Faults)) func(*Options) {
		return func(o *Options) { o.MemorySaver, o.WeightsBackup = true, true; change(&o.Faults) }
	}
	for _, path := range []string{release, resume} {
		for mode, check := range map[string]func(*fixture){
			"status": func(f *fixture) {
				if status, _ := f.post(path, `{}`); status != 500 {
					f.t.Errorf("status %d", status)
				}
				f.alive()
			},
			"hang": func(f *fixture) {
				ctx, cancel := context.WithTimeout(f.t.Context(), 100*time.Millisecond)
				defer cancel()
				if _, _, err := f.do(ctx, "POST", path, `{}`); !errors.Is(err, context.DeadlineExceeded) {
					f.t.Errorf("got %v", err)
				}
				f.alive()
			},
			"die": func(f *fixture) {
				if _, _, err := f.do(f.t.Context(), "POST", path, `{}`); err == nil {
					f.t.Error("answered")
				}
				f.end(ErrDied)
			},
		} {
			t.Run(mode+path, func(t *testing.T) {
				f := serve(t, saver(func(faults *Faults) {
					if path == release {
						faults.Sleep = mode
					} else {
						faults.Wake = mode
					}
				}))
				if path == resume {
					f.post(release, `{}`)
				}
				check(f)
			})
		}
	}
	t.Run("busy", func(t *testing.T) {
		f := serve(t, saver(func(faults *Faults) { faults.Sleep = "busy" }))
		if status, _ := f.post("/flush_cache", `{}`); status != 400 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("mute", func(t *testing.T) {
		f := serve(t, saver(func(faults *Faults) { faults.Wake = "mute" }))
		f.post(release, `{}`)
		f.post(resume, `{}`)
		_, answer := f.post("/generate", `{"text":"echo: hi"}`)
		if got := at(t, parse(t, answer), "text"); got != "" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("late", func(t *testing.T) {
		f := serve(t, saver(func(faults *Faults) { faults.Wake = "late" }))
		f.post(release, `{}`)
		if status, _ := f.post(resume, `{}`); status != 200 {
			t.Errorf("status %d", status)
		}
		if _, _, err := f.do(t.Context(), "POST", "/generate", `{"text":"echo: hi"}`); err == nil {
			t.Error("answered")
		}
		f.end(ErrDied)
	})
}

func TestDelaysOfSleepAndWake(t *testing.T) {
	const delay = 100 * time.Millisecond
	f := serve(t, func(o *Options) {
		o.MemorySaver, o.WeightsBackup, o.Faults.SleepDelay, o.Faults.WakeDelay = true, true, delay, delay
	})
	for _, path := range []string{release, resume} {
		began := time.Now()
		if status, _ := f.post(path, `{}`); status != 200 || time.Since(began) < delay {
			t.Errorf("%s: status %d after %v", path, status, time.Since(began))
		}
	}
	if v := f.Stats(); v.Sleeps != 1 || v.Wakes != 1 {
		t.Errorf("%d sleeps and %d wakes", v.Sleeps, v.Wakes)
	}
}

// Requests that a pause keeps out are not the scheduler's: the server sleeps all the same, and answers them afterwards.
func TestABlockedRequestSurvivesASleep(t *testing.T) {
	type memory struct{ kv, weights bool }
	var seen []memory
	f := serve(t, func(o *Options) {
		o.MemorySaver, o.WeightsBackup = true, true
		o.Occupied = func(kv, weights bool) { seen = append(seen, memory{kv, weights}) }
	})
	f.post("/pause_generation", `{"mode":"abort"}`)
	answered := make(chan int, 1)
	go func() {
		status, _, err := f.do(t.Context(), "POST", "/v1/chat/completions", chatBody("hi", ""))
		if err != nil {
			t.Error(err)
		}
		answered <- status
	}()
	f.eventually("blocked", func() bool { return f.Stats().Waiting == 1 })
	for _, step := range [][2]string{{"/flush_cache", `{}`}, {release, `{"tags":["kv_cache"]}`}, {resume, `{"tags":["kv_cache"]}`}, {"/continue_generation", `{}`}} {
		if status, body := f.post(step[0], step[1]); status != 200 {
			t.Errorf("%s: %d %s", step[0], status, body)
		}
	}
	if status := <-answered; status != 200 {
		t.Errorf("status %d", status)
	}
	if len(seen) != 2 || seen[0] != (memory{false, true}) || seen[1] != (memory{true, true}) {
		t.Errorf("occupied %v", seen)
	}
}
