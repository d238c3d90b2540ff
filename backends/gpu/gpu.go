// Package gpu knows the GPUs of this machine: which there are, what kind they are and how much of their memory is in use, by
// asking nvidia-smi, or by what somebody declares. Who gets which is not decided here: see activator/ledger.
//
// It keeps nothing and starts nothing but nvidia-smi, which is bounded in time. Safe for concurrent use.
package gpu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Device is one GPU, or one MIG instance of one.
type Device struct {
	// ID is what CUDA_VISIBLE_DEVICES calls it: its number in PCI order, or a MIG instance's UUID. Numbers and not UUIDs,
	// because engines read numbers from the variable where they set up all-reduce over several GPUs, and CUDA takes one MIG
	// instance at most, by UUID only.
	ID string
	// UUID is the driver's name for it; empty if declared and not found.
	UUID string
	// Product is what nvidia-smi calls it; empty if declared and not found.
	Product string
	// Kind is Flyte's name; empty: none of Flyte's, so that only models which ask for any kind get it.
	Kind string
	// Memory is its size in bytes; 0: not known.
	Memory int64
	// Used is what was in use when it was found, in bytes.
	Used int64
	// Measured: nvidia-smi tells how much of its memory is in use. It does not for MIG instances.
	Measured bool
	// Missing: declared, and nvidia-smi or CUDA_VISIBLE_DEVICES does not list it.
	Missing bool
	// Alone: an engine can use no other device beside it. So it is with MIG instances.
	Alone bool
}

// Label names a device for people, such as "H200 0" or "NVIDIA GeForce RTX 4090 1".
func (d Device) Label() string {
	id := d.ID
	if strings.HasPrefix(id, "MIG-") && len(id) > 12 {
		id = id[:12]
	}
	switch {
	case d.Kind != "":
		return d.Kind + " " + id
	case d.Product != "":
		return d.Product + " " + id
	}
	return "GPU " + id
}

// Declared is one entry of the configuration's devices: Count devices of a kind, which may be empty for any.
type Declared struct {
	Kind  string
	Count int
}

// Settle turns a declaration into devices. Each is the found one of its kind with the lowest number, and one that is not found is
// Missing. With asked false (nvidia-smi told nothing) they are taken at their word in the declaration's order, and have the names of
// visible, which ends the list, or numbers if it is nil.
func Settle(declared []Declared, found []Device, asked bool, visible []string) []Device {
	var out []Device
	left := slices.Clone(found)
	take := func(kind string) (Device, bool) {
		for i, d := range left {
			if kind == "" || d.Kind == kind {
				left = slices.Delete(left, i, i+1)
				return d, true
			}
		}
		return Device{}, false
	}
	var missing []int
	for _, entry := range slices.SortedStableFunc(slices.Values(declared), namedFirst) {
		for range entry.Count {
			d, ok := take(entry.Kind)
			if !ok {
				d = Device{Kind: entry.Kind, Missing: asked || visible != nil && len(missing) >= len(visible)}
				if k, known := Find(entry.Kind); known {
					d.Memory = k.Memory
				}
				missing = append(missing, len(out))
			}
			out = append(out, d)
		}
	}
	for n, i := range missing {
		switch {
		case out[i].Missing:
			out[i].ID = fmt.Sprintf("(missing %d)", n+1) // a number may be another device's
		case visible != nil:
			out[i].ID = visible[n]
		default:
			out[i].ID = strconv.Itoa(n)
		}
	}
	return out
}

// namedFirst lets entries of any kind take what the others leave.
func namedFirst(a, b Declared) int {
	switch {
	case a.Kind != "" && b.Kind == "":
		return -1
	case a.Kind == "" && b.Kind != "":
		return 1
	}
	return 0
}
