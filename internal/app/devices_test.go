package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/backends/sglang/footprint"
	"pilotlight/internal/config"
)

func TestMemoryFractionKeepsToTheShare(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name         string
		memory, free int64
		share, left  int
		want         float64 // 0: an error
		permanent    bool
	}{
		{"half of an empty H100", 80 * gib, 80 * gib, 500, 1000, 0.44, false},
		{"the other half, beside one that takes what it may", 80 * gib, 40 * gib, 500, 500, 0.88, false},
		{"the other half, beside one that takes less", 80 * gib, 50 * gib, 500, 500, 0.704, false},
		{"a small share keeps more aside", 80 * gib, 80 * gib, 100, 1000, 0.05625, false},
		{"too small a share", 16 * gib, 16 * gib, 200, 1000, 0, true},
		{"part of the share is not free", 80 * gib, 10 * gib, 500, 500, 0.52, false},
		{"hardly anything is free", 80 * gib, 4 * gib, 500, 500, 0, false},
		{"nothing is free", 80 * gib, 0, 500, 500, 0, false},
		{"more is used than there is", 80 * gib, -1, 500, 500, 0, false},
		{"a device of unknown size", 0, 0, 250, 500, 0.44, false},
	} {
		got, err := memoryFraction(c.memory, c.free, c.share, c.left)
		var f *backends.Failure
		if got < c.want-1e-9 || got > c.want+1e-9 || (err != nil) != (c.want == 0) || err != nil && (!errors.As(err, &f) || f.Permanent != c.permanent) {
			t.Errorf("%s: got %v and %v, want %v", c.name, got, err, c.want)
		}
	}
}

