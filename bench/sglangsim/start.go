package sglangsim

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mark is something that the start prints at a moment after exec.
type mark struct {
	at   time.Duration
	kind markKind
	text string
}

type markKind int

const (
	markMain  markKind = iota // a line of the main process
	markRanks                 // a line of each scheduler
	markRaw                   // as it is: bars and tracebacks
)

var prefillGraphs = []int{
	4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
	480, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3328, 3584, 3840, 4096, 4608,
	5120, 5632, 6144, 6656, 7168, 7680, 8192,
}

var decodeGraphs = []int{
	1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160, 168, 176, 184, 192, 200,
	208, 216, 224, 232, 240, 248, 256,
}

// timeline is everything that a start prints before it binds its port, in the order and with the gaps of testdata/start.log, each
// phase stretched to the length that the profile gives it. The server_args line comes first; SGLang prints a warning
// about its entry point before it when started by the older one.
func (o *Options) timeline(pid int) []mark {
	p := o.Start
	var marks []mark
	begin, length := time.Duration(0), time.Duration(0)
	enter := func(d time.Duration) { begin, length = begin+length, d }
	add := func(share float64, kind markKind, format string, args ...any) {
		marks = append(marks, mark{begin + time.Duration(share*float64(length)), kind, fmt.Sprintf(format, args...)})
	}
	enter(p.Import)
	add(0.523, markMain, "%s", o.serverArgs())
	add(0.554, markMain, "Using default HuggingFace chat template with detected content format: string")
	enter(p.Dist)
	add(0, markRanks, "Init torch distributed begin.")
	add(0.066, markRanks, "Init torch distributed ends. elapsed=%.2f s, mem usage=0.09 GB", 0.066*length.Seconds())
	enter(p.Weights)
	add(0, markRanks, "Load weight begin. avail mem=139.13 GB")
	add(0, markRaw, "\n")
	for i := range o.Shards + 1 { // the bar takes the first 90 % of the phase
		share := 0.9 * float64(i) / float64(max(o.Shards, 1))
		add(share, markRaw, "\rMulti-thread loading shards: %s", shardBar(i, o.Shards, time.Duration(share*float64(length))))
	}
	add(0.9, markRaw, "\n")
	add(0.9, markRanks, "Load weight end. elapsed=%.2f s, type=LlamaForCausalLM, avail mem=138.86 GB, mem usage=0.27 GB.", 0.9*length.Seconds())
	enter(p.KV)
	add(0, markRanks, "KV Cache is allocated. dtype: torch.bfloat16, #tokens: %d, K size: 20.70 GB, V size: 20.70 GB", o.MaxTotalTokens)
	add(0, markRanks, "Memory pool end. avail mem=97.23 GB")
	enter(p.Graphs)
	add(0, markRanks, "Capture target prefill CUDA graph begin. backend=breakable, num_tokens=%s, avail mem=97.04 GB", intList(prefillGraphs))
	capture(prefillGraphs, "Capturing num tokens (num_tokens=%d avail_mem=%.2f GB): ", 97.04, 96.43, 0.042, 0.612, length, add)
	add(0.653, markRanks, "Capture target prefill CUDA graph end. elapsed=%.2f s, mem usage=0.46 GB, avail mem=96.57 GB.", 0.653*length.Seconds())
	add(0.653, markRanks, "Capture target decode CUDA graph begin. backend=full, num_tokens_per_bs=1, bs=%s, avail mem=96.57 GB", intList(decodeGraphs))
	capture(decodeGraphs, "Capturing batches (bs=%d avail_mem=%.2f GB): ", 96.54, 96.42, 0.697, 0.927, length, add)
	add(0.969, markRanks, "Capture target decode CUDA graph end. elapsed=%.2f s, mem usage=0.15 GB, avail mem=96.42 GB.", 0.316*length.Seconds())
	add(0.969, markRanks, "max_total_num_tokens=%d, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=%d, context_len=%d, available_gpu_mem=96.42 GB", o.MaxTotalTokens, o.MaxRunningRequests, o.ContextLength)
	add(0.969, markRanks, "Tree cache initialized: source=default impl=RadixCache hybrid_swa=False hybrid_ssm=False hierarchical=False streaming_wrapped=False")
	add(0.994, markMain, "INFO:     Started server process [%d]", pid)
	add(0.994, markMain, "INFO:     Waiting for application startup.")
	add(0.999, markMain, "INFO:     Application startup complete.")
	return marks
}

// StartLine is one line of a start's output.
type StartLine struct {
	At   time.Duration // since exec
	Text string
}

// StartLines is the output of a start as who follows it sees it, up to the first request that the server sends itself: for tests in
// virtual time, which cannot run the process. The server is ready at o.Start.Total.
func (o *Options) StartLines() []StartLine {
	marks := append(o.timeline(1),
		mark{o.Start.Total() - o.Start.Warmup, markMain, fmt.Sprintf("INFO:     Uvicorn running on http://%s:%d (Press CTRL+C to quit)", o.Host, o.Port)})
	var lines []StartLine
	for _, m := range marks {
		for text := range strings.FieldsFuncSeq(m.text, func(r rune) bool { return r == '\r' || r == '\n' }) {
			lines = append(lines, StartLine{m.at, text})
		}
	}
	return lines
}

