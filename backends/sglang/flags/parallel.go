package flags

import (
	"fmt"
	"strings"
)

// Ranks is how a command line spreads a model over GPUs.
type Ranks struct {
	TP, PP, DP, EP int
	// DataInside is data parallel attention: its groups are inside the tensor parallel one and add no GPUs.
	DataInside bool
	BaseID     int // the first GPU taken
	Step       int // distance between GPUs taken
	Given      bool
}

// RanksOf reads the parallel options; in lines, later ones win, as a command and its further arguments do. Sizes
// below one count as one: that they are wrong is Problem's to say.
func RanksOf(lines ...*Line) Ranks {
	number := func(name string, def int) int {
		for i := len(lines) - 1; i >= 0; i-- {
			if _, ok := lines[i].Value(name); ok {
				return lines[i].Int(name)
			}
		}
		return def
	}
	switched := func(name string) bool {
		for _, line := range lines {
			if _, ok := line.Value(name); ok {
				return true
			}
		}
		return false
	}
	r := Ranks{TP: number("--tp-size", 1), PP: number("--pp-size", 1), DP: number("--dp-size", 1), EP: number("--ep-size", 1),
		BaseID: number("--base-gpu-id", 0), Step: number("--gpu-id-step", 1), DataInside: switched("--enable-dp-attention")}
	for _, name := range []string{"--tp-size", "--pp-size", "--dp-size"} {
		r.Given = r.Given || switched(name)
	}
	return r
}

// Devices is how many GPUs must be there. Each of PP stages has TP ranks with a GPU each, and each of DP copies of
// that has its own (SGLang's data_parallel_controller.py), except with data parallel attention.
func (r Ranks) Devices() int {
	n := r.ranks()
	return r.BaseID + (n-1)*max(r.Step, 1) + 1
}

func (r Ranks) ranks() int {
	n := max(r.TP, 1) * max(r.PP, 1)
	if !r.DataInside {
		n *= max(r.DP, 1)
	}
	return n
}

// Arithmetic is how Devices comes about, such as "--tp-size 2 × --dp-size 2".
func (r Ranks) Arithmetic() string {
	var factors []string
	for _, f := range []struct {
		name string
		size int
		off  bool
	}{{"--tp-size", r.TP, false}, {"--pp-size", r.PP, r.PP <= 1}, {"--dp-size", r.DP, r.DP <= 1 || r.DataInside}} {
		if !f.off {
			factors = append(factors, fmt.Sprintf("%s %d", f.name, max(f.size, 1)))
		}
	}
	out := strings.Join(factors, " × ")
	if r.BaseID > 0 {
		out += fmt.Sprintf(" from --base-gpu-id %d on", r.BaseID)
	}
	if r.Step > 1 {
		out += fmt.Sprintf(" in steps of %d", r.Step)
	}
	return out
}

// Problem is what SGLang would refuse whatever the GPUs, and what to do; empty: nothing.
func (r Ranks) Problem() (message, fix string) {
	for _, f := range []struct {
		name string
		size int
	}{{"--tp-size", r.TP}, {"--pp-size", r.PP}, {"--dp-size", r.DP}, {"--ep-size", r.EP}} {
		if f.size < 1 {
			return f.name + " needs a whole number above zero", "write " + f.name + " 1"
		}
	}
	switch {
	case r.EP > r.TP:
		return fmt.Sprintf("--ep-size %d is more than --tp-size %d, whose GPUs share the experts", r.EP, r.TP), fmt.Sprintf("write --ep-size %d", r.TP)
	case r.TP%r.EP != 0:
		return fmt.Sprintf("--tp-size %d is no multiple of --ep-size %d", r.TP, r.EP), fmt.Sprintf("write --ep-size %d", r.TP)
	case r.DataInside && r.TP%r.DP != 0:
		return fmt.Sprintf("--tp-size %d is no multiple of --dp-size %d, as data parallel attention needs", r.TP, r.DP), fmt.Sprintf("write --dp-size %d", r.TP)
	}
	return "", ""
}

// Sized suggests options that use n GPUs: the tensor parallel size that does, if pipeline and data parallel sizes leave one.
func (r Ranks) Sized(n int) string {
	rest := max(r.PP, 1)
	if !r.DataInside {
		rest *= max(r.DP, 1)
	}
	if r.BaseID > 0 || r.Step > 1 || n < rest || n%rest != 0 {
		return ""
	}
	return fmt.Sprintf("--tp-size %d", n/rest)
}
