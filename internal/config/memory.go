package config

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"pilotlight/backends/gpu"
	"pilotlight/backends/sglang/flags"
	"pilotlight/backends/sglang/footprint"
)

// memory is the arithmetic of one replica's GPU memory.
type memory struct {
	model    *footprint.Model
	ranks    flags.Ranks
	devices  int     // that share one copy of the weights
	share    float64 // of one device; 1: the whole
	each     int64   // bytes of one device by its data sheet, or of the share of it; 0: the kind is not known
	weights  int64   // bytes of weights on each device
	fraction float64 // of a device, for weights and KV cache
	given    bool    // by --mem-fraction-static
	context  int     // tokens; 0: not known
	perToken int64   // bytes of KV cache on each device; 0: not known
}

const (
	// tolerance is how far a driver's figure is from the data sheet's: nothing is refused within it.
	tolerance = 1.08
	// usualFraction is what SGLang takes of a device if nobody says (server arguments, mem_fraction_static), and
	// reservedAbove is what it leaves at least on devices of more than 60 GiB.
	usualFraction = 0.88
	largeDevice   = 60 << 30
	reservedAbove = 10 << 30
	// comfortable is the part of the memory that weights may take so that a cache worth having is left.
	comfortable = 0.75
)

// arithmetic works out what is known; nil: the model's folder is not at hand.
func (m *Model) arithmetic() *memory {
	o := m.options
	if o == nil || o.footprint == nil {
		return nil
	}
	a := &memory{model: o.footprint, ranks: flags.RanksOf(o.command, o.extra), share: 1, each: gpuMemory(m.Resources.GPU.Kind), context: o.footprint.Context}
	a.devices = max(a.ranks.TP, 1) * max(a.ranks.PP, 1)
	dtype, _ := o.value("--dtype")
	a.weights = a.model.Loaded(dtype) / int64(a.devices)
	kv, _ := o.value("--kv-cache-dtype")
	a.perToken = a.model.KVBytesPerToken(a.ranks.TP, kv) / int64(max(a.ranks.PP, 1))
	if text, ok := o.value("--context-length"); ok {
		if n, ok := flags.SizeValue(text); ok && n > 0 && n < 1<<40 {
			a.context = int(n)
		}
	}
	a.fraction = usualFraction
	if a.each > largeDevice {
		a.fraction = min(a.fraction, 1-float64(reservedAbove)/float64(a.each))
	}
	if thousandths := m.Spec.Devices.Share; thousandths > 0 {
		a.share = float64(thousandths) / 1000
		a.each = int64(a.share * float64(a.each))
		a.fraction = max(0, min(usualFraction, 1-least/float64(max(a.each, 1))))
	}
	if text, ok := o.value("--mem-fraction-static"); ok {
		if f, err := strconv.ParseFloat(text, 64); err == nil && f > 0 && f <= 1 {
			a.fraction, a.given = f, true
		}
	}
	return a
}

// of names the device or the share of it.
func (a *memory) of(kind string) string {
	if a.share < 1 {
		return fmt.Sprintf("%g of one %s", a.share, kind)
	}
	return "one " + kind
}

// unsure: what is done to the weights while they are loaded changes their size on the device.
func (m *Model) unsure(a *memory) bool {
	format, _ := m.options.value("--load-format")
	_, quantize := m.options.value("--quantization")
	offload, ok := m.options.value("--cpu-offload-gb")
	return ok && offload != "0" || format == "gguf" || quantize && !a.model.Quantized
}

// LeastMemory is what a device must have for the weights that it gets, in bytes, or a little less; 0: it is not known.
func (m *Model) LeastMemory() int64 {
	a := m.arithmetic()
	if a == nil || m.unsure(a) {
		return 0
	}
	return int64(float64(a.weights) / tolerance / a.share)
}

// tokens is how many tokens of KV cache fit beside the weights, at most; 0: none, or not known.
func (a *memory) tokens() int64 {
	if a.perToken == 0 || a.each == 0 {
		return 0
	}
	return max(0, int64(a.fraction*float64(a.each))-a.weights) / a.perToken
}

