package sglang

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"pilotlight/backends"
)

// evidence is what a failure's figures are read from.
type evidence struct {
	tail []string
	at   int      // the line that told the cause
	args []string // the launch arguments; empty: not known
	any  bool     // the engine is not SGLang
}

// line is the one that told the cause.
func (e evidence) line() string { return e.tail[e.at] }

// last returns the groups of the latest match before or in the line that told the cause; nil: there is none.
func (e evidence) last(re *regexp.Regexp) []string {
	for i := e.at; i >= 0; i-- {
		if m := re.FindStringSubmatch(e.tail[i]); m != nil {
			return m
		}
	}
	return nil
}

// number is the latest one that re's group tells; 0: none.
func (e evidence) number(re *regexp.Regexp) float64 {
	m := e.last(re)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0
	}
	return n
}

// option is the number that a launch argument gives, by any of its names; 0: none.
func (e evidence) option(names ...string) float64 {
	found := 0.0
	for i, arg := range e.args {
		for _, name := range names {
			value, ok := strings.CutPrefix(arg, name+"=")
			if arg == name && i+1 < len(e.args) {
				value, ok = e.args[i+1], true
			}
			if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
				found = n
			}
		}
	}
	return found
}

var (
	flagName   = regexp.MustCompile(`--[a-z][a-z0-9-]*`)
	moduleName = regexp.MustCompile(`[Nn]o module named '?([A-Za-z_][A-Za-z0-9_.]*)`)
	raiseAbove = regexp.MustCompile(`--mem-fraction-static above (0\.\d+)`)

	// What torch says of a failed allocation.
	triedToAllocate = regexp.MustCompile(`Tried to allocate ([\d.]+ [KMG]iB)`)
	totalCapacity   = regexp.MustCompile(`total capacity of ([\d.]+ [KMG]iB)(?: of which ([\d.]+ [KMG]iB) is free)?`)
	otherProcess    = regexp.MustCompile(`Process \d+ has ([\d.]+ [KMG]iB) memory in use`)

	// GB of a GPU that were free before the weights were loaded, and after.
	freeBefore = regexp.MustCompile(`Load weight begin\. avail mem=([\d.]+) GB`)
	freeAfter  = regexp.MustCompile(`Load weight end\..* avail mem=([\d.]+) GB`)

	fractionNow    = regexp.MustCompile(`mem_fraction_static=(0\.\d+)`)
	chunkNow       = regexp.MustCompile(`\bchunked_prefill_size=(\d+)`)
	graphSizes     = regexp.MustCompile(`\bbs=\[[\d, ]*?(\d+)\]`)
	derivedContext = regexp.MustCompile(`derived context[_ ]length \(?(\d+)`)
	notDivisible   = regexp.MustCompile(`\b(\d+) is not divisible by (\d+)`)
	architecture   = regexp.MustCompile(`[Aa]rchitectures? \[?'?([A-Za-z][A-Za-z0-9_]*)`)
	watchdogLimit  = regexp.MustCompile(`watchdog_timeout=(\d+)`)
	expectedSize   = regexp.MustCompile(`expected file size is: ([\d.]+ [KMG]B)`)
	onlyFree       = regexp.MustCompile(`only has ([\d.]+ [KMG]B) free`)
	foundDriver    = regexp.MustCompile(`found version (\d+)`)
	exitCode       = regexp.MustCompile(`exit code: -(\d+)`)
	leastFree      = regexp.MustCompile(`pre_model_load_memory=([\d.]+)`)
)

// translated are options of another engine that people bring along, with SGLang's spelling.
var translated = map[string]string{
	"--max-model-len":          "--context-length",
	"--gpu-memory-utilization": "--mem-fraction-static",
	"--max-num-seqs":           "--max-running-requests",
	"--max-num-batched-tokens": "--chunked-prefill-size",
	"--enforce-eager":          "--disable-cuda-graph",
	"--enable-sleep-mode":      "--enable-memory-saver",
	"--lora-modules":           "--lora-paths",
	"--seed":                   "--random-seed",
	"--root-path":              "--fastapi-root-path",
}

