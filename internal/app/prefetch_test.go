package app

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/weights"
	"pilotlight/internal/config"
	"pilotlight/internal/testtools/hubtest"
)

// newTestPrefetcher fetches from a hub into a store of its own.
func newTestPrefetcher(t *testing.T, hub *hubtest.Hub) (*prefetcher, *store.Store) {
	t.Helper()
	t.Setenv("HF_ENDPOINT", hub.Front.URL)
	t.Setenv("HF_HOME", t.TempDir())
	s, err := store.New(store.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	p := newPrefetcher(weights.New(s, log), log)
	t.Cleanup(p.close)
	return p, s
}

func wanting(origins ...string) *config.Config {
	c := &config.Config{}
	for _, o := range origins {
		c.Prefetch = append(c.Prefetch, config.Prefetch{Name: o, Weights: backends.Weights{Origin: o}})
	}
	return c
}

// until waits for the only item to be in a state.
func (p *prefetcher) until(t *testing.T, want string) PrefetchState {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := p.states()
		if len(s) == 1 && s[0].State == want {
			return s[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v", want, s)
		}
	}
}

func TestPrefetchesFollowTheConfiguration(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	began, left := make(chan struct{}, 100), make(chan struct{}, 100)
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(1<<20))
		w.WriteHeader(http.StatusOK)
		began <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
		return true
	})
	p, s := newTestPrefetcher(t, hub)
	p.use(wanting("org/model"), false)
	<-began
	p.use(wanting("org/model"), false) // nothing has changed, and nothing begins again
	if s := p.until(t, "downloading"); s.Name != "org/model" || s.Source != "org/model" {
		t.Errorf("state: %+v", s)
	}
	p.use(wanting(), false)
	<-left
	if got := p.states(); len(got) != 0 {
		t.Errorf("what is not wanted any more: %+v", got)
	}
	hub.FailWith(nil)
	p.use(wanting("org/model"), false)
	p.until(t, "stored")
	if _, err := s.Find("org/model", "", store.Filter{}); err != nil {
		t.Error(err)
	}
}

func TestFailedPrefetchBeginsAgainWhenAsked(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	hub.Mu.Lock()
	hub.Refusals = map[string]int{"GatedRepo": http.StatusForbidden}
	hub.Mu.Unlock()
	p, _ := newTestPrefetcher(t, hub)
	p.use(wanting("org/model"), false)
	if s := p.until(t, "failed"); s.Failure == nil || s.Failure.Class != "model_gated" || !s.Failure.Permanent || s.Failure.Advice == "" {
		t.Errorf("state: %+v", s)
	}
	hub.Mu.Lock()
	hub.Refusals = nil
	hub.Mu.Unlock()
	p.use(wanting("org/model"), false)
	if s := p.states(); s[0].State != "failed" {
		t.Errorf("a reload of something else began it again: %+v", s)
	}
	p.use(wanting("org/model"), true)
	if s := p.until(t, "stored"); s.Failure != nil || s.Percent != 100 {
		t.Errorf("state: %+v", s)
	}
}

// A model's own variables hold for its weights, its secrets' files included.
func TestModelsVariables(t *testing.T) {
	t.Setenv("FROM_GATEWAY", "gateway")
	t.Setenv("HF_TOKEN", "gateway's")
	env, err := Variables(&backends.Spec{Env: map[string]string{"HF_TOKEN": "model's"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"HF_TOKEN": "model's", "FROM_GATEWAY": "gateway"} {
		if got, ok := env(name); !ok || got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := Variables(&backends.Spec{Secrets: []backends.Secret{{Name: "hub", Env: "HF_TOKEN", File: "/does/not/exist"}}}); failureClass(err) != backends.ClassSecret {
		t.Errorf("a secret that cannot be read: %v", err)
	}
}

func TestEnginesThatNeedTheHubKeepIt(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{nil, false},
		{[]string{"--context-length", "4096"}, false},
		{[]string{"--trust-remote-code"}, true},
		{[]string{"--speculative-draft-model-path=org/draft"}, true},
		{[]string{"--tokenizer-path", "org/other"}, true},
	} {
		if got := asksHub(&backends.Spec{ExtraArgs: c.args}); got != c.want {
			t.Errorf("%q: %t", c.args, got)
		}
	}
}