// checkMemory refuses weights that cannot fit the devices asked for, which the engine would find out after having loaded
// most of them. What changes the size of weights while they are loaded is left to the engine.
func (r *reader) checkMemory(m *Model, devices, extra value) {
	o := m.options
	if o == nil || r.footprint == nil {
		return
	}
	revision, _ := o.value("--revision")
	path := m.Spec.ModelPath
	if r.stored != nil && m.Spec.Weights.Label() != "" {
		path = cmp.Or(r.stored(r.kept, m.Spec.Weights), path)
	}
	o.footprint, o.footprintErr = r.footprint(path, revision, m.Spec.Env)
	a := m.arithmetic()
	if a == nil || a.each == 0 || a.weights == 0 {
		return
	}
	if m.unsure(a) {
		return
	}
	kind := m.Resources.GPU.Kind
	whole := a.weights * int64(a.devices)
	if float64(a.weights) > tolerance*float64(a.each) {
		split := ""
		if a.devices > 1 {
			split = fmt.Sprintf(", %s on each of %d GPUs", gigabytes(a.weights), a.devices)
		}
		devices.fail(fmt.Sprintf("the weights take %s%s, and %s has %s", gigabytes(whole), split, a.of(kind), gigabytes(a.each)), a.enough(kind, whole))
		return
	}
	if a.given && float64(a.weights) > tolerance*a.fraction*float64(a.each) {
		least := float64(a.weights)/float64(a.each) + 0.05
		fix := fmt.Sprintf("write --mem-fraction-static %.2f or more", least)
		if least > 0.95 {
			fix = a.enough(kind, whole)
		}
		extra.asSecret().fail(fmt.Sprintf("--mem-fraction-static %g gives %s of one %s, and the weights take %s of each", a.fraction,
			gigabytes(int64(a.fraction*float64(a.each))), kind, gigabytes(a.weights)), fix)
	}
}

// enough suggests a larger share, or else what enough does.
func (a *memory) enough(kind string, weights int64) string {
	if share := math.Ceil(100*float64(weights)/comfortable/float64(max(gpuMemory(kind), 1))) / 100; a.share < 1 && share < 1 {
		return fmt.Sprintf("write gpu_share: %g or more", share)
	}
	return enough(kind, weights)
}

// enough suggests the fewest devices that hold the weights with room for a cache: of the same kind, or else of the smallest that can.
func enough(kind string, weights int64) string {
	fits := func(kind string) (int, bool) {
		device, _ := gpu.Find(kind)
		for _, n := range device.Counts {
			if n&(n-1) == 0 && float64(weights)/float64(n) <= comfortable*float64(device.Memory) { // ranks split attention heads: powers of two
				return n, true
			}
		}
		return 0, false
	}
	n, ok := fits(kind)
	if !ok {
		for _, other := range []string{"L4", "L40s", "H100", "H200", "B200"} {
			if n, ok = fits(other); ok {
				kind = other
				break
			}
		}
	}
	if !ok {
		return "no eight GPUs of one kind hold them; take a quantized or smaller model"
	}
	if n == 1 {
		return fmt.Sprintf(`set resources.gpu: "%s:1"`, kind)
	}
	return fmt.Sprintf(`set resources.gpu: "%s:%d" and --tp-size %d`, kind, n, n)
}

// smaller is the smallest device that holds the weights and a cache of this many tokens on its own, if it is much smaller.
func (a *memory) smaller(kind string, tokens int64) string {
	if a.devices != 1 || a.perToken == 0 || a.share < 1 {
		return ""
	}
	for _, other := range []string{"L4", "L40s", "H100"} {
		size := gpuMemory(other)
		if size*3/2 <= a.each && other != kind && float64(a.weights+tokens*a.perToken) <= usualFraction*comfortable*float64(size) {
			return other
		}
	}
	return ""
}

// gigabytes writes bytes as data sheets of GPUs do: in powers of ten, to one decimal.
func gigabytes(n int64) string {
	size, unit := float64(n)/1e9, "GB"
	if size < 1 {
		size, unit = size*1000, "MB"
	}
	return strconv.FormatFloat(math.Round(size*10)/10, 'f', -1, 64) + " " + unit
}

