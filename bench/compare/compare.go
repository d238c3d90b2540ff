package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	peers, rows, out, binary, command string
	streams                           int // at once, in row frames
	rounds, open, openFor             int // openFor in seconds
	plainFor, framesFor               time.Duration
}

const enginePorts = 100

// openRounds is how often the memory of open streams is measured at most: where a collector's cycle falls moves it by a tenth.
const openRounds = 3

// compare makes the whole run.
func compare(ctx context.Context, o options, out io.Writer) error {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	files, err := raiseFiles()
	if err != nil {
		return err
	}
	if most := (files - 200) / 2; o.open > most {
		say("%d files may be open here, so row open has %d streams instead of %d", files, most, o.open)
		o.open = most
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers are another user
		return err
	}
	l := &lab{self: self, dir: dir, binary: o.binary, cache: filepath.Join(cache, "pilotlight", "compare"), files: files, key: "sk-" + rand.Text(), say: say}
	if l.binary == "" {
		say("building the gateway")
		if l.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	first, err := freePorts(enginePorts)
	if err != nil {
		return err
	}
	l.engine = local(first)
	engine, err := start(dir, "engine", nil, self, "role", "engine", "--listen", l.engine, "--ports", fmt.Sprint(enginePorts))
	if err != nil {
		return err
	}
	defer engine.stop()
	if err := engine.await(ctx, local(first+enginePorts-1), 10*time.Second); err != nil {
		return err
	}
	engines := make([]string, enginePorts)
	for i := range engines {
		engines[i] = local(first + i)
	}
	r := &results{Command: o.command, Begun: time.Now(), Rounds: o.rounds}
	if err := r.describe(ctx); err != nil {
		return err
	}
	err = errors.Join(l.peers(ctx, o, engine, engines, r), l.alone(ctx, o, engines, r))
	r.Took = time.Since(r.Begun)
	r.Targets = r.targets()
	report := r.markdown()
	say("\n%s", report)
	if o.out == "-" || err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	// What other commands wrote below, such as bench/prefetch, stays.
	old, err := os.ReadFile(filepath.Join(o.out, "RESULTS.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if i := strings.Index(string(old), "<!-- begin: "); i >= 0 {
		report = strings.TrimRight(report, "\n") + "\n\n" + string(old[i:])
	}
	return errors.Join(os.WriteFile(filepath.Join(o.out, "results.json"), append(data, '\n'), 0o644), os.WriteFile(filepath.Join(o.out, "RESULTS.md"), []byte(report), 0o644))
}

// raiseFiles lets a process have as many open files as the machine allows: ten thousand streams are twenty thousand connections.
func raiseFiles() (int, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, err
	}
	const most = 1 << 19 // below fs.nr_open everywhere
	if all := (syscall.Rlimit{Cur: most, Max: most}); lim.Max < most && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &all) == nil {
		return most, nil // only root may, and not everywhere
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("raising the limit of open files: %w", err)
	}
	return int(min(lim.Max, most)), nil
}

// slow are peers that cannot take the full load of streams; they get a tenth of it, and their figure per frame stands all the same.
var slow = map[string]bool{"litellm": true}

