package gpu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProductsHaveKinds(t *testing.T) {
	for product, want := range map[string]string{
		"NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 NVL": "H100", "NVIDIA H200": "H200", "NVIDIA GH200 480GB": "", "NVIDIA GB200": "",
		"NVIDIA A100-SXM4-40GB": "A100", "NVIDIA A100-SXM4-80GB": "A100 80G", "NVIDIA A100 80GB PCIe": "A100 80G", "NVIDIA A10": "A10", "NVIDIA A10G": "A10G",
		"NVIDIA L4": "L4", "NVIDIA L40S": "L40s", "NVIDIA L40": "", "Tesla T4": "T4", "Tesla V100-SXM2-16GB": "V100", "NVIDIA B200": "B200",
		"NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX PRO 6000", "NVIDIA RTX 6000 Ada Generation": "", "NVIDIA GeForce RTX 4090": "", "NVIDIA GB10": "GB10",
	} {
		if got := kindOf(product); got != want {
			t.Errorf("%s is %q, want %q", product, got, want)
		}
	}
	if k, ok := Find("l40S"); !ok || k.Name != "L40s" || k.Memory != 48_000_000_000 {
		t.Errorf("l40S is %+v", k)
	}
	if !slices.IsSorted(Names()) || len(Names()) != len(kinds) {
		t.Errorf("names: %q", Names())
	}
}

// smi is a program that answers as nvidia-smi does, by the question's first words.
func smi(t *testing.T, answers string, environ ...string) SMI {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nvidia-smi")
	script := "#!/bin/sh\ncase \"$1\" in\n" + answers + "\nesac\n"
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return SMI{Command: []string{file}, Environ: environ, Timeout: 5 * time.Second}
}

// h100 is what an H100 with driver 580.159.04 answered, four times over, the third cut into MIG instances as NVIDIA's guide shows.
const h100 = `--query-gpu=index,uuid,name*) echo '0, GPU-0d4b99eb, NVIDIA H100 80GB HBM3, 81559, 3, Disabled
1, GPU-1d4b99eb, NVIDIA H100 80GB HBM3, 81559, 44400, Disabled
2, GPU-2d4b99eb, NVIDIA H100 80GB HBM3, 81559, 1, Enabled
3, GPU-3d4b99eb, NVIDIA GB10, [N/A], [N/A], [N/A]';;
--query-gpu=index,memory.used) echo '0, 3
1, 44400
3, [N/A]';;
-L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0d4b99eb)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-2d4b99eb)
  MIG 1g.10gb     Device  0: (UUID: MIG-aa-bb)
  MIG 3g.40gb     Device  1: (UUID: MIG-cc-dd)';;`

