package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pilotlight/bench/load"
)

type benchFlags struct {
	url, keysFile, arrivals, trace, jsonFile, htmlFile string
	keys, models                                       []string
	rate, stream, speed, promptSigma, answerSigma      float64
	duration, timeout, warmup                          time.Duration
	requests, prompt, answer, prefix, inFlight         int
	seed                                               uint64
	allowErrors                                        bool
}

func benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench --url URL --model MODEL",
		Short: "Load an OpenAI-compatible endpoint and report latencies",
		Long: `Send chat completions to an OpenAI-compatible endpoint by a plan, whether or not earlier ones were answered, and report what came back.
Latencies count from each request's planned time, so that a server that stalls is charged for all who would have asked meanwhile.

The plan is a rate (--rate, --arrivals) or a trace (--trace: CSV with a time stamp, prompt tokens and answer tokens, as the Azure LLM
inference traces have). Requests go to the models by weight, and come from the keys in turn: a key that is given twice asks twice as often.
A request is cold if its model was seen not to be ready as it was sent or waited, where the server tells (Pilotlight does), or if the
stream said that the model is starting. Cold answers have percentiles of their own. To know, it asks for each model's state up to
five times a second, which wakes nothing.

Ctrl-C ends the run early; what there is by then is reported. The exit code is 1 if requests failed or were dropped.`,
		Example: `  pilotlight bench --url http://127.0.0.1:8000/v1 --model qwen3 --rate 20 --duration 1m --html report.html
  pilotlight bench --url http://127.0.0.1:8000/v1 --model a=3 --model b=1 --keys-file tenants.txt --trace azure-llm-code-2023.csv --speed 10`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.url, "url", "http://127.0.0.1:8000/v1", "base URL, as clients are given it")
	fl.StringArrayVar(&f.keys, "api-key", nil, "API key; may be repeated, each stands for a tenant (default $OPENAI_API_KEY)")
	fl.StringVar(&f.keysFile, "keys-file", "", "FILE of lines tenant:key")
	fl.StringArrayVar(&f.models, "model", nil, "model, or model=weight; may be repeated")
	fl.Float64Var(&f.rate, "rate", 1, "requests per second")
	fl.StringVar(&f.arrivals, "arrivals", "poisson", "poisson (independent callers) or constant")
	fl.StringVar(&f.trace, "trace", "", "play this CSV FILE instead of --rate, --prompt-tokens and --max-tokens")
	fl.Float64Var(&f.speed, "speed", 1, "play the trace this many times as fast")
	fl.DurationVar(&f.duration, "duration", 0, "length of the plan; 0: as long as --requests or the trace, else 30s")
	fl.IntVar(&f.requests, "requests", 0, "at most this many requests; 0: as many as fit")
	fl.Float64Var(&f.stream, "stream", 1, "share of the requests that ask for a stream, 0 to 1")
	fl.IntVar(&f.prompt, "prompt-tokens", 200, "median length of prompts, in words of about one token")
	fl.Float64Var(&f.promptSigma, "prompt-sigma", 0, "spread of the prompts' lengths (lognormal); 0: all the same")
	fl.IntVar(&f.answer, "max-tokens", 100, "median of max_tokens")
	fl.Float64Var(&f.answerSigma, "max-tokens-sigma", 0, "spread of max_tokens (lognormal); 0: all the same")
	fl.IntVar(&f.prefix, "shared-prefix", 0, "tokens that all prompts begin with")
	fl.DurationVar(&f.timeout, "timeout", 10*time.Minute, "of a request, from its planned time")
	fl.IntVar(&f.inFlight, "max-in-flight", 10_000, "requests at once; what exceeds it is counted as dropped")
	fl.DurationVar(&f.warmup, "warmup", 0, "leave the requests of the plan's beginning out of the figures")
	fl.Uint64Var(&f.seed, "seed", 1, "of arrivals, texts and models")
	fl.StringVar(&f.jsonFile, "json", "", "write the result to FILE as JSON; - for standard output, instead of the table")
	fl.StringVar(&f.htmlFile, "html", "", "write a page with plots to FILE")
	fl.BoolVar(&f.allowErrors, "allow-errors", false, "exit with 0 although requests failed")
	return cmd
}