// namedFlags adds the refused options' names, never their values.
func namedFlags(f *backends.Failure, e evidence) {
	_, told, _ := strings.Cut(e.line(), "error:")
	names := flagName.FindAllString(told, 3)
	if len(names) == 0 {
		return
	}
	f.Message += ": " + strings.Join(names, ", ")
	if name := translated[names[0]]; name != "" {
		f.Advice = "SGLang's option for it is " + name
	}
}

func namedModule(f *backends.Failure, e evidence) {
	if m := moduleName.FindStringSubmatch(e.line()); m != nil {
		f.Message += ": " + m[1]
	}
}

func namedArchitecture(f *backends.Failure, e evidence) {
	if m := architecture.FindStringSubmatch(e.line()); m != nil {
		f.Message += ": " + m[1]
	}
}

func indivisible(f *backends.Failure, e evidence) {
	if m := notDivisible.FindStringSubmatch(e.line()); m != nil {
		f.Message += fmt.Sprintf(" (%s by %s)", m[1], m[2])
	} else if tp := e.option("--tp-size", "--tp", "--tensor-parallel-size"); tp > 1 {
		f.Message += fmt.Sprintf(" (%.0f)", tp)
	}
}

func tooManyGPUs(f *backends.Failure, e evidence) {
	if tp := e.option("--tp-size", "--tp", "--tensor-parallel-size"); tp > 1 {
		f.Advice = fmt.Sprintf("lower --tp-size, which is %.0f, or check CUDA_VISIBLE_DEVICES", tp)
	}
}

func longestContext(f *backends.Failure, e evidence) {
	if m := derivedContext.FindStringSubmatch(e.line()); m != nil {
		f.Advice = "lower --context-length to " + m[1] + ", or set SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1 in env_vars"
	}
}

func watchdog(f *backends.Failure, e evidence) {
	if n := e.number(watchdogLimit); n > 0 {
		f.Message = fmt.Sprintf("the engine hung for %.0f s and ended itself", n)
		f.Advice = fmt.Sprintf("if it compiles kernels for minutes, raise --watchdog-timeout above %.0f", n)
	}
}

// diedOf names the signal that ended a process.
func diedOf(f *backends.Failure, e evidence) {
	if n := e.number(exitCode); n > 0 {
		f.Message += ": " + syscall.Signal(n).String()
	}
}

// missingSpace takes what the hub's library says before it begins to download.
func missingSpace(f *backends.Failure, e evidence) {
	need, have := e.last(expectedSize), e.last(onlyFree)
	if need != nil && have != nil {
		f.Message += fmt.Sprintf(": one file of the model has %s, and %s are free", need[1], have[1])
	}
}

// oldDriver tells the driver's CUDA version: 12040 is 12.4.
func oldDriver(f *backends.Failure, e evidence) {
	m := foundDriver.FindStringSubmatch(e.line())
	if m == nil {
		return
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		f.Message += fmt.Sprintf(": the driver is for CUDA %d.%d", n/1000, n%1000/10)
	}
}

func heldByOthers(f *backends.Failure, e evidence) {
	if n := e.number(leastFree); n > 0 {
		f.Message += fmt.Sprintf(": one has %.1f GB left", n)
	}
}

// suggestedFraction is for weights that leave no room: the figure that the engine itself works out, or what follows from the memory that it
// found before and after it had loaded them.
func suggestedFraction(f *backends.Failure, e evidence) {
	const otherwise = ", lower --context-length, or use more GPUs"
	if m := raiseAbove.FindStringSubmatch(e.line()); m != nil {
		f.Advice = "raise --mem-fraction-static above " + m[1] + otherwise
		return
	}
	// The cache gets what is left of the fraction after the weights: free − (1 − fraction) × total.
	before, after := e.number(freeBefore), e.number(freeAfter)
	now := e.number(fractionNow)
	switch {
	case before > 0 && after > 0 && after < before:
		least := 1 - after/before
		if least > 0.93 {
			f.Advice = fmt.Sprintf("the weights take %.0f %% of the GPU: use a larger one, more of them (--tp-size), or a quantised model", 100*least)
			return
		}
		f.Advice = fmt.Sprintf("raise --mem-fraction-static above %.2f", math.Ceil(100*least)/100) + otherwise
	case now > 0 && now < 0.9:
		f.Advice = fmt.Sprintf("raise --mem-fraction-static from %g to 0.9", now) + otherwise + ", or an 8-bit cache (--kv-cache-dtype fp8_e5m2)"
	}
}

