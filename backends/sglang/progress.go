package sglang

import (
	"regexp"
	"strconv"
	"strings"

	"pilotlight/backends"
)

// Progress follows a start through the engine's output. The zero value is a start that has said nothing:
// phase launch, 0 percent. Percent never falls and stays below 100, because only a good probe means
// ready. Phases never go back either, except that a download may follow the first sign of loading.
//
// Percent is a share of the whole start under fixed weights (see the spans below). They are a guess that
// fits a model of some gigabytes on a local disk; whoever has seen this model start before knows better,
// and uses only the phase.
type Progress struct {
	percent  float64
	share    float64 // of the phase
	order    int
	captures int // captures begun
	files    map[string]download
	total    int // files to download, where told
}

// download is one file of several.
type download struct {
	share float64
	bytes float64 // of the whole file; 0: not told
}

// step is one phase with the span of the whole start that it is given.
type step struct {
	phase    backends.Phase
	from, to float64
}

// Imports are 10 to 45 s whatever the model; weights dominate large models; graphs take 3 to 90 s.
var steps = [...]step{
	{backends.PhaseLaunch, 0, 20},
	{backends.PhaseDownload, 20, 40},
	{backends.PhaseWeights, 40, 70},
	{backends.PhaseKVCache, 70, 74},
	{backends.PhaseGraphs, 74, 92},
	{backends.PhaseWarmup, 92, 99},
}

const (
	launch = iota
	fetch
	weights
	kvCache
	graphs
	warmup
)

// marks are substrings, in lower case, that say how far the start is: the phase, and how much of it is
// over. They are sorted by how late they come, and all are tried, so that one line cannot hide another.
var marks = []struct {
	text  string
	phase int
	done  float64
}{
	{"server_args=serverargs(", launch, 0.4},
	{"chat template", launch, 0.45},
	{"init torch distributed begin", launch, 0.8},
	{"init torch distributed ends", launch, 0.85},
	{"loading weights from remote instance", weights, 0},
	{"load weight end", weights, 1},
	{"kv cache is allocated", kvCache, 0.5},
	{"memory pool end", kvCache, 1},
	{"flashinfer autotune", graphs, 0},
	{"deepgemm jit pre-compile", graphs, 0},
	{"max_total_num_tokens=", graphs, 1},
	{"engine startup timings", graphs, 1},
	{"uvicorn running on", warmup, 0},
	{`"get /model_info http`, warmup, 0.3},
	{`"get /get_model_info http`, warmup, 0.3},
	{"prefill batch,", warmup, 0.6},
	{"the server is fired up and ready to roll", warmup, 1},
}

var (
	percentOf = regexp.MustCompile(`(\d{1,3})%`)
	// What tqdm counts: "| 17/58 [".
	counted  = regexp.MustCompile(`\| *(\d+)/(\d+) \[`)
	fetching = regexp.MustCompile(`^fetching (\d+) files`)
	// One file's bar: "model-00002-of-00004.safetensors:  35%|███▌      | 1.73G/4.95G". Those of the configuration and the tokenizer, which
	// come first and are small, would say that all is there.
	fileBar = regexp.MustCompile(`^(\S+\.(?:safetensors|bin|pt|pth|gguf)):\s+(\d{1,3})%\|`)
	ofFiles = regexp.MustCompile(`-of-0*(\d+)\.`)
	// The bytes of a bar: "| 1.73G/4.95G [" or, in newer releases of the hub's library, "| 1.73GB/4.95GB [".
	barBytes = regexp.MustCompile(`\| *([\d.]+)([kmgtp]?)b?/([\d.]+)([kmgtp]?)b? \[`)
)

// newHub begins the one bar of all files that huggingface_hub 1.x draws. Its total grows while file sizes are looked up, within
// the first second.
const newHub = "downloading (incomplete total...)"

// maxFiles bounds what one start may make us remember.
const maxFiles = 4096

// Phase is the present phase.
func (p *Progress) Phase() backends.Phase { return steps[p.order].phase }

// Percent is the share of the whole start that is over, 0 to 99.
func (p *Progress) Percent() float64 { return p.percent }

// Share is how much of the present phase is over, 0 to 1, as far as the output tells; it never falls within a phase. In the phases that
// count something (files, bytes, graphs) it is what they count; in the others it only says which of a few lines have come.
func (p *Progress) Share() float64 { return p.share }

// Line takes one line of output and reports whether the start is further than before: a later phase, or
// at least a tenth of a percent more, of the whole or of the phase. Lines that say nothing about progress are no progress.
func (p *Progress) Line(line string) bool {
	before, percent, share := p.order, p.percent, p.share
	line = strings.ToLower(strings.TrimSpace(line))
	switch {
	case strings.Contains(line, "load weight begin"):
		// Weights on disk are loaded now, others are fetched first; which of the two is not known yet,
		// so the percentage stays where a download would start.
		p.reach(weights)
		p.raise(steps[fetch].from)
	case p.bar(line):
	case strings.Contains(line, "capture") && strings.Contains(line, "cuda graph"):
		p.capture(line)
	default:
		for _, m := range marks {
			if strings.Contains(line, m.text) {
				p.to(m.phase, m.done)
			}
		}
	}
	return p.order != before || p.percent >= percent+0.1 || p.share >= share+0.001
}

