// Command prefetch compares the store's way to fetch a model with curl and aria2c, in one run on one machine: from a server that gives each
// connection 4 MB/s and answers after 30 ms, and from one without limits. It also measures how much memory a fetch takes, and what the check
// of contents costs. It writes its part of bench/RESULTS.md.
//
//	go run ./bench/prefetch            # curl and aria2c (apt: aria2) must be there; five minutes, and 9 GiB of disk
//	go run ./bench/prefetch --large 0 --rounds 1 --out -
//
// Rounds are interleaved: each client is measured once per round, in turn. Server and clients are processes of their own. Ours fetches from a
// plain web server with SHA256SUMS, checks every byte and flushes the files to disk; the others do neither.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

// roles are what the program is when it starts itself again.
var roles = map[string]func(args []string) error{"serve": runServer, "fetch": runFetch}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		if err := roles[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	o := options{command: strings.TrimSpace("go run ./bench/prefetch " + strings.Join(os.Args[1:], " "))}
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement; figures are medians")
	flag.Int64Var(&o.limited, "limited", 384, "MiB of the model fetched from the limited server")
	flag.Int64Var(&o.free, "free", 1024, "MiB of the model fetched from the server without limits")
	flag.Int64Var(&o.large, "large", 8192, "MiB of the largest file whose fetch's memory is measured, beside one of an eighth; 0: none")
	flag.StringVar(&o.dir, "dir", "", "folder to fetch to; empty: the system's temporary one")
	flag.StringVar(&o.out, "out", "bench", "folder of RESULTS.md; - prints only")
	flag.StringVar(&o.profile, "profile", "", "write a processor profile of one unlimited fetch of ours to this file, and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "prefetch:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds               int
	limited, free, large int64 // MiB
	dir, out, profile    string
	command              string
}
