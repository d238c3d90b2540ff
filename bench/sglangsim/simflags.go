package sglangsim

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// simFlag is an option that only the simulator has.
type simFlag struct {
	name  string // with leading dashes
	value string // what it takes, for --help; empty: a switch
	help  string
	set   func(o *Options, v string) error
}

func durationFlag(name, help string, field func(*Options) *time.Duration) simFlag {
	return simFlag{name, "DURATION", help, func(o *Options, v string) (err error) {
		*field(o), err = time.ParseDuration(v)
		if err == nil && *field(o) < 0 {
			return fmt.Errorf("%s is negative", v)
		}
		return err
	}}
}

func countFlag(name, help string, field func(*Options) *int) simFlag {
	return simFlag{name, "N", help, func(o *Options, v string) (err error) {
		*field(o), err = strconv.Atoi(v)
		if err == nil && *field(o) < 0 {
			return fmt.Errorf("%s is negative", v)
		}
		return err
	}}
}

func switchFlag(name, help string, field func(*Options) *bool) simFlag {
	return simFlag{name, "", help, func(o *Options, _ string) error { *field(o) = true; return nil }}
}

func choiceFlag(name, help string, choices []string, field func(*Options) *string) simFlag {
	return simFlag{name, strings.Join(choices, "|"), help, func(o *Options, v string) error {
		if !slices.Contains(choices, v) {
			return fmt.Errorf("invalid choice: '%s' (choose from %s)", v, strings.Join(choices, ", "))
		}
		*field(o) = v
		return nil
	}}
}

