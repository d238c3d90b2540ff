package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"pilotlight/backends/gpu"
)

// Resources are what one replica asks for. Zero means that the file does not say.
type Resources struct {
	MilliCPU    int64 // thousandths of a core
	MemoryBytes int64
	DiskBytes   int64
	ShmBytes    int64
	ShmAuto     bool // shm: auto, as much as the backend gives
	GPU         GPU
}

// GPU is a number of devices of one kind.
type GPU struct {
	Kind  string // Flyte's spelling, such as L40s; empty: any kind
	Count int    // 0: none, or not said
}

// String is the form of the file: L40s:4, or the number alone.
func (g GPU) String() string {
	if g.Kind == "" {
		return strconv.Itoa(g.Count)
	}
	return g.Kind + ":" + strconv.Itoa(g.Count)
}

const (
	// leastResource is 1 MiB: "memory: 16" was meant as 16Gi.
	leastResource = 1 << 20
	maxGPUs       = 1024
	maxCPUs       = 10_000
)

func (r *reader) resources(f fields) Resources {
	out := Resources{
		MilliCPU:    f.get("cpu").cpu(),
		MemoryBytes: f.get("memory").size(0, leastResource),
		DiskBytes:   f.get("disk").size(0, leastResource),
		GPU:         f.get("gpu").gpu(),
	}
	shm := f.get("shm")
	if shm.given() && shm.node.Value == "auto" {
		out.ShmAuto = true
	} else {
		out.ShmBytes = shm.size(0, leastResource)
	}
	return out
}

// notEnforced warns about limits that the process backend does not hold replicas to.
func (r *reader) notEnforced(f fields) {
	for _, name := range []string{"cpu", "memory", "disk"} {
		if v := f.get(name); v.given() {
			v.warn("not enforced by the process backend", "a replica may use more "+name)
		}
	}
}

// cpu reads cores: 4, 1.5, "4" or "500m".
func (v value) cpu() int64 {
	const fix = `write cores such as 4, or thousandths such as "500m"`
	text, tag, ok := v.scalar("a number of cores")
	if !ok {
		return 0
	}
	if tag != "!!str" && tag != "!!int" && tag != "!!float" {
		v.expected("a number of cores", fix)
		return 0
	}
	number, milli := strings.CutSuffix(text, "m")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		v.fail("is not a number of cores", fix)
		return 0
	}
	if !milli {
		f *= 1000
	}
	if f < 1 || f > maxCPUs*1000 {
		v.fail("is out of range", fix)
		return 0
	}
	return int64(math.Round(f))
}

// gpu reads a number of devices of any kind, or "Type:N" in any case.
func (v value) gpu() GPU {
	const fix = `write a number, or a type and a number such as "L40s:1"`
	if v.given() && v.kind() == "a number" {
		return GPU{Count: int(v.integer(0, 0, maxGPUs))}
	}
	if v.given() && v.kind() != "text" {
		v.expected("a number of GPUs, or a type and a number", fix)
		return GPU{}
	}
	text := v.text("")
	if text == "" {
		return GPU{}
	}
	if n, err := strconv.Atoi(text); err == nil {
		if n < 0 || n > maxGPUs {
			v.fail("is out of range", fix)
			return GPU{}
		}
		return GPU{Count: n}
	}
	kind, number, hasNumber := strings.Cut(text, ":")
	canonical := v.gpuKind(kind)
	if canonical == "" {
		return GPU{}
	}
	if !hasNumber {
		v.fail("says no number of GPUs", fmt.Sprintf(`write "%s:1"`, canonical))
		return GPU{}
	}
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil {
		v.fail("the number of GPUs is not a whole number", fmt.Sprintf(`write "%s:1"`, canonical))
		return GPU{}
	}
	known, _ := gpu.Find(canonical)
	if slices.Contains(known.Counts, n) {
		return GPU{Kind: canonical, Count: n}
	}
	v.fail(fmt.Sprintf("one replica cannot have %d %s", n, canonical), "allowed numbers: "+numbers(known.Counts))
	return GPU{}
}

func numbers(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}
