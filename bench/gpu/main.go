// Command gpu plays scenes with the built gateway and real SGLang on a machine with a GPU: cold and warm requests with an official client,
// signals and kills in mid-stream, starts that fail, arguments. It is one static file and needs no Go there.
//
//	gpu -list
//	gpu -scene cold -pilotlight ./pilotlight -sglang-python python3 -model /models/small -out results
//	gpu -report results > docs/gpu.md
//
// Each scene is bounded in time, can be played again by itself, stops whatever it started, and leaves OUT/SCENE.json (steps, figures,
// versions) and OUT/SCENE/ (the gateway's and the engines' logs). Exit status: 0 if all steps held, 1 if not, 2 for a wrong command line.
//
// The test of this package plays the same scenes with the simulator. What differs there is in options: the engine's command and how much
// slower than a GPU machine a busy one may be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// overrun is how long after a scene's limit its cleaning up may take before the program gives up.
const overrun = 2 * time.Minute

func main() {
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

func command(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("gpu", flag.ContinueOnError)
	f.SetOutput(stderr)
	var (
		list       = f.Bool("list", false, "list the scenes, most important first")
		report     = f.String("report", "", "print what the results in this folder say, as a page")
		names      = f.String("scene", "", "the scenes to play, separated by commas")
		pilotlight = f.String("pilotlight", "./pilotlight", "the gateway's program")
		python     = f.String("sglang-python", "python3", "the Python that has SGLang; its openai is the client if it can be imported")
		version    = f.String("sglang-version", "", "SGLang's release; empty: as installed")
		model      = f.String("model", "", "folder of a small chat model")
		large      = f.String("large", "", "folder for a model of 8B's shape with random weights; made if it is not there; empty: in the folder for temporary files")
		engineArgs = f.String("engine-args", "", "arguments of every engine, separated by spaces")
		out        = f.String("out", "gpu-results", "folder for results and logs")
	)
	if err := f.Parse(args); err != nil {
		return 2
	}
	problem := func(err error) int {
		fmt.Fprintln(stderr, "gpu:", err)
		return 1
	}
	switch {
	case f.NArg() > 0:
		fmt.Fprintln(stderr, "gpu: unexpected argument:", f.Arg(0))
		return 2
	case *list:
		for _, s := range scenes {
			fmt.Fprintf(stdout, "%-10s %s (at most %v)\n", s.name, s.about, s.limit)
		}
		return 0
	case *report != "":
		results, err := readResults(*report)
		if err == nil {
			err = writeReport(stdout, results)
		}
		if err != nil {
			return problem(err)
		}
		return 0
	case *names == "" || *model == "":
		fmt.Fprintln(stderr, "gpu: -scene and -model are needed; -list lists the scenes")
		return 2
	}
	o := options{
		Command: []string{*python, "-m", "sglang.launch_server"}, EngineVersion: *version, EngineArgs: strings.Fields(*engineArgs),
		Client: *python, Model: *model, Large: *large, Out: *out, Slack: 1, LongAnswer: 4000,
		Log: func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) },
	}
	var err error
	if o.Pilotlight, err = filepath.Abs(*pilotlight); err != nil {
		return problem(err)
	}
	if o.Out, err = filepath.Abs(*out); err != nil {
		return problem(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	held := true
	for name := range strings.SplitSeq(*names, ",") {
		s, err := find(name)
		if err != nil {
			return problem(err)
		}
		giveUp := time.AfterFunc(s.limit+overrun, func() {
			fmt.Fprintf(stderr, "gpu: %s does not end\n", name)
			os.Exit(3)
		})
		r, err := s.play(ctx, o)
		giveUp.Stop()
		if err = errors.Join(err, r.write(o.Out)); err != nil {
			return problem(err)
		}
		held = held && r.Passed
	}
	if !held {
		return 1
	}
	return 0
}

// options are what a scene is played with.
type options struct {
	Pilotlight    string
	Command       []string // starts an engine
	EngineVersion string   // empty: as installed
	EngineArgs    []string
	// More are further arguments of one model's command, by the model's name: what the simulator needs to be told where the real engine
	// would find it out.
	More map[string][]string
	// Client is a Python whose openai is the official client; where it has none, or this is empty, a client of our own stands in.
	Client string
	Model  string // folder
	Large  string // folder; see -large
	Even   string // folder of a model that divides by two; empty: in the folder for temporary files, and made if it is not there
	Out    string // absolute
	// Vars are further variables for the gateway and its engines, each NAME=value.
	Vars []string
	// Tools is a folder whose programs stand before those of PATH, for the gateway and its engines; empty: none.
	Tools string
	// Slack is by what the times that must be kept are multiplied: 1 on a machine that does nothing else.
	Slack      float64
	LongAnswer int // tokens of a stream that must still run when something happens to it
	Log        func(format string, args ...any)
}

// environ is what the gateway runs with.
func (o *options) environ() []string {
	environ := append(os.Environ(), o.Vars...)
	if o.Tools != "" {
		environ = append(environ, "PATH="+o.Tools+string(filepath.ListSeparator)+os.Getenv("PATH"))
	}
	return environ
}

// smi is the nvidia-smi that the gateway finds, too.
func (o *options) smi() string {
	if o.Tools != "" {
		return filepath.Join(o.Tools, "nvidia-smi")
	}
	return "nvidia-smi"
}

// within is a time that must be kept, on this machine.
func (o *options) within(d time.Duration) time.Duration { return time.Duration(float64(d) * o.Slack) }
