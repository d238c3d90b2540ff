package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machineText says what the scenes were played on.
type machineText struct {
	GPU    string `json:"gpu"` // with its memory and driver, as nvidia-smi says it
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
}

func (m machineText) text() string {
	return fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", m.GPU, m.CPUs, m.Memory>>30, m.Kernel)
}

func machine(ctx context.Context, smi string) machineText {
	m := machineText{GPU: "no GPU", CPUs: runtime.NumCPU()}
	if text, err := output(ctx, smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"); err == nil {
		m.GPU = strings.Join(strings.Split(text, "\n"), "; ")
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	return m
}

// versionsText says what was played with.
type versionsText struct {
	Pilotlight string `json:"pilotlight"`
	Engine     string `json:"engine"`
	Client     string `json:"client"`
}

func (v versionsText) text() string {
	return strings.Join([]string{v.Pilotlight, v.Engine, v.Client}, ", ")
}

// askVersions prints the releases without importing what takes half a minute to import.
const askVersions = `import platform
from importlib import metadata
names = ["Python " + platform.python_version()]
for name in "sglang", "torch":
    try:
        names.append(name + " " + metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
print(" on ".join(reversed(names)))`

func versions(ctx context.Context, o *options) (v versionsText) {
	v.Engine = "simulator"
	if o.Client != "" {
		text, err := output(ctx, o.Client, "-c", askVersions)
		if err != nil {
			text = err.Error()
		}
		v.Engine = text
	}
	var err error
	if v.Pilotlight, err = output(ctx, o.Pilotlight, "version"); err != nil {
		v.Pilotlight = err.Error()
	}
	return v
}

// output runs a program for at most half a minute.
func output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// gpu measures, with this nvidia-smi.
type gpu struct{ smi string }

// memory is what all GPUs together have in use.
type memory struct {
	mib   int
	known bool // false: there is no nvidia-smi
}

// slackMiB is by how much the memory in use may differ before it counts as somebody's.
const slackMiB = 64

func (g gpu) used(ctx context.Context) (m memory) {
	text, err := output(ctx, g.smi, "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
	if err != nil || text == "" {
		return m
	}
	for line := range strings.Lines(text) {
		_, used, _ := strings.Cut(line, ",")
		n, err := strconv.Atoi(strings.TrimSpace(used))
		if err != nil {
			return memory{}
		}
		m.mib += n
	}
	m.known = true
	return m
}
