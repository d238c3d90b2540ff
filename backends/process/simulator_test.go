package process

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
)

// simulated is a spec whose engine is the simulator, which prints what SGLang prints.
func simulated(args ...string) *backends.Spec {
	return &backends.Spec{
		Model: "sim", ServedName: "sim", ModelPath: "some/model", Engine: backends.EngineSGLang, Driver: backends.DriverProcess,
		Command: os.Args[:1], Probe: "/health", StartTimeout: 20 * time.Second, ExtraArgs: args,
		Env: map[string]string{fakeVar: "simulator", "GORACE": "atexit_sleep_ms=0"},
	}
}

func TestSimulatedStart(t *testing.T) {
	d := newDriver(t, nil)
	var phases []backends.Phase
	var percents []float64
	r, err := d.Launch(t.Context(), simulated("--sim-start", "2s", "--max-running-requests", "48"), 1, func(p backends.Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		percents = append(percents, p.Percent)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(context.Background(), true); err != nil {
			t.Error(err)
		}
	}()
	want := []backends.Phase{backends.PhaseLaunch, backends.PhaseWeights, backends.PhaseKVCache, backends.PhaseGraphs, backends.PhaseWarmup}
	// Short phases may fall between two looks, but the order holds, and most are seen.
	rest := want
	for _, phase := range phases {
		i := slices.Index(rest, phase)
		if i < 0 {
			t.Fatalf("got phases %v, want a part of %v in that order", phases, want)
		}
		rest = rest[i+1:]
	}
	if len(phases) < 3 || phases[0] != backends.PhaseLaunch {
		t.Errorf("got phases %v, want most of %v", phases, want)
	}
	if !slices.IsSorted(percents) || len(percents) < 5 || percents[len(percents)-1] < 90 {
		t.Errorf("got percents %v", percents)
	}
	if got := r.Endpoint().Concurrency; got != 48 {
		t.Errorf("got concurrency %d, want 48", got)
	}
	for key, want := range map[string]int{r.Endpoint().APIKey: 200, "another": 401} {
		req, err := http.NewRequest(http.MethodGet, "http://"+r.Endpoint().Addr+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("got status %d, want %d", resp.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()

	log, err := os.ReadFile(r.record.Log)
	if err != nil || !strings.Contains(string(log), r.Endpoint().APIKey) {
		t.Errorf("the engine did not show its key, so that masking it was not tested: %v", err)
	}
	if text := strings.Join(r.Tail(ringLines), "\n"); strings.Contains(text, r.Endpoint().APIKey) || !strings.Contains(text, "server_args") {
		t.Errorf("the key is in the tail, or the line that shows it is not:\n%s", text)
	}
}

func TestSimulatedFailures(t *testing.T) {
	for _, c := range []struct {
		args      string
		class     backends.Class
		permanent bool
	}{
		{"--max-model-len 5", backends.ClassBadFlag, true},
		{"--sim-fail exit", backends.ClassExited, false},
		{"--sim-fail killed", backends.ClassKilled, false},
		{"--sim-fail graph-memory", backends.ClassOutOfMemory, true},
		{"--sim-fail kv-memory", backends.ClassOutOfMemory, true},
		{"--sim-fail not-found", backends.ClassModelNotFound, true},
		{"--sim-fail warmup", backends.ClassExited, false},
		{"--sim-fail oom", backends.ClassOutOfMemory, true},
		{"--sim-fail kv-memory-old", backends.ClassOutOfMemory, true},
		{"--sim-fail gated", backends.ClassGated, true},
		{"--sim-fail no-repo", backends.ClassModelNotFound, true},
		{"--sim-fail no-weights", backends.ClassModelNotFound, true},
		{"--sim-fail unsupported", backends.ClassUnsupported, true},
		{"--sim-fail no-gpu", backends.ClassDriver, true},
		{"--sim-fail driver", backends.ClassDriver, true},
		{"--sim-fail nccl", backends.ClassDriver, false},
		{"--sim-fail disk-full", backends.ClassDiskFull, false},
		{"--sim-fail host-oom", backends.ClassKilled, false},
	} {
		t.Run(c.args, func(t *testing.T) {
			d := newDriver(t, nil)
			f := failed(t, t.Context(), d, simulated(append([]string{"--sim-start", "300ms"}, strings.Fields(c.args)...)...), c.class)
			if f.Permanent != c.permanent || len(f.Lines) == 0 && c.class != backends.ClassKilled {
				t.Errorf("got permanent %t, want %t; lines %q", f.Permanent, c.permanent, f.Lines)
			}
		})
	}
}

// The simulator's children inherit the output and outlive their parent.
func TestSimulatedCrashWithChildren(t *testing.T) {
	d := newDriver(t, nil)
	r := mustLaunch(t, d, simulated("--sim-children", "2"), 1)
	left, err := r.child.kin.members()
	if err != nil || len(left) != 3 {
		t.Errorf("got %v, %v; want the server and two children", left, err)
	}
	if err := r.child.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Exited():
	case <-time.After(10 * time.Second):
		t.Fatal("the crash was not seen")
	}
	left, err = r.child.kin.members()
	if err != nil {
		t.Error(err)
	}
	for _, m := range left {
		if !m.dead { // dead ones wait for init to reap them
			t.Errorf("left: %+v", m)
		}
	}
}

func TestAReplicaSeesItsOwnDevicesOnly(t *testing.T) {
	d := newDriver(t, func(o *Options) {
		o.Environ = append(os.Environ(), "CUDA_VISIBLE_DEVICES=0,1,2,3", "CUDA_DEVICE_ORDER=FASTEST_FIRST")
	})
	dir := t.TempDir()
	spec := simulated("--sim-gpu-dir", dir)
	spec.Env["CUDA_VISIBLE_DEVICES"] = "0"
	r, err := d.LaunchOn(t.Context(), spec, backends.Placement{Devices: []string{"2", "3"}, MemoryFraction: 0.43999}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(context.Background(), true); err != nil {
			t.Error(err)
		}
	}()
	said, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(r.PID())))
	if err != nil || string(said) != "2,3 0.439\n" {
		t.Errorf("the engine is on %q, %v", said, err)
	}
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.PID()), "environ"))
	if err != nil || !strings.Contains("\x00"+string(environ), "\x00CUDA_DEVICE_ORDER=PCI_BUS_ID\x00") {
		t.Errorf("the order of devices is not nvidia-smi's: %v", err)
	}
	if !slices.Equal(r.record.Devices, []string{"2", "3"}) {
		t.Errorf("the record has devices %v", r.record.Devices)
	}
	if len(spec.ExtraArgs) != 2 || spec.Env["CUDA_VISIBLE_DEVICES"] != "0" {
		t.Errorf("the spec was changed: %+v", spec)
	}
}