// Bound notes that the server answers on its port, which is the start of the warm-up. It is for engines
// whose log format was changed, and reports like Line.
func (p *Progress) Bound() bool {
	before := p.order
	p.to(warmup, 0)
	return p.order != before
}

// bar reads a progress bar. It reports false if the line is none.
func (p *Progress) bar(line string) bool {
	if m := fileBar.FindStringSubmatch(line); m != nil {
		p.fetched(m[1], m[2], line)
		return true
	}
	m := percentOf.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	share := percentage(m[1]) / 100
	if m := counted.FindStringSubmatch(line); m != nil {
		n, err := strconv.Atoi(m[1])
		of, err2 := strconv.Atoi(m[2])
		if err == nil && err2 == nil && of > 0 {
			share = min(1, float64(n)/float64(of))
		}
	}
	switch {
	case strings.HasPrefix(line, "capturing "):
		p.reach(graphs)
		from, to := p.captureSpan()
		p.to(graphs, from+share*(to-from))
	case strings.Contains(line, "loading shards"), strings.Contains(line, "checkpoint shards"),
		strings.Contains(line, "runai model streamer"):
		p.to(weights, share)
	case strings.HasPrefix(line, newHub):
		if m := barBytes.FindStringSubmatch(line); m != nil {
			if total := bytesOf(m[3], m[4]); total > 0 {
				share = min(1, bytesOf(m[1], m[2])/total)
			}
		}
		p.downloading(share)
	case fetching.MatchString(line):
		if n, err := strconv.Atoi(fetching.FindStringSubmatch(line)[1]); err == nil {
			p.total = n
		}
		p.downloading(share)
	default:
		return false
	}
	return true
}

// fetched notes one file's share of a download that is spread over several bars. Files count by their bytes, those that have no bar yet
// like the others on average.
func (p *Progress) fetched(name, percent, line string) {
	if p.files == nil {
		p.files = make(map[string]download)
	}
	file, known := p.files[name]
	if !known && len(p.files) == maxFiles {
		return
	}
	file.share = max(file.share, percentage(percent)/100)
	if m := barBytes.FindStringSubmatch(line); m != nil {
		file.bytes = max(file.bytes, bytesOf(m[3], m[4]))
	}
	p.files[name] = file
	total := max(p.total, len(p.files))
	if m := ofFiles.FindStringSubmatch(name); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			total = max(total, n)
		}
	}
	var sum, bytes float64
	for _, f := range p.files {
		weight := max(f.bytes, 1)
		sum += weight * f.share
		bytes += weight
	}
	p.downloading(sum / bytes * float64(len(p.files)) / float64(total))
}

// bytesOf reads a number of bytes as tqdm writes it, such as 1.73 and g; 0 if it is none.
func bytesOf(digits, unit string) float64 {
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0
	}
	for range strings.Index("kmgtp", unit) + min(len(unit), 1) {
		n *= 1000
	}
	return n
}

// downloading moves to the download phase, also from the very start of the weights phase: the engine says
// that it loads weights before it knows whether it has them.
func (p *Progress) downloading(share float64) {
	if p.order == weights && p.percent <= steps[fetch].to {
		p.order, p.share = fetch, 0
	}
	if p.order <= fetch {
		p.to(fetch, share)
	}
}

// capture follows the captures of CUDA graphs, of which there are one to three (prefill, decode, draft),
// their number unknown: each gets half of what is left of the phase.
func (p *Progress) capture(line string) {
	p.reach(graphs)
	switch {
	case strings.Contains(line, " begin"):
		p.captures++
		from, _ := p.captureSpan()
		p.to(graphs, from)
	case strings.Contains(line, " end"):
		_, to := p.captureSpan()
		p.to(graphs, to)
	}
}

// captureSpan is the present capture's part of the phase.
func (p *Progress) captureSpan() (from, to float64) {
	from, to = 0, 1
	for range p.captures - 1 {
		from += (to - from) / 2
	}
	return from, from + (to-from)/2
}

// to moves to a share (0 to 1) of a phase.
func (p *Progress) to(order int, share float64) {
	p.reach(order)
	s := steps[order]
	p.raise(s.from + share*(s.to-s.from))
	if p.order == order {
		p.share = max(p.share, share)
	}
}

func (p *Progress) reach(order int) {
	if order > p.order {
		p.order, p.share = order, 0
	}
}

func (p *Progress) raise(percent float64) { p.percent = max(p.percent, min(percent, 99)) }

func percentage(digits string) float64 {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return float64(min(n, 100))
}