// peers measures the gateway beside others.
func (l *lab) peers(ctx context.Context, o options, engine *process, engines []string, r *results) error {
	has := func(row string) bool { return slices.Contains(strings.Split(o.rows, ","), row) }
	if !has("plain") && !has("latency") && !has("frames") && !has("open") {
		return nil
	}
	us, err := l.gateway(ctx, variant{}, engines)
	if err != nil {
		return err
	}
	defer us.process.stop()
	subjects := []*subject{us}
	for _, name := range strings.Split(o.peers, ",") {
		if name == "" {
			continue
		}
		s, err := l.begin(ctx, name)
		if err != nil {
			l.say("%s cannot be compared: %v", name, err)
			r.Missing = append(r.Missing, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		defer s.process.stop()
		subjects = append(subjects, s)
		r.Versions = append(r.Versions, [2]string{s.name, s.version})
	}
	if has("plain") {
		l.say("plain requests, 64 connections")
		if _, err := l.interleave(ctx, subjects, 1, plain(64, time.Second)); err != nil { // warm
			return err
		}
		if r.Plain, err = l.interleave(ctx, subjects, o.rounds, plain(64, o.plainFor)); err != nil {
			return err
		}
	}
	if has("latency") {
		l.say("plain requests, one connection")
		direct := &subject{name: "direct", addr: l.engine, keys: []string{l.key}, models: []string{served}, process: engine}
		if r.Latency, err = l.interleave(ctx, append([]*subject{direct}, subjects...), o.rounds, plain(1, o.plainFor)); err != nil {
			return err
		}
	}
	if has("frames") {
		l.say("%d streams of 50 frames a second", o.streams)
		fast := slices.DeleteFunc(slices.Clone(subjects), func(s *subject) bool { return slow[s.name] })
		frames := job{Conns: o.streams, Stream: true, Frames: int(o.framesFor / (20 * time.Millisecond)), Every: 20 * time.Millisecond, BodyBytes: 1000}
		if r.Frames, err = l.interleave(ctx, fast, o.rounds, frames); err != nil {
			return err
		}
		for _, s := range subjects {
			if slow[s.name] {
				frames.Conns = 20
				one, err := l.measure(ctx, s, frames)
				if err != nil {
					return err
				}
				r.Frames[s.name] = []sample{one}
			}
		}
	}
	if has("open") {
		r.OpenStreams = o.open
		r.Open = map[string][]sample{}
		measured := 0
		for range min(o.rounds, openRounds) {
			for _, s := range subjects {
				if s != us && s.name != "fasthttp" && s.name != "nginx" && s.name != "haproxy" {
					continue
				}
				l.say("%d open streams through %s", o.open, s.name)
				// Each has a port of the engine to itself: ten thousand connections that the one before has closed keep its ports for a minute.
				own := *l
				own.engine = engines[1+measured%(len(engines)-1)]
				measured++
				fresh, err := own.again(ctx, s, []string{own.engine})
				if err != nil {
					return err
				}
				one, err := l.openStreams(ctx, fresh, o.open, o.openFor)
				fresh.process.stop()
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				r.Open[s.name] = append(r.Open[s.name], one)
			}
		}
	}
	return nil
}

// again starts another one of a subject, for measurements of memory: what earlier loads have left would hide what is taken.
func (l *lab) again(ctx context.Context, s *subject, engines []string) (*subject, error) {
	if _, ok := peers[s.name]; ok {
		return l.begin(ctx, s.name)
	}
	return l.gateway(ctx, variant{}, engines)
}

// alone measures the gateway beside itself.
func (l *lab) alone(ctx context.Context, o options, engines []string, r *results) error {
	has := func(row string) bool { return slices.Contains(strings.Split(o.rows, ","), row) }
	// together starts subjects and measures them in turn.
	type starter func() (*subject, error)
	ours := func(v variant) starter { return func() (*subject, error) { return l.gateway(ctx, v, engines) } }
	together := func(title string, starters ...starter) ([][]sample, error) {
		l.say("%s", title)
		var subjects []*subject
		for _, start := range starters {
			s, err := start()
			if err != nil {
				return nil, err
			}
			defer s.process.stop()
			subjects = append(subjects, s)
		}
		if _, err := l.interleave(ctx, subjects, 1, plain(64, time.Second)); err != nil { // warm
			return nil, err
		}
		got, err := l.interleave(ctx, subjects, 2*o.rounds, plain(64, o.plainFor))
		var all [][]sample
		for _, s := range subjects {
			all = append(all, got[s.name])
		}
		return all, err
	}
	if has("growth") {
		for _, g := range []struct {
			name            string
			few, many       variant
			upstreams, pool int // of a bare proxy for comparison; 0: none
		}{
			{"1 → 1,000 models, one of them asked", variant{name: "one", models: 1}, variant{name: "many", models: 1000, asked: 1}, 0, 0},
			{"1 → 1,000 models, asked in turn", variant{name: "one", models: 1}, variant{name: "many", models: 1000}, 1, 1000},
			{"1 → 100 replicas", variant{name: "one"}, variant{name: "many", replicas: enginePorts}, enginePorts, enginePorts},
			{"10 → 100,000 keys, used in turn", variant{name: "few", keys: 10}, variant{name: "many", keys: 100_000}, 0, 0},
		} {
			starters := []starter{ours(g.few), ours(g.many)}
			if g.pool > 0 {
				starters = append(starters, func() (*subject, error) { return l.bare(ctx, "fasthttp (one)", 1, 1) },
					func() (*subject, error) { return l.bare(ctx, "fasthttp (many)", g.upstreams, g.pool) })
			}
			got, err := together("growth: "+g.name, starters...)
			if err != nil {
				return err
			}
			grown := growth{Name: g.name, Few: got[0], Many: got[1]}
			if g.pool > 0 {
				grown.BareFew, grown.BareMany = got[2], got[3]
			}
			r.Growth = append(r.Growth, grown)
		}
	}
	if has("held") {
		l.say("%d requests held for a cold model", o.open)
		h, err := l.holdRequests(ctx, o.open)
		if err != nil {
			return err
		}
		r.Held, r.HeldRequests = &h, o.open
	}
	if has("features") {
		got, err := together("features", ours(variant{name: "none", open: true, noLog: true}), ours(variant{name: "key", noLog: true}), ours(variant{name: "log", open: true}),
			ours(variant{name: "traces", open: true, noLog: true, traces: true}), ours(variant{name: "all", traces: true}))
		if err != nil {
			return err
		}
		for i, title := range []string{"none of these", "API key", "access log", "traces of one request in a hundred", "all three"} {
			r.Switched = append(r.Switched, switched{title, got[i]})
		}
		l.say("benchmarks of features")
		if r.Features, err = benchmarks(ctx, "Feature|NotSampled/one_percent", "./gateway"); err != nil {
			return err
		}
	}
	if has("scan") {
		l.say("benchmarks of the body's scan")
		var err error
		if r.Scan, err = benchmarks(ctx, "^Benchmark(Scan|EncodingJSON)$/./22528KiB", "./gateway/jsonbody"); err != nil {
			return err
		}
	}
	return nil
}
