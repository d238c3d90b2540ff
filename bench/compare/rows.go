package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sample is one measurement of one subject.
type sample struct {
	seen
	CPU      time.Duration `json:"cpu_ns"`
	Resident int64         `json:"resident_bytes"` // at the end
	Grown    int64         `json:"grown_bytes"`    // resident memory beyond what it was before
}

// measure has one client process do a job through a subject.
func (l *lab) measure(ctx context.Context, s *subject, j job) (sample, error) {
	before, err := s.process.usage()
	if err != nil {
		return sample{}, err
	}
	saw, err := drive(ctx, l.self, s.of(j))
	if err != nil {
		return sample{}, err
	}
	after, err := s.process.usage()
	if err != nil {
		return sample{}, err
	}
	if saw.Errors > 0 {
		l.say("  %s: %d errors, the first: %s", s.name, saw.Errors, saw.First)
	}
	return sample{seen: saw, CPU: after.cpu - before.cpu, Resident: after.resident, Grown: after.resident - before.resident}, nil
}

// interleave measures all subjects once per round, in turn, and every other round in the opposite order: what changes steadily during a
// round then falls on each subject as often early as late.
func (l *lab) interleave(ctx context.Context, subjects []*subject, rounds int, j job) (map[string][]sample, error) {
	got := map[string][]sample{}
	turn := slices.Clone(subjects)
	for range rounds {
		for _, s := range turn {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			one, err := l.measure(ctx, s, j)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			got[s.name] = append(got[s.name], one)
		}
		slices.Reverse(turn)
	}
	return got, nil
}

// openStreams measures the most memory that is taken while n streams are open, each of one frame a second.
func (l *lab) openStreams(ctx context.Context, s *subject, n, seconds int) (sample, error) {
	before, err := s.process.usage()
	if err != nil {
		return sample{}, err
	}
	type end struct {
		saw seen
		err error
	}
	done := make(chan end, 1)
	go func() {
		saw, err := drive(ctx, l.self, s.of(job{Conns: n, Stream: true, Frames: seconds, Every: time.Second, BodyBytes: 1000}))
		done <- end{saw, err}
	}()
	var most int64
	for {
		select {
		case e := <-done:
			if e.err == nil && e.saw.Errors > 0 {
				l.say("  %s: %d errors, the first: %s; it says: %s", s.name, e.saw.Errors, e.saw.First, s.process.tail())
			}
			return sample{seen: e.saw, Resident: most, Grown: most - before.resident}, e.err
		case <-time.After(time.Second):
			now, err := s.process.usage()
			if err != nil {
				return sample{}, err
			}
			most = max(most, now.resident)
		}
	}
}

// held is what became of requests that waited for a model to start.
type held struct {
	sample
	Share float64 `json:"share"` // of one core, while all waited
}

const (
	heldFor  = time.Minute      // how long the model takes to start
	heldBeat = 10 * time.Second // the gateway's default, as is the grace before the first
	// Each request hears at least so many heartbeats: what is missing went by while all arrived, and while all were answered.
	heldBeats = int64(heldFor/heldBeat) - 2
)

const heldConfig = `listen: %s
admin: {listen: %s}
state_dir: %s
auth: {keys_file: keys.yaml}
queue: {max_requests: 20000}
models:
  - name: bench
    model_id: bench
    model_path: simulated
    queue: {max_requests: 20000}
    scaling: {metric: {concurrency: 20000}}
    backend: {process: {command: [%q, sglang-sim, --sim-start, %s, --sim-ttft, 1ms, --sim-itl, 1ms, --max-running-requests, "20000"]}}
`

// holdRequests sends n streaming requests of 4 KiB to a cold model that takes heldFor to start.
func (l *lab) holdRequests(ctx context.Context, n int) (held, error) {
	dir, err := os.MkdirTemp(l.dir, "held-")
	if err != nil {
		return held{}, err
	}
	port, err := freePorts(2)
	if err != nil {
		return held{}, err
	}
	key, entry := newKey(0)
	s := &subject{name: "pilotlight (cold)", addr: local(port), keys: []string{key}, models: []string{served}}
	if err := os.WriteFile(filepath.Join(dir, "keys.yaml"), []byte("keys:\n"+entry), 0o600); err != nil {
		return held{}, err
	}
	text := fmt.Sprintf(heldConfig, s.addr, local(port+1), filepath.Join(dir, "state"), l.binary, heldFor)
	if err := os.WriteFile(filepath.Join(dir, "pilotlight.yaml"), []byte(text), 0o600); err != nil {
		return held{}, err
	}
	if s.process, err = start(dir, "gateway", nil, l.binary, "serve", "-c", "pilotlight.yaml"); err != nil {
		return held{}, err
	}
	defer s.process.stop()
	if err := s.process.await(ctx, s.addr, 20*time.Second); err != nil {
		return held{}, err
	}
	type end struct {
		saw seen
		err error
	}
	done := make(chan end, 1)
	go func() {
		saw, err := drive(ctx, l.self, s.of(job{Conns: n, Stream: true, BodyBytes: 4 << 10, Beat: heldBeat}))
		done <- end{saw, err}
	}()
	var h held
	var from usage
	var fromAt time.Time
	begun := time.Now()
	for {
		select {
		case e := <-done:
			h.seen = e.saw
			return h, e.err
		case <-time.After(time.Second):
		}
		now, err := s.process.own()
		if err != nil {
			return h, err
		}
		h.Resident = max(h.Resident, now.resident)
		switch waited := time.Since(begun); {
		case waited < 15*time.Second: // they are still arriving
			from, fromAt = now, time.Now()
		case waited < heldFor-5*time.Second: // all wait
			h.Share = float64(now.cpu-from.cpu) / float64(time.Since(fromAt))
		}
	}
}

// benchmarks runs Go benchmarks of the module and returns name → ns per operation. It is an error if the pattern fits none.
func benchmarks(ctx context.Context, pattern string, packages ...string) (map[string]float64, error) {
	out, err := run(ctx, append([]string{"go", "test", "-run", "^$", "-bench", pattern, "-benchtime", "1s", "-count", "3"}, packages...)...)
	if err != nil {
		return nil, err
	}
	got := parseBenchmarks(out)
	if len(got) == 0 {
		return nil, fmt.Errorf("no benchmark of %s is called %s", strings.Join(packages, ", "), pattern)
	}
	return got, nil
}

// parseBenchmarks reads `go test -bench` and keeps the least of a benchmark's figures: what disturbs only adds.
func parseBenchmarks(out string) map[string]float64 {
	least := map[string]float64{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") || f[3] != "ns/op" {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		var ns float64
		if _, err := fmt.Sscan(f[2], &ns); err != nil {
			continue
		}
		if old, ok := least[name]; !ok || ns < old {
			least[name] = ns
		}
	}
	return least
}