// simFlags is the table behind --help; doc.go repeats the names and a test compares the two. The flags are applied
// in this order, so that --sim-start comes before the phases that change a part of it.
var simFlags = sync.OnceValue(func() []simFlag {
	return []simFlag{
		{"--sim-start", "DURATION", "time from exec to ready; the phases keep the shares of a real start (default 0s: ready at once)", func(o *Options, v string) error {
			d, err := time.ParseDuration(v)
			if err == nil && d < 0 {
				return fmt.Errorf("%s is negative", v)
			}
			o.Start = scaledProfile(d)
			return err
		}},
		durationFlag("--sim-import", "length of the import phase, in the place of its share", func(o *Options) *time.Duration { return &o.Start.Import }),
		durationFlag("--sim-dist", "length of torch.distributed's initialisation", func(o *Options) *time.Duration { return &o.Start.Dist }),
		durationFlag("--sim-weights", "length of the weight load (a slow one, say)", func(o *Options) *time.Duration { return &o.Start.Weights }),
		durationFlag("--sim-kv", "length of the KV cache allocation", func(o *Options) *time.Duration { return &o.Start.KV }),
		durationFlag("--sim-graphs", "length of the CUDA graph capture", func(o *Options) *time.Duration { return &o.Start.Graphs }),
		durationFlag("--sim-warmup", "length of the warm-up: the port is bound, /health says 503", func(o *Options) *time.Duration { return &o.Start.Warmup }),
		countFlag("--sim-shards", "files in the weights' progress bar (default 1)", func(o *Options) *int { return &o.Shards }),

		durationFlag("--sim-ttft", "time to the first token beside queue and prefill (default 5ms)", func(o *Options) *time.Duration { return &o.TTFT }),
		{"--sim-prefill-rate", "TOKENS", "prompt tokens prefilled in a second (default 0: infinitely many)", func(o *Options, v string) (err error) {
			o.PrefillRate, err = strconv.ParseFloat(v, 64)
			return err
		}},
		countFlag("--sim-cache-tokens", "tokens that the prefix cache holds; prefill then takes turns, and what is cached needs none (default 0: no cache)", func(o *Options) *int { return &o.CacheTokens }),
		durationFlag("--sim-itl", "time between tokens of one request (default 1ms; 0s: no wait, a chunk for each token)", func(o *Options) *time.Duration { return &o.ITL }),
		durationFlag("--sim-itl-per-running", "what each further running request adds to it (default 0s)", func(o *Options) *time.Duration { return &o.ITLPerRunning }),
		countFlag("--sim-output-tokens", "tokens of an answer whose request sets no limit (default 16)", func(o *Options) *int { return &o.OutputTokens }),
		switchFlag("--sim-embeddings", "serve embeddings beside generation, without --is-embedding", func(o *Options) *bool { return &o.EmbedAndGenerate }),

		durationFlag("--sim-health-delay", "time that a good generating /health takes (default 1s)", func(o *Options) *time.Duration { return &o.HealthDelay }),
		durationFlag("--sim-health-timeout", "time after which /health of a hung, paused or sleeping server says 503 (default 20s)", func(o *Options) *time.Duration { return &o.HealthTimeout }),
		durationFlag("--sim-keep-alive", "life of an idle connection (default 5s)", func(o *Options) *time.Duration { return &o.KeepAlive }),
		durationFlag("--sim-disconnect-delay", "how long generation goes on after its client left (default 2.1s)", func(o *Options) *time.Duration { return &o.DisconnectDelay }),
		durationFlag("--sim-drain-poll", "pace of the watcher that ends a process after SIGTERM (default 5s)", func(o *Options) *time.Duration { return &o.DrainPoll }),
		durationFlag("--sim-exit-delay", "time from the watcher's decision to the end (default 2.5s)", func(o *Options) *time.Duration { return &o.ExitDelay }),
		durationFlag("--sim-crash-delay", "time from a misused sleep to the end of the process (default 5s)", func(o *Options) *time.Duration { return &o.CrashDelay }),
		switchFlag("--sim-pid1", "ignore SIGTERM before the port is bound, as PID 1 of a container does (implied when it is PID 1)", func(o *Options) *bool { return &o.PID1 }),
		countFlag("--sim-children", "child processes that inherit the output, sleep, and outlive this process by up to 10 minutes", func(o *Options) *int { return &o.Children }),

		{"--sim-gpu-dir", "DIR", "write the GPUs of CUDA_VISIBLE_DEVICES and --mem-fraction-static to a file there, named by the process id", func(o *Options, v string) error { o.GPUDir = v; return nil }},

		choiceFlag("--sim-fail", "how the start fails: see the list of failures below", failModes(), func(o *Options) *string { return &o.Faults.Fail }),
		durationFlag("--sim-fail-after", "time from exec to that failure, cut short or stretched to fit (default: when its phase comes)", func(o *Options) *time.Duration { return &o.Faults.FailAfter }),
		countFlag("--sim-fail-starts", "only the first N starts fail, counted in --sim-fail-file; without --sim-fail they fail like exit", func(o *Options) *int { return &o.Faults.FailStarts }),
		{"--sim-fail-file", "FILE", "where starts are counted, for --sim-fail-starts", func(o *Options, v string) error { o.Faults.FailFile = v; return nil }},
		switchFlag("--sim-model-check", "fail as SGLang does when --model-path starts with '/' or '.' and no such folder exists", func(o *Options) *bool { return &o.Faults.ModelCheck }),

		durationFlag("--sim-crash-after", "SIGKILL of itself this long after ready", func(o *Options) *time.Duration { return &o.Faults.CrashAfter }),
		countFlag("--sim-crash-tokens", "SIGKILL of itself once any request has generated N tokens", func(o *Options) *int { return &o.Faults.CrashTokens }),
		{"--sim-hang-after", "DURATION", "the scheduler hangs this long after ready (0s: from the start): inference never answers, /health says 503 late, the watchdog kills at --watchdog-timeout", func(o *Options, v string) (err error) {
			o.Faults.HangAfter, err = time.ParseDuration(v)
			return err
		}},
		durationFlag("--sim-sleep-delay", "time that releasing memory takes (default 0s)", func(o *Options) *time.Duration { return &o.Faults.SleepDelay }),
		choiceFlag("--sim-sleep-fault", "falling asleep goes wrong: the scheduler is never idle, status 500, no answer, SIGKILL of itself", sleepFaults, func(o *Options) *string { return &o.Faults.Sleep }),
		durationFlag("--sim-wake-delay", "time that resuming memory takes (default 0s)", func(o *Options) *time.Duration { return &o.Faults.WakeDelay }),
		choiceFlag("--sim-wake-fault", "waking goes wrong: status 500, no answer, SIGKILL of itself, empty answers afterwards, death by the next generation", wakeFaults, func(o *Options) *string { return &o.Faults.Wake }),
		countFlag("--sim-health-503", "each Nth /health of a ready server is a false 503 (1: all)", func(o *Options) *int { return &o.Faults.Health503 }),
		durationFlag("--sim-headers-delay", "further delay of every inference answer's headers", func(o *Options) *time.Duration { return &o.Faults.HeadersDelay }),
		countFlag("--sim-cut-tokens", "streams are cut after N tokens, in the manner of --sim-cut", func(o *Options) *int { return &o.Faults.CutTokens }),
		choiceFlag("--sim-cut", "rst: TCP reset; fin: connection closed without the final HTTP chunk; clean: a proper end of the HTTP body, without [DONE] (default fin)", []string{"rst", "fin", "clean"}, func(o *Options) *string { return &o.Faults.Cut }),
		countFlag("--sim-error-tokens", "streams end after N tokens with an error chunk and [DONE]", func(o *Options) *int { return &o.Faults.ErrorTokens }),
		countFlag("--sim-reset-reuse", "each Nth request that comes on a reused connection is answered by closing it", func(o *Options) *int { return &o.Faults.ResetReuse }),
		countFlag("--sim-fault-every", "the stream faults and --sim-headers-delay hit each Nth inference request only (default 1: all)", func(o *Options) *int { return &o.Faults.Every }),
	}
})

