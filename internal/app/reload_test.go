package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/internal/config"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock for the Date header, and its cleaner of idle workers, which sleeps for 10 s before it sees its server's end.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// started is an App whose configuration is a text.
type started struct {
	*App
	t    *testing.T
	dir  string
	mu   sync.Mutex
	text string // guarded by mu
	done bool   // the test has shut it down
}

func start(t *testing.T, text string) *started {
	t.Helper()
	s := &started{t: t, dir: t.TempDir()}
	s.set(text)
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	s.App, err = Start(t.Context(), Options{Config: c, Load: s.load, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if s.done {
			return
		}
		if err := s.Shutdown(ctx, nil); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return s
}

// set makes the configuration's text; DIR in it is the test's folder.
func (s *started) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text = strings.ReplaceAll(text, "DIR", s.dir)
	s.text = fmt.Sprintf("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: %s/state\n%s", s.dir, text)
}

func (s *started) load() (*config.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return config.Parse(filepath.Join(s.dir, "pilotlight.yaml"), []byte(s.text), os.LookupEnv)
}

func modelNames(s State) (names []string) {
	for _, m := range s.Models {
		names = append(names, fmt.Sprint(m.Name, " ", m.Leaving))
	}
	return names
}

const staticModel = "  - {name: %s, model_id: %s, model_path: x, backend: {static: {urls: ['http://127.0.0.1:1']}}}\n"

func models(names ...string) string {
	text := "models:\n"
	for _, n := range names {
		text += fmt.Sprintf(staticModel, n, n)
	}
	return text
}

// A configuration that is refused when part of it is at work already must leave nothing behind: the next good one would start the
// same model a second time.
func TestRefusedReloadChangesNothing(t *testing.T) {
	s := start(t, models("a"))
	broken := filepath.Join(s.dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("no: keys\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.set("auth: {keys_file: DIR/broken.yaml}\n" + models("a", "b"))
	for range 2 {
		if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "keys_file") {
			t.Fatalf("Reload: %v", err)
		}
		state := s.State()
		if got := modelNames(state); len(got) != 1 || state.Config.Error == "" {
			t.Errorf("models %v, error %q", got, state.Config.Error)
		}
		s.App.mu.Lock()
		running, generation := len(s.models), s.generation["b"]
		s.App.mu.Unlock()
		if running != 1 || generation != 0 {
			t.Errorf("%d models run, b was made %d times", running, generation)
		}
	}
	s.set(models("a", "b"))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if state := s.State(); len(state.Models) != 2 || state.Config.Error != "" {
		t.Errorf("models %v, error %q", modelNames(state), state.Config.Error)
	}
	// One that fails behind the addition takes the added model back.
	s.set(models("a", "b", "c"))
	next, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	next.Models[1].Activator.Max = -1 // what no file can say
	if err := s.apply(next, false); err == nil {
		t.Fatal("a configuration that the activator refuses was applied")
	}
	s.App.mu.Lock()
	_, runs := s.models["c"]
	s.App.mu.Unlock()
	if runs {
		t.Error("a model of a refused configuration runs")
	}
}

// State, the metrics page and reloads that rename models go on at the same time; the race detector looks on.
func TestStateWhileReloading(t *testing.T) {
	s := start(t, models("a"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.State()
				resp, err := http.Get(s.AdminURL() + "/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				page, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				for _, want := range []string{"go_goroutines ", "process_open_fds ", "pilotlight_config_valid"} {
					if err != nil || !strings.Contains(string(page), want) {
						t.Errorf("no %s on the page: %v", want, err)
					}
				}
			}
		}
	})
	for i := range 30 {
		s.set("models:\n" + fmt.Sprintf(staticModel, "a", fmt.Sprint("id", i)) + fmt.Sprintf(staticModel, fmt.Sprint("b", i%2), fmt.Sprint("other", i)))
		if err := s.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}
