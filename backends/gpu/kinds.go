package gpu

import (
	"slices"
	"strings"
)

// Kind is one type of device.
type Kind struct {
	// Name is Flyte's spelling, such as L40s.
	Name string
	// Memory is what one device has by its maker's data sheet, in bytes. Where there are several versions it is the
	// smallest; drivers report up to 8 % more or less.
	Memory int64
	// Counts are the numbers of devices that one replica may ask for.
	Counts []int
	// models are the words of nvidia-smi's product name that mean this kind; all must be there.
	models []string
}

const gigabyte = 1_000_000_000 // as on data sheets

// kinds are the device names of Flyte's resources (flyte-sdk, src/flyte/_resources.py) with the numbers that one replica may
// ask for. Where two fit a product's name the first does.
var kinds = []Kind{
	{"A100 80G", 80 * gigabyte, upTo(8), []string{"A100", "80GB"}},
	{"A100", 40 * gigabyte, upTo(8), []string{"A100"}},
	{"A10", 24 * gigabyte, upTo(8), []string{"A10"}},
	{"A10G", 24 * gigabyte, upTo(8), []string{"A10G"}},
	{"B200", 180 * gigabyte, upTo(8), []string{"B200"}},
	{"GB10", 128 * gigabyte, []int{1}, []string{"GB10"}}, // shared with the processor
	{"H100", 80 * gigabyte, upTo(8), []string{"H100"}},
	{"H200", 141 * gigabyte, upTo(8), []string{"H200"}},
	{"L4", 24 * gigabyte, upTo(8), []string{"L4"}},
	{"L40s", 48 * gigabyte, upTo(8), []string{"L40S"}},
	{"RTX PRO 6000", 96 * gigabyte, []int{1}, []string{"RTX", "PRO", "6000"}},
	{"T4", 16 * gigabyte, upTo(8), []string{"T4"}},
	{"V100", 16 * gigabyte, upTo(8), []string{"V100"}},

	// These are never found, only declared.
	{"MI100", 32 * gigabyte, []int{1}, nil},
	{"MI210", 64 * gigabyte, []int{1}, nil},
	{"MI250", 128 * gigabyte, []int{1}, nil},
	{"MI250X", 128 * gigabyte, []int{1}, nil},
	{"MI300A", 128 * gigabyte, []int{1}, nil},
	{"MI300X", 192 * gigabyte, []int{1}, nil},
	{"MI325X", 256 * gigabyte, []int{1}, nil},
	{"MI350X", 288 * gigabyte, []int{1}, nil},
	{"MI355X", 288 * gigabyte, []int{1}, nil},
	{"Gaudi1", 32 * gigabyte, []int{1}, nil},
	{"Trn1", 32 * gigabyte, []int{1, 4, 8, 16}, nil},
	{"Trn1n", 32 * gigabyte, []int{1, 4, 8, 16}, nil},
	{"Trn2", 96 * gigabyte, []int{1, 4, 8, 16}, nil},
	{"Trn2u", 96 * gigabyte, []int{1, 4, 8, 16}, nil},
	{"Inf1", 8 * gigabyte, upTo(16), nil},
	{"Inf2", 32 * gigabyte, upTo(12), nil},
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i + 1
	}
	return out
}

// Names are the names of all kinds, sorted.
func Names() []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = k.Name
	}
	slices.Sort(out)
	return out
}

// Find finds a kind by name in any case.
func Find(name string) (Kind, bool) {
	for _, k := range kinds {
		if strings.EqualFold(k.Name, name) {
			return k, true
		}
	}
	return Kind{}, false
}

// kindOf is the kind of a product as nvidia-smi names it, such as "NVIDIA H100 80GB HBM3" or "Tesla V100-SXM2-16GB"; empty: none
// of Flyte's.
func kindOf(product string) string {
	words := strings.FieldsFunc(strings.ToUpper(product), func(r rune) bool { return r == ' ' || r == '-' || r == '_' })
	for _, k := range kinds {
		if k.models == nil {
			continue
		}
		all := true
		for _, want := range k.models {
			all = all && slices.Contains(words, want)
		}
		if all {
			return k.Name
		}
	}
	return ""
}