func (f *benchFlags) run(cmd *cobra.Command) error {
	o, err := f.options()
	if err != nil {
		return usageError{err}
	}
	o.Progress = func(sent, done, failed int) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d sent, %d done, %d failed\n", sent, len(o.Plan), done, failed)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := load.Run(ctx, o)
	if err != nil {
		return usageError{err}
	}
	return f.report(cmd.OutOrStdout(), result)
}

var errFailedRequests = errors.New("requests failed or were dropped; --allow-errors makes that no failure")

func (f *benchFlags) report(out io.Writer, result *load.Result) error {
	var errs []error
	if f.jsonFile == "-" {
		errs = append(errs, result.WriteJSON(out))
	} else {
		errs = append(errs, result.WriteText(out))
		if f.jsonFile != "" {
			errs = append(errs, writeFile(f.jsonFile, result.WriteJSON))
		}
	}
	if f.htmlFile != "" {
		errs = append(errs, writeFile(f.htmlFile, result.WriteHTML))
	}
	if !f.allowErrors && (result.Failed > 0 || result.Dropped > 0) {
		errs = append(errs, errFailedRequests)
	}
	return errors.Join(errs...)
}

func writeFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	return errors.Join(write(w), w.Flush(), file.Close())
}

func (f *benchFlags) options() (o load.Options, err error) {
	o = load.Options{URL: f.url, Stream: f.stream, Timeout: f.timeout, MaxInFlight: f.inFlight, Warmup: f.warmup, SharedPrefix: f.prefix, Seed: f.seed}
	if o.Callers, err = f.callers(); err != nil {
		return o, err
	}
	if len(f.models) == 0 {
		return o, errors.New("--model is required")
	}
	for _, m := range f.models {
		share := load.Share{Name: m, Weight: 1}
		if i := strings.LastIndexByte(m, '='); i > 0 {
			w, err := strconv.ParseFloat(m[i+1:], 64)
			if err != nil {
				return o, fmt.Errorf("--model %s: the weight must be a number", m)
			}
			share = load.Share{Name: m[:i], Weight: w}
		}
		o.Models = append(o.Models, share)
	}
	if f.trace != "" {
		file, err := os.Open(f.trace)
		if err != nil {
			return o, err
		}
		defer file.Close()
		o.Plan, err = load.Trace(file, f.speed, f.requests, f.duration)
		return o, err
	}
	if f.arrivals != "poisson" && f.arrivals != "constant" {
		return o, fmt.Errorf("--arrivals %s: there are poisson and constant", f.arrivals)
	}
	within := f.duration
	if within == 0 && f.requests == 0 {
		within = 30 * time.Second
	}
	o.Plan, err = load.Arrivals{Rate: f.rate, Poisson: f.arrivals == "poisson", Requests: f.requests, For: within, Seed: f.seed,
		Prompt: load.Lengths{Median: f.prompt, Sigma: f.promptSigma}, Answer: load.Lengths{Median: f.answer, Sigma: f.answerSigma}}.Plan()
	return o, err
}

func (f *benchFlags) callers() (callers []load.Caller, err error) {
	for i, key := range f.keys {
		callers = append(callers, load.Caller{Tenant: fmt.Sprintf("key %d", i+1), Key: key})
	}
	if f.keysFile != "" {
		text, err := os.ReadFile(f.keysFile)
		if err != nil {
			return nil, err
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			tenant, key, ok := strings.Cut(line, ":")
			if !ok || key == "" {
				return nil, fmt.Errorf("%s:%d: it must be tenant:key", f.keysFile, n) // the line may hold a key
			}
			callers = append(callers, load.Caller{Tenant: tenant, Key: strings.TrimSpace(key)})
		}
	}
	if key := os.Getenv("OPENAI_API_KEY"); len(callers) == 0 && key != "" {
		callers = []load.Caller{{Tenant: "$OPENAI_API_KEY", Key: key}}
	}
	return callers, nil
}