// smallerGraphs is for graphs that did not fit: less for the cache, or fewer of them.
func smallerGraphs(f *backends.Failure, e evidence) {
	now := e.option("--mem-fraction-static")
	fraction := "lower --mem-fraction-static to 0.8 or 0.7"
	if now > 0.1 {
		fraction = fmt.Sprintf("lower --mem-fraction-static from %g to %.2f", now, now-0.08)
	}
	name := "--cuda-graph-max-bs"
	if strings.Contains(strings.ToLower(strings.Join(e.tail, "\n")), "capture target") { // 0.5.14 and later
		name = "--cuda-graph-max-bs-decode"
	}
	fewer := ", or capture fewer batch sizes with " + name
	if most := e.number(graphSizes); most >= 8 {
		fewer += fmt.Sprintf(" %.0f (it went up to %.0f)", most/4, most)
	}
	f.Advice = fraction + fewer
}

// memoryPhase tells by what came before whether weights, cache, graphs or requests were too large. Only
// the last depends on the load and may not happen again.
func memoryPhase(f *backends.Failure, e evidence) {
	before := strings.ToLower(strings.Join(e.tail[:e.at+1], "\n"))
	tp := max(1, e.option("--tp-size", "--tp", "--tensor-parallel-size"))
	switch {
	case e.any:
		f.Advice = "use a larger GPU, more of them, or a smaller model"
	case strings.Contains(before, "decode batch,"), strings.Contains(before, "fired up and ready"),
		strings.Contains(before, "uvicorn running on"):
		f.Message += " while answering requests"
		f.Advice = "lower --chunked-prefill-size to 4096 or 2048, --max-running-requests, or --mem-fraction-static"
		if chunk := e.number(chunkNow); chunk >= 1024 {
			f.Advice = fmt.Sprintf("lower --chunked-prefill-size from %.0f to %.0f, --max-running-requests, or --mem-fraction-static", chunk, chunk/2)
		}
		f.Permanent = false
	case strings.Contains(before, "cuda graph"), strings.Contains(before, "capturing "):
		f.Message += " while capturing CUDA graphs"
		smallerGraphs(f, e)
	case strings.Contains(before, "load weight end"):
		f.Message += " while making its cache"
		f.Advice = "lower --mem-fraction-static, or use more GPUs"
		if now := e.option("--mem-fraction-static"); now > 0.1 {
			f.Advice = fmt.Sprintf("lower --mem-fraction-static from %g to %.2f, or use more GPUs", now, now-0.08)
		}
	case strings.Contains(before, "load weight begin"):
		f.Message += " while loading the weights"
		f.Advice = fmt.Sprintf("use a larger GPU, more of them (--tp-size %.0f), or a quantised model", 2*tp)
	default:
		f.Advice = "use a larger GPU, more of them, or a smaller model"
	}
	allocation(f, e.line())
}

// allocation adds torch's own figures.
func allocation(f *backends.Failure, line string) {
	asked, total := triedToAllocate.FindStringSubmatch(line), totalCapacity.FindStringSubmatch(line)
	switch {
	case asked != nil && total != nil && total[2] != "":
		f.Message += fmt.Sprintf(": it asked for %s, and %s of the GPU's %s were free", asked[1], total[2], total[1])
	case asked != nil:
		f.Message += ": it asked for " + asked[1] + " more"
	}
	if m := otherProcess.FindStringSubmatch(line); m != nil {
		f.Advice = "another process holds " + m[1] + " of the GPU: end it, or choose another GPU; else " + f.Advice
	}
}