func TestDevicesAreFound(t *testing.T) {
	for _, c := range []struct {
		name, visible, want string
	}{
		{"all", "none", "0 1 3 MIG-aa-bb MIG-cc-dd"},
		{"by number, in the order named", "CUDA_VISIBLE_DEVICES=1,0", "1 0"},
		{"the list ends at what is nobody's, as for CUDA", "CUDA_VISIBLE_DEVICES=1,7,0", "1"},
		{"by the beginning of a UUID", "CUDA_VISIBLE_DEVICES=GPU-1d4b", "1"},
		{"an instance", "CUDA_VISIBLE_DEVICES=MIG-cc-dd", "MIG-cc-dd"},
		{"none", "CUDA_VISIBLE_DEVICES=", ""},
		{"none by a number that cannot be", "CUDA_VISIBLE_DEVICES=-1", ""},
		{"each once", "CUDA_VISIBLE_DEVICES=1,1,0", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			devices, err := smi(t, h100, c.visible).List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, d := range devices {
				ids = append(ids, d.ID)
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	s := smi(t, h100, "A=B")
	devices, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Device{ID: "1", UUID: "GPU-1d4b99eb", Product: "NVIDIA H100 80GB HBM3", Kind: "H100", Memory: 81559 << 20, Used: 44400 << 20, Measured: true}
	if devices[1] != want || devices[1].Label() != "H100 1" {
		t.Errorf("got %+v", devices[1])
	}
	if d := devices[2]; d.Measured || d.Memory != 128*gigabyte || d.Kind != "GB10" {
		t.Errorf("a GPU that shares memory: %+v", d)
	}
	if d := devices[4]; d.Measured || !d.Alone || d.Memory != 40*gigabyte || d.Kind != "" || d.Label() != "NVIDIA H100 80GB HBM3 3g.40gb MIG-cc-dd" {
		t.Errorf("an instance: %+v, %s", d, d.Label())
	}
	used, err := s.Used(t.Context())
	if err != nil || len(used) != 2 || used["1"] != 44400<<20 {
		t.Errorf("used: %v, %v", used, err)
	}
}

func TestTroubleWithSMIIsTold(t *testing.T) {
	if _, err := (SMI{Command: []string{"no-such-nvidia-smi"}}).List(t.Context()); !errors.Is(err, ErrNoSMI) {
		t.Errorf("not installed: %v", err)
	}
	broken := smi(t, `*) echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9;;`)
	if _, err := broken.List(t.Context()); err == nil || !strings.Contains(err.Error(), "communicate with the NVIDIA driver") {
		t.Errorf("no driver: %v", err)
	}
	empty := smi(t, `*) echo "No devices were found"; exit 6;;`)
	if devices, err := empty.List(t.Context()); err != nil || len(devices) != 0 {
		t.Errorf("no device: %v, %v", devices, err)
	}
	odd := smi(t, `*) echo "something, else";;`)
	if _, err := odd.List(t.Context()); err == nil {
		t.Error("something else than expected was taken for devices")
	}
	hangs := smi(t, `*) exec sleep 60;;`)
	hangs.Timeout = 50 * time.Millisecond
	began := time.Now()
	if _, err := hangs.Used(t.Context()); err == nil || !strings.Contains(err.Error(), "has not answered for 50ms") || time.Since(began) > 5*time.Second {
		t.Errorf("hangs: %v after %v", err, time.Since(began))
	}
	// One that waits for a driver that does not answer cannot even be killed, and must not hold up whoever asks.
	stuck := hangs
	released := make(chan struct{})
	stuck.wait = func(cmd *exec.Cmd) error {
		<-released
		return cmd.Wait()
	}
	if _, err := stuck.Used(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "has not answered for 50ms, and cannot be killed") {
		t.Errorf("stuck: %v", err)
	}
	close(released)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hangs.Used(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A GPU that fell off the bus must not take those beside it out of service.
func TestOneFailedGPUHidesNoOther(t *testing.T) {
	const lost = "Unable to determine the device handle for GPU0000:41:00.0: GPU is lost. Reboot the system to recover this GPU"
	for name, end := range map[string]string{"and all is well otherwise": "", "and nvidia-smi fails": "exit 15"} {
		t.Run(name, func(t *testing.T) {
			s := smi(t, `--query-gpu=index,uuid,name*) echo '0, GPU-0, NVIDIA L4, 23034, 3, [N/A]
`+lost+`
2, GPU-2, NVIDIA L4, 23034, 3, [N/A]'; `+end+`;;
--query-gpu=index,memory.used) echo '0, 3
`+lost+`
2, [Unknown Error]'; `+end+`;;`)
			devices, err := s.List(t.Context())
			if len(devices) != 2 || devices[0].ID != "0" || devices[1].ID != "2" || err == nil || !strings.Contains(err.Error(), "GPU is lost") {
				t.Errorf("devices %+v, %v", devices, err)
			}
			if used, err := s.Used(t.Context()); err != nil || len(used) != 1 || used["0"] != 3<<20 {
				t.Errorf("used: %v, %v", used, err)
			}
		})
	}
}

func TestDeclaredDevicesAreMatchedWithFoundOnes(t *testing.T) {
	found := []Device{{ID: "0", Kind: "L40s"}, {ID: "1", Kind: "H200"}, {ID: "2", Kind: "L40s"}, {ID: "3"}}
	for _, c := range []struct {
		name     string
		declared []Declared
		found    []Device
		visible  []string
		want     string
	}{
		{"nothing to ask: at their word", []Declared{{"L40s", 2}, {"H200", 1}}, nil, nil, "L40s 0, L40s 1, H200 2"},
		{"nothing to ask, and some are for others", []Declared{{"L40s", 3}}, nil, []string{"2", "3"}, "L40s 2, L40s 3, L40s (missing 3) missing"},
		{"nothing to ask, and all are for others", []Declared{{"L40s", 1}}, nil, []string{}, "L40s (missing 1) missing"},
		{"fewer than there are", []Declared{{"L40s", 1}}, found, nil, "L40s 0"},
		{"by kind", []Declared{{"H200", 1}, {"L40s", 2}}, found, nil, "H200 1, L40s 0, L40s 2"},
		{"any kind takes what is left", []Declared{{"", 2}, {"L40s", 2}}, found, nil, "L40s 0, L40s 2, H200 1, GPU 3"},
		{"more than there are", []Declared{{"H200", 2}}, found, nil, "H200 1, H200 (missing 1) missing"},
		{"none of the kind", []Declared{{"A10", 1}}, found, nil, "A10 (missing 1) missing"},
		{"none at all", []Declared{{"A10", 1}}, []Device{}, nil, "A10 (missing 1) missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, d := range Settle(c.declared, c.found, c.found != nil, c.visible) {
				label := d.Label()
				if d.Missing {
					label += " missing"
				}
				got = append(got, label)
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got %s, want %s", strings.Join(got, ", "), c.want)
			}
		})
	}
}