// capture adds the bar of a graph capture, which goes from the largest size to the smallest.
func capture(sizes []int, format string, mem, memEnd, from, to float64, length time.Duration, add func(float64, markKind, string, ...any)) {
	n := len(sizes)
	add(from, markRaw, "%s", "\n\r  0%|          | 0/"+strconv.Itoa(n)+" [00:00<?, ?it/s]")
	add(from, markRaw, "\r"+format+"%s", sizes[n-1], mem, "  0%|          | 0/"+strconv.Itoa(n)+" [00:00<?, ?it/s]")
	for i := range n {
		size, share := sizes[n-1-i], from+(to-from)*float64(i+1)/float64(n)
		free := mem + (memEnd-mem)*float64(i)/float64(n-1)
		add(share, markRaw, "\r"+format+"%s", size, free, graphBar(i+1, n, time.Duration((share-from)*float64(length))))
	}
	add(to, markRaw, "\n")
}

func intList(v []int) string {
	return strings.ReplaceAll(fmt.Sprint(v), " ", ", ")
}

// barTimes is tqdm's "[elapsed<left, rate]".
func barTimes(n, total int, elapsed time.Duration) string {
	if n == 0 {
		return fmt.Sprintf("[%s<?, ?it/s]", clock(elapsed))
	}
	each := max(elapsed, time.Millisecond).Seconds() / float64(n)
	rate := fmt.Sprintf("%5.2fit/s", 1/each)
	if each > 1 {
		rate = fmt.Sprintf("%5.2fs/it", each)
	}
	return fmt.Sprintf("[%s<%s, %s]", clock(elapsed), clock(time.Duration(each*float64(total-n)*float64(time.Second))), rate)
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// shardBar is the bar of a weight load: percent and count, no blocks.
func shardBar(n, total int, elapsed time.Duration) string {
	return fmt.Sprintf("%3d%% Completed | %d/%d %s", 100*n/max(total, 1), n, total, barTimes(n, total, elapsed))
}

// graphBar is tqdm's usual bar of ten places.
func graphBar(n, total int, elapsed time.Duration) string {
	eighths := 80 * n / total
	bar := strings.Repeat("█", eighths/8)
	if part := eighths % 8; part > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[part-1])
	}
	bar += strings.Repeat(" ", 10-len([]rune(bar)))
	return fmt.Sprintf("%3d%%|%s| %d/%d %s", int(float64(100*n)/float64(total)+0.5), bar, n, total, barTimes(n, total, elapsed))
}

// play prints the marks when their time comes, counted from start, and tells whether it came to the end before ctx did. Marks
// of the same moment are one write.
func play(ctx context.Context, marks []mark, start time.Time, l *logger) bool {
	w := bufio.NewWriterSize(rawWriter{l}, 1<<16)
	buffered := &logger{tp: l.tp, now: l.now, out: w, err: w}
	for _, m := range marks {
		if d := m.at - time.Since(start); d > 0 {
			_ = w.Flush() // see logger.raw
			if !rest(ctx, d) {
				return false
			}
		}
		switch m.kind {
		case markMain:
			buffered.main("%s", m.text)
		case markRanks:
			buffered.ranks("%s", m.text)
		case markRaw:
			buffered.raw(m.text)
		}
	}
	_ = w.Flush() // see logger.raw
	return true
}

// rest waits for d and tells whether it passed before ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// rawWriter is a logger's stderr as a writer.
type rawWriter struct{ l *logger }

func (w rawWriter) Write(p []byte) (int, error) {
	w.l.raw(string(p))
	return len(p), nil
}

// serverArgs is SGLang's line of all settings. It shows the api keys in clear, as the real one does.
func (o *Options) serverArgs() string {
	parts := make([]string, 0, len(knownFlags()))
	for _, f := range knownFlags() {
		if f.dest == "config" {
			continue
		}
		value := f.repr(o.Args)
		switch f.dest {
		case "tokenizer_path":
			if len(o.Args[f.dest]) == 0 {
				value = pyQuote(o.ModelPath)
			}
		case "served_model_name":
			value = pyQuote(o.servedName())
		}
		parts = append(parts, f.dest+"="+value)
	}
	return "server_args=ServerArgs(" + strings.Join(parts, ", ") + ")"
}

func pyQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(s) + "'"
}

// repr is Python's form of the option's value.
func (f *flagSpec) repr(args map[string][]string) string {
	values := args[f.dest]
	switch {
	case len(values) == 0 && f.initial != "":
		return f.initial
	case len(values) == 0 && (f.kind == kindBool || f.kind == kindNegate):
		return "False"
	case len(values) == 0:
		return "None"
	case f.kind == kindList:
		quoted := make([]string, len(values))
		for i, v := range values {
			quoted[i] = pyQuote(v)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case f.kind == kindString || f.kind == kindChoice:
		return pyQuote(values[len(values)-1])
	}
	return values[len(values)-1]
}

// jsonValue is the option's value in /server_info.
func (f *flagSpec) jsonValue(args map[string][]string) any {
	text := f.repr(args)
	switch text {
	case "None":
		return nil
	case "True":
		return true
	case "False":
		return false
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return n
	}
	if f.kind == kindList {
		return args[f.dest]
	}
	return strings.Trim(text, "'")
}
