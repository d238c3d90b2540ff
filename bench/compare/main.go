// Command compare drives this gateway and its peers with the same engine and the same client on one machine, in one run, and writes what
// it saw to bench/RESULTS.md and bench/results.json.
//
//	go run ./bench/compare            # everything: installs HAProxy and nginx (apt), litellm and smg (pip); half an hour
//	go run ./bench/compare --quick    # this gateway and a bare fasthttp proxy, a second each
//
// Rounds are interleaved: each subject is measured once per round, in turn, so that what disturbs the machine disturbs all. Figures
// are medians over rounds; processor time is user and system time of all processes of a subject, read from /proc.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

// roles are what the program is when it starts itself again: each part is a process of its own, so that its processor time is its own.
var roles = map[string]func(args []string) error{
	"engine":   runEngine,
	"client":   runClient,
	"fasthttp": runFasthttp,
	"nethttp":  runNethttp,
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		if err := roles[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	var o options
	quick := flag.Bool("quick", false, "this gateway and a bare fasthttp proxy only, short rounds")
	flag.StringVar(&o.peers, "peers", "fasthttp,haproxy,nginx,nethttp,smg,litellm", "peers, separated by commas")
	flag.StringVar(&o.rows, "rows", "plain,latency,frames,open,held,features,growth,scan", "rows, separated by commas")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	flag.DurationVar(&o.plainFor, "plain-for", 3e9, "duration of one measurement of requests")
	flag.DurationVar(&o.framesFor, "frames-for", 6e9, "duration of one measurement of streams")
	flag.IntVar(&o.streams, "streams", 400, "streams at once in row frames")
	flag.IntVar(&o.open, "open", 10_000, "streams that are open at once in row open, and requests held in row held")
	flag.IntVar(&o.openFor, "open-for", 20, "how many seconds they stay open")
	flag.StringVar(&o.out, "out", "bench", "folder for RESULTS.md and results.json; - prints only")
	flag.StringVar(&o.binary, "binary", "", "a built pilotlight; empty builds one")
	flag.Parse()
	if *quick {
		o.peers, o.rounds, o.plainFor, o.framesFor, o.open, o.openFor, o.rows, o.out = "fasthttp", 2, 1e9, 2e9, 200, 5, "plain,latency,frames,open", "-"
	}
	o.command = "go run ./bench/compare " + strings.Join(os.Args[1:], " ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}
