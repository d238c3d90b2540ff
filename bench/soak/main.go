// Command soak drives a real `pilotlight serve` for a long time, from both sides: mock engines behind it and clients in front, with
// plain answers, streams, errors, clients that leave or read slowly, cold models, evictions and reloads all at once. Every answer is
// checked to the byte. Then it says whether anything grew: resident memory by a line through all samples from 25 % to 100 % of the
// requests, goroutines and descriptors against what they were before.
//
//	go run ./bench/soak --requests 20000000
//
// It prints a report, writes it beside one in JSON, and ends with 0 only if everything held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == engineCommand {
		if err := engine(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "soak engine:", err)
			os.Exit(1)
		}
		return
	}
	o := defaults()
	flag.Int64Var(&o.Requests, "requests", o.Requests, "end after this many requests")
	flag.DurationVar(&o.Duration, "duration", o.Duration, "end after this time, if it comes first; 0: no limit")
	flag.IntVar(&o.Workers, "workers", o.Workers, "client connections that ask again whenever they are answered")
	flag.DurationVar(&o.Pause, "pause", o.Pause, "how long such a connection waits before it asks again; it leaves the machine time for others")
	flag.Float64Var(&o.Limit, "limit", o.Limit, "growth of resident memory that is too much, in percent from 25 % to 100 % of the requests")
	flag.StringVar(&o.Pilotlight, "pilotlight", o.Pilotlight, "the gateway's program; empty: build it")
	out := flag.String("out", "soak-report", "write FILE.txt and FILE.json")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "soak: unexpected argument:", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	report, err := run(ctx, o)
	if err == nil {
		err = report.write(*out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	fmt.Print(report.text())
	if !report.Passed {
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	Requests   int64         `json:"requests"`
	Duration   time.Duration `json:"duration_ns"`
	Workers    int           `json:"workers"`
	Pause      time.Duration `json:"pause_ns"`
	Limit      float64       `json:"limit_percent"`
	Pilotlight string        `json:"-"`
	// Engine is a program that is a mock engine when its first argument is engineCommand; empty: this one.
	Engine string `json:"-"`
	// Log says what goes on; nil: standard error.
	Log func(format string, args ...any) `json:"-"`
}

func defaults() options {
	return options{Requests: 20_000_000, Workers: 64, Limit: 3}
}

func (o *options) check() error {
	if o.Requests < 1 || o.Workers < 1 || o.Duration < 0 || o.Pause < 0 {
		return errors.New("requests and workers must be at least 1, and durations not negative")
	}
	if o.Log == nil {
		o.Log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	}
	if o.Engine == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
		o.Engine = exe
	}
	return nil
}
