// Command routing compares ways to choose among replicas: this gateway's policies, and SGLang's own gateway (smg) where it can be installed, each in front of the same
// number of simulated replicas whose prefill takes as long as what their caches do not hold (bench/sglangsim), on the same sessions. It prints a table,
// and puts it into bench/RESULTS.md.
//
//	go run ./bench/routing                      # 8 replicas, seeds 1 to 3; some ten minutes
//	go run ./bench/routing --quick              # one seed, short; writes nothing
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// parameters of all runs.
type parameters struct {
	replicas    int
	prefill     float64 // prompt tokens a second, each replica
	cache       int     // tokens, each replica
	concurrency int     // requests at once, each replica
	itl         time.Duration
	output      int           // tokens of an answer
	load        float64       // share of the fleet's prefill that the workloads need where nothing is cached
	length      time.Duration // of the arrivals
}

// random is the source of a workload: another for each seed, the same for all subjects.
func (p *parameters) random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x70726566)) }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "routing:", err)
		os.Exit(1)
	}
}

func run() error {
	var p parameters
	flag.IntVar(&p.replicas, "replicas", 8, "simulated replicas")
	flag.Float64Var(&p.prefill, "prefill", 8000, "prompt tokens that a replica computes in a second")
	flag.IntVar(&p.cache, "cache", 60_000, "tokens that a replica's cache holds")
	flag.IntVar(&p.concurrency, "concurrency", 64, "requests that a replica works on at once")
	flag.DurationVar(&p.itl, "itl", 10*time.Millisecond, "time between two tokens of an answer")
	flag.IntVar(&p.output, "output", 32, "tokens of an answer")
	flag.Float64Var(&p.load, "load", 0.8, "share of the fleet's prefill that the requests need if nothing is cached")
	flag.DurationVar(&p.length, "length", 15*time.Second, "how long requests arrive")
	seeds := flag.String("seeds", "1,2,3", "seeds, separated by commas")
	only := flag.String("workloads", "", "only these, separated by commas: "+names())
	binary := flag.String("binary", "", "a built pilotlight; empty builds one")
	peer := flag.String("smg", "auto", "path of smg; auto installs it from PyPI into the user's cache folder, none leaves it out")
	out := flag.String("out", "bench", "folder for RESULTS.md and routing.json; - prints only")
	quick := flag.Bool("quick", false, "seed 1, five seconds, nothing written, no smg")
	flag.Parse()
	if *quick {
		*seeds, p.length, *out, *peer = "1", 5*time.Second, "-", "none"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *binary == "" {
		dir, err := os.MkdirTemp("", "routing-build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*binary = filepath.Join(dir, "pilotlight")
		if text, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", *binary, "./cmd/pilotlight").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w: %s", err, text)
		}
	}
	subjects := []subject{ours(*binary, "round robin", "round_robin", &p), ours(*binary, "least requests", "least_requests", &p)}
	version, path, err := findPeer(ctx, *peer)
	if err != nil {
		fmt.Fprintln(os.Stderr, "without smg:", err)
	}
	if path != "" {
		subjects = append(subjects, smg(path, "cache_aware"))
	}
	subjects = append(subjects, ours(*binary, "pilotlight", "prefix", &p))
	var all []result
	for _, text := range strings.Split(*seeds, ",") {
		seed, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return fmt.Errorf("seeds: %w", err)
		}
		for i := range workloads {
			w := &workloads[i]
			if *only != "" && !strings.Contains(","+*only+",", ","+w.name+",") {
				continue
			}
			for k := range subjects {
				r, err := play(ctx, w, &subjects[k], &p, seed)
				if err != nil {
					return err
				}
				all = append(all, r)
				fmt.Fprintf(os.Stderr, "%-15s seed %d  %-18s %4d requests, %d failed, %3.0f %% cached, first token p50 %.3f s, p95 %.3f s, skew %.2f %s\n", r.Workload, r.Seed, r.Subject, r.Requests, r.Failed, 100*r.Hits, r.P50, r.P95, r.Skew, r.FirstError)
			}
		}
	}
	report := table(all, &p, version, "go run ./bench/routing "+strings.Join(os.Args[1:], " "))
	fmt.Print(report)
	if *out == "-" {
		return nil
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*out, "routing.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return insert(filepath.Join(*out, "RESULTS.md"), report)
}

func names() string {
	var all []string
	for _, w := range workloads {
		all = append(all, w.name)
	}
	return strings.Join(all, ",")
}

// findPeer is smg's version and path; an empty path without an error leaves it out.
func findPeer(ctx context.Context, given string) (version, path string, err error) {
	switch given {
	case "none":
		return "", "", nil
	case "auto":
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", "", err
		}
		venv := filepath.Join(cache, "pilotlight", "compare", "smg") // bench/compare's
		path = filepath.Join(venv, "bin", "smg")
		if _, err := os.Stat(path); err != nil {
			for _, argv := range [][]string{{"python3", "-m", "venv", venv}, {filepath.Join(venv, "bin", "pip"), "install", "-q", "smg"}} {
				if text, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
					return "", "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, text[max(0, len(text)-300):])
				}
			}
		}
	default:
		path = given
	}
	python := filepath.Join(filepath.Dir(path), "python")
	text, err := exec.CommandContext(ctx, python, "-c", "import importlib.metadata as m; print(m.version('smg'))").Output()
	if err != nil {
		return "unknown", path, nil // it need not be a virtual environment's
	}
	return strings.TrimSpace(string(text)), path, nil
}