// Weights that no GPU found holds are told before the start, whatever kind was asked for.
func TestWeightsAreHeldAgainstTheGPUsFound(t *testing.T) {
	weights := &footprint.Model{WeightBytes: 60e9}
	conf, err := config.Source{Footprint: func(string, string, map[string]string) (*footprint.Model, error) { return weights, nil }}.Parse("x.yaml",
		[]byte("state_dir: state\nmodels: [{name: a, model_id: a, model_hf_path: o/a, resources: {gpu: 1}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, notes, err := FindDevices(t.Context(), conf, fakeSMI(t, "0, GPU-0, NVIDIA L4, 23034, 0, Disabled"))
	if want := "a asks for 1, and there are 0 with the 52 GiB that its weights take of each: it cannot start"; err != nil || len(notes) != 1 || notes[0] != want {
		t.Errorf("got %q, %v", notes, err)
	}
	if _, notes, err = FindDevices(t.Context(), conf, fakeSMI(t, "0, GPU-0, NVIDIA H100 80GB HBM3, 81559, 0, Disabled")); err != nil || len(notes) != 0 {
		t.Errorf("got %q, %v", notes, err)
	}
}

// Without account two engines would start on one GPU.
func TestNothingStartsOnGPUsThatCouldNotBeFound(t *testing.T) {
	l := &launcher{noDevices: errors.New("nvidia-smi has not answered for 15s")}
	if _, err := l.placement(t.Context(), 1); err != nil {
		t.Errorf("a model without GPUs: %v", err)
	}
	l.spec.Devices.Count = 1
	var f *backends.Failure
	if _, err := l.placement(t.Context(), 1); !errors.As(err, &f) || f.Permanent || f.Class != backends.ClassDriver {
		t.Errorf("a model with one: %v", err)
	}
}

// fakeSMI answers with these lines for devices.
func fakeSMI(t *testing.T, lines ...string) gpu.SMI {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho '"+strings.Join(lines, "\n")+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return gpu.SMI{Command: []string{file}, Environ: []string{"A=B"}}
}

func TestDevicesAreFoundAndNotesTaken(t *testing.T) {
	const h200 = "0, GPU-0, NVIDIA H200, 143771, 0, Disabled"
	const l4 = "1, GPU-1, NVIDIA L4, 23034, 0, Disabled"
	const undemanding = "models: [{name: a, model_id: a, model_hf_path: o/a}]\n"
	model := func(gpu string) string {
		return "models: [{name: a, model_id: a, model_hf_path: o/a, resources: {gpu: '" + gpu + "'}}]\n"
	}
	none := gpu.SMI{Command: []string{"no-such-nvidia-smi"}}
	for _, c := range []struct {
		name, file, devices, notes string
		smi                        gpu.SMI
	}{
		{"found", model("H200:1"), "H200 0, L4 1", "", fakeSMI(t, h200, l4)},
		{"not enough", model("2"), "H200 0, L4 1", "a asks for 2, and there are 1: it cannot start", fakeSMI(t, h200, l4)},
		{"not of this kind", model("A10:1"), "H200 0", "a asks for A10:1, and there are 0: it cannot start", fakeSMI(t, h200)},
		{"none, and one is asked for", model("1"), "", "no GPU is found", none},
		{"none, and none is asked for", undemanding, "", "", none},
		{"none, and that is meant", "devices: none\n" + model("1"), "", "", fakeSMI(t, h200)},
		{"trouble", undemanding, "", "GPUs cannot be found: nvidia-smi printed something else", fakeSMI(t, "ERROR")},
		{"trouble with one", undemanding, "H200 0", "not all GPUs can be found: nvidia-smi printed something else than expected: GPU is lost", fakeSMI(t, h200, "GPU is lost")},
		{"trouble, and declared", "devices: [{kind: L4, count: 2}]\n" + undemanding, "L4 0, L4 1", "GPUs cannot be found", fakeSMI(t, "ERROR")},
		{"taken for good", "models: [{name: a, model_id: a, model_hf_path: o/a, resources: {gpu: 1}, scaling: {replicas: 1}}, {name: b, model_id: b, model_hf_path: o/b, resources: {gpu: 1}}]\n",
			"H200 0", "b asks for 1, which models that always run leave it none of", fakeSMI(t, h200)},
		{"taken for good from one that always runs", "models: [{name: a, model_id: a, model_hf_path: o/a, resources: {gpu: 1}, scaling: {replicas: 1}}, {name: b, model_id: b, model_hf_path: o/b, resources: {gpu: 1}, scaling: {replicas: 1}}]\n",
			"H200 0", "b always runs and asks for 1, which others that always run leave it none of", fakeSMI(t, h200)},
		{"enough is left", "models: [{name: a, model_id: a, model_hf_path: o/a, resources: {gpu: 1}, scaling: {replicas: 1}}, {name: b, model_id: b, model_hf_path: o/b, resources: {gpu: 1}}]\n",
			"H200 0, L4 1", "", fakeSMI(t, h200, l4)},
		{"declared", "devices: [{kind: L4, count: 2}]\n" + model("1"), "L4 0, L4 1", "", none},
		{"declared and found", "devices: [{kind: L4, count: 1}]\n" + model("1"), "L4 1", "", fakeSMI(t, h200, l4)},
		{"declared and not found", "devices: [{kind: L4, count: 2}]\n" + model("L4:2"), "L4 1, L4 (missing 1)",
			"devices declares 1 L4 more than nvidia-smi shows; they are not given out|a asks for L4:2, and there are 1: it cannot start", fakeSMI(t, h200, l4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, err := config.Parse("x.yaml", []byte("state_dir: state\n"+c.file), nil)
			if err != nil {
				t.Fatal(err)
			}
			devices, notes, err := FindDevices(context.Background(), conf, c.smi)
			if unknown := c.name == "trouble"; unknown != (err != nil) {
				t.Errorf("error %v", err)
			}
			var labels []string
			for _, d := range devices {
				labels = append(labels, d.Label())
			}
			if got := strings.Join(labels, ", "); got != c.devices {
				t.Errorf("devices %q, want %q", got, c.devices)
			}
			if got := strings.Join(notes, "|"); !strings.HasPrefix(got, c.notes) || (c.notes == "") != (got == "") {
				t.Errorf("notes %q, want %q", got, c.notes)
			}
		})
	}
}
