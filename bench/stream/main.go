// Command stream compares two starts of one model from one object store far away: streamed (stream_model: true), and downloaded into the store
// and then loaded. The gateway, the S3 server (versitygw) and the loader (runai-model-streamer) are the real ones; the engine around the loader
// is engine.py, which puts the weights into memory instead of a GPU's. It prints when each first answer came, and how much disk each start took
// at most.
//
//	python3 -m venv /tmp/loader && /tmp/loader/bin/pip install torch safetensors 'runai-model-streamer[s3]'
//	go run ./bench/stream -python /tmp/loader/bin/python
//
// It is run from the module's root, and builds the gateway and the server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"pilotlight/bench/throttle"
)

type options struct {
	python        string
	size          int64 // of the weights, MiB
	perConnection int64 // MB/s; 0: no limit
	total         int64 // MB/s; 0: no limit
	latency       time.Duration
	rounds        int
}

func main() {
	var o options
	flag.StringVar(&o.python, "python", "python3", "a Python with torch, safetensors and runai-model-streamer[s3]")
	flag.Int64Var(&o.size, "size", 512, "MiB of weights")
	flag.Int64Var(&o.perConnection, "per-connection", 4, "MB/s of each connection to the object store; 0: no limit")
	flag.Int64Var(&o.total, "total", 0, "MB/s of all connections together; 0: no limit")
	flag.DurationVar(&o.latency, "latency", 30*time.Millisecond, "until a request arrives")
	flag.IntVar(&o.rounds, "rounds", 3, "starts of each kind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(1)
	}
}

// kinds of start, in the order in which they are compared.
var kinds = []bool{false, true} // streamed?

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "pilotlight-stream-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Println("building the gateway and the S3 server")
	gateway, server := filepath.Join(dir, "pilotlight"), filepath.Join(dir, "versitygw")
	if err := errors.Join(build(ctx, ".", gateway, "./cmd/pilotlight"),
		build(ctx, "internal/testtools/testdata/versitygw", server, "github.com/versity/versitygw/cmd/versitygw")); err != nil {
		return err
	}
	s3, err := serveS3(ctx, server, filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s3.end()) }()
	m, err := makeModel(filepath.Join(dir, "model"), o.size<<20)
	if err != nil {
		return err
	}
	if err := s3.upload(ctx, o.python, m); err != nil {
		return err
	}
	if err := os.RemoveAll(m.folder); err != nil {
		return err
	}
	fmt.Printf("%s of weights in %d files, %s beside them\n", humanize.IBytes(uint64(m.weights)), m.files, humanize.IBytes(uint64(m.beside)))
	fmt.Printf("object store: %d MB/s per connection, %d MB/s in all (0: no limit), %s latency\n\n", o.perConnection, o.total, o.latency)
	fmt.Printf("%-22s %8s %8s %8s %12s %12s %6s\n", "", "ready", "import", "load", "disk at most", "from S3", "conns")
	all := map[bool][]result{}
	for range o.rounds {
		for _, streamed := range kinds {
			proxy, err := throttle.Listen(throttle.Options{Target: s3.addr, PerConnection: o.perConnection * 1e6, Total: o.total * 1e6, Latency: o.latency})
			if err != nil {
				return err
			}
			r, err := start(ctx, gateway, o.python, filepath.Join(dir, "run"), s3.env("http://"+proxy.Addr()), m, streamed)
			r.fetched = proxy.Answered()
			_, r.connections = proxy.Connections()
			if err := errors.Join(err, proxy.Close()); err != nil {
				return err
			}
			fmt.Println(r.row(streamed))
			all[streamed] = append(all[streamed], r)
		}
	}
	return judge(m, all)
}

func build(ctx context.Context, dir, out, pkg string) error {
	cmd := command(ctx, "go", "build", "-buildvcs=false", "-o", out, pkg)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", pkg, err, text)
	}
	return nil
}

// judge prints the comparison by the medians, and fails if streaming does not keep what it promises.
func judge(m model, all map[bool][]result) error {
	median := func(streamed bool, of func(result) float64) float64 {
		var values []float64
		for _, r := range all[streamed] {
			values = append(values, of(r))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	ready := func(r result) float64 { return r.ready.Seconds() }
	disk := func(r result) float64 { return float64(r.disk) }
	ratio := median(true, ready) / median(false, ready)
	over := int64(median(true, disk)) - m.beside
	fmt.Printf("\nstreamed is ready in %.2f × the time of download-then-load; its disk is at most the files beside the weights + %s (the other: + %s)\n",
		ratio, humanize.IBytes(uint64(max(0, over))), humanize.IBytes(uint64(max(0, int64(median(false, disk))-m.beside))))
	sums := map[string]bool{}
	for _, results := range all {
		for _, r := range results {
			sums[fmt.Sprint(r.engine.Bytes, r.engine.CRC32)] = true
		}
	}
	var errs []error
	if len(sums) != 1 {
		errs = append(errs, fmt.Errorf("the engines loaded different weights: %v", sums))
	}
	if ratio > 0.8 {
		errs = append(errs, fmt.Errorf("ready in %.2f × the time, want at most 0.8", ratio))
	}
	if over > 64<<20 {
		errs = append(errs, fmt.Errorf("%s of disk beyond the files beside the weights, want at most 64 MiB", humanize.IBytes(uint64(over))))
	}
	return errors.Join(errs...)
}