// memory shows the arithmetic of a model whose folder is at hand.
func (d *describer) memory(m *Model) {
	a := m.arithmetic()
	if a == nil {
		return
	}
	text := fmt.Sprintf("weights %s", gigabytes(a.weights*int64(a.devices)))
	if a.devices > 1 {
		text += fmt.Sprintf(", %s on each of %d GPUs", gigabytes(a.weights), a.devices)
	}
	if a.perToken > 0 {
		text += fmt.Sprintf("; KV cache %s for 1,000 tokens", gigabytes(1000*a.perToken))
		if a.devices > 1 {
			text += " on each"
		}
	}
	if n := a.tokens(); n > 0 {
		about := "about "
		if a.given {
			about = ""
		}
		text += fmt.Sprintf("; %s%.2g of %s (%s) leaves room for %s tokens at most", about, a.fraction, a.of(m.Resources.GPU.Kind), gigabytes(a.each), humanize.Comma(n))
		if a.context > 0 {
			text += fmt.Sprintf(", %.1f contexts of %s", float64(n)/float64(a.context), humanize.Comma(int64(a.context)))
		}
	}
	d.line(1, "memory       %s", text)
}

// memoryAdvice is what the arithmetic suggests.
func (d *describer) memoryAdvice(m *Model, add func(format string, args ...any)) {
	if m.options.footprintErr != nil {
		add("%s: the model's folder does not tell what it takes: %v", m.Name, m.options.footprintErr)
	}
	a := m.arithmetic()
	if a == nil || a.each == 0 || a.weights == 0 {
		return
	}
	kind, whole := m.Resources.GPU.Kind, a.weights*int64(a.devices)
	fit := a.tokens()
	switch {
	case float64(a.weights) > usualFraction*float64(a.each):
		add("%s: weights of %s leave %s of %s's %s for the KV cache; %s", m.Name, gigabytes(a.weights), gigabytes(max(0, a.each-a.weights)), a.of(kind),
			gigabytes(a.each), a.enough(kind, whole))
		return
	case a.perToken > 0 && a.context > 0 && fit < int64(a.context):
		add("%s: room for %s tokens is less than one context of %s; limit it with --context-length %d, or %s", m.Name, humanize.Comma(fit),
			humanize.Comma(int64(a.context)), max(fit/1024*1024, 1024), a.enough(kind, whole+int64(a.context)*a.perToken*int64(a.devices)))
	}
	if a.context > 0 && fit > 0 {
		users := max(m.Activator.Concurrency, 8) // of which each may fill its context
		if other := a.smaller(kind, int64(users)*int64(a.context)); other != "" {
			add(`%s: weights of %s and %d contexts of %s (%s) fit one %s with its %s; resources.gpu: "%s:1" is enough`, m.Name, gigabytes(a.weights), users,
				humanize.Comma(int64(a.context)), gigabytes(int64(users)*int64(a.context)*a.perToken), other, gigabytes(gpuMemory(other)), other)
		}
	}
	if count := m.Resources.GPU.Count; count > 1 && a.devices == 1 && !a.ranks.Given && float64(a.weights) > comfortable*float64(a.each) {
		add("%s: the weights fill %.0f %% of one %s; --tp-size %d spreads them over the %d that it asks for", m.Name,
			100*float64(a.weights)/float64(a.each), kind, count, count)
	}
}

// gpuMemory is what one device of a kind has by its maker's data sheet, in bytes; 0: no kind is known by that name.
func gpuMemory(name string) int64 {
	kind, _ := gpu.Find(name)
	return kind.Memory
}

// Learned is what is known of a model's starts on this machine.
type Learned struct {
	// Start is how long one takes.
	Start time.Duration
	// Slow says what made the latest one slow, and what helps; empty: it was not.
	Slow string
}

// learnedAdvice compares how long a start took with how long a replica stays, and tells what took long.
func (d *describer) learnedAdvice(m *Model, add func(format string, args ...any)) {
	if d.learned == nil {
		return
	}
	l, ok := d.learned(m)
	if ok && m.Activator.Min == 0 && m.Activator.ScaledownAfter < l.Start {
		add("%s: a start took %s, and a replica leaves after %s without traffic; scaledown_after of %s or more waits less than it saves", m.Name,
			l.Start.Round(1e9), m.Activator.ScaledownAfter, (2 * l.Start).Round(1e9))
	}
	if l.Slow != "" {
		add("%s: %s", m.Name, l.Slow)
	}
}