// takeSim stores one simulator flag; -1 means that there is no such flag.
func (p *parsedArgs) takeSim(name, value string, hasValue bool, rest []string) (int, error) {
	for _, f := range simFlags() {
		if f.name != name {
			continue
		}
		used := 0
		switch {
		case f.value == "" && hasValue:
			return 0, usageError(fmt.Sprintf("argument %s: ignored explicit argument '%s'", name, value))
		case f.value != "" && !hasValue:
			if len(rest) == 0 || looksLikeOption(rest[0]) {
				return 0, usageError(fmt.Sprintf("argument %s: expected one argument", name))
			}
			value, used = rest[0], 1
		}
		p.sim[name] = value
		return used, nil
	}
	return -1, nil
}

func (p *parsedArgs) applySim(o *Options) error {
	for _, f := range simFlags() {
		v, ok := p.sim[f.name]
		if !ok {
			continue
		}
		if err := f.set(o, v); err != nil {
			return usageError(fmt.Sprintf("argument %s: %v", f.name, err))
		}
	}
	if o.Faults.FailStarts > 0 && o.Faults.FailFile == "" {
		return usageError("argument --sim-fail-starts: needs --sim-fail-file")
	}
	return nil
}

func writeUsage(w io.Writer) {
	fmt.Fprint(w, "usage: sglang serve [-h] --model-path MODEL_PATH [--served-model-name SERVED_MODEL_NAME] [--host HOST] [--port PORT] [--api-key API_KEY] ... [--sim-… ...]\n")
}

// writeHelp lists SGLang's options by name and the simulator's with their meaning.
func writeHelp(w io.Writer) {
	writeUsage(w)
	fmt.Fprint(w, "\nA simulated SGLang server: no model, no GPU, the behaviour of the real thing as seen from outside.\n\nsimulator's options:\n")
	for _, f := range simFlags() {
		name := f.name
		if f.value != "" {
			name += " " + f.value
		}
		fmt.Fprintf(w, "  %s\n        %s\n", name, f.help)
	}
	fmt.Fprint(w, "\nfailures of a start, for --sim-fail:\n")
	for _, f := range startFailures() {
		fmt.Fprintf(w, "  %-12s %s\n", f.mode, f.help)
	}
	fmt.Fprint(w, "\nSGLang's options (accepted; those that change what a client sees have effect):\n ")
	for _, f := range knownFlags() {
		fmt.Fprintf(w, " %s", f.display())
	}
	fmt.Fprintln(w)
}
