package gpu

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SMI asks nvidia-smi. The zero value asks the one in PATH. (On an H100 with driver 580 a question takes 25 ms; without
// persistence mode the driver is loaded for each, which takes seconds.)
type SMI struct {
	// Command is the program and its first arguments; empty: nvidia-smi.
	Command []string
	// Timeout bounds one question; 0 means 15 s.
	Timeout time.Duration
	// Environ is where CUDA_VISIBLE_DEVICES is looked up, as os.Environ gives it; nil means os.Environ().
	Environ []string
	// wait is exec.Cmd's Wait, or a test's.
	wait func(*exec.Cmd) error
}

const (
	defaultTimeout = 15 * time.Second
	// killPatience is how long a killed nvidia-smi may take to end. One that waits for a driver that answers no more never does.
	killPatience = 2 * time.Second
)

// ErrNoSMI: nvidia-smi is not installed.
var ErrNoSMI = errors.New("nvidia-smi is not installed")

// List finds the devices that this process may use: all, or those of CUDA_VISIBLE_DEVICES in its order. An empty list is no
// error. ErrNoSMI: this machine has no nvidia-smi. Where one GPU has failed, nvidia-smi complains in its place and lists the others:
// List returns these, and an error.
func (s SMI) List(ctx context.Context) ([]Device, error) {
	rows, err := s.rows(ctx, "index", "uuid", "name", "memory.total", "memory.used", "mig.mode.current")
	if len(rows) == 0 {
		return nil, err
	}
	var devices, whole []Device
	partitioned := map[string]Device{} // by UUID
	for _, row := range rows {
		d := Device{ID: row[0], UUID: row[1], Product: row[2], Kind: kindOf(row[2])}
		// A GPU that shares the processor's memory has none of its own to report ("[N/A]").
		total, errTotal := mebibytes(row[3])
		used, errUsed := mebibytes(row[4])
		if errTotal == nil && errUsed == nil {
			d.Memory, d.Used, d.Measured = total, used, true
		} else if k, ok := Find(d.Kind); ok {
			d.Memory = k.Memory
		}
		if strings.EqualFold(row[5], "Enabled") {
			partitioned[d.UUID] = d
			continue
		}
		whole = append(whole, d)
	}
	devices = whole
	if len(partitioned) > 0 {
		instances, errInstances := s.instances(ctx, partitioned)
		devices, err = append(devices, instances...), errors.Join(err, errInstances)
	}
	if names := s.Visible(); names != nil {
		devices = restrict(devices, names)
	}
	return devices, err
}

// Visible are the names in CUDA_VISIBLE_DEVICES, in its order; nil if it is not set.
func (s SMI) Visible() []string {
	text, set := lookup(s.Environ, "CUDA_VISIBLE_DEVICES")
	if !set {
		return nil
	}
	names := []string{}
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" || name == "-1" || slices.Contains(names, name) {
			break // nothing after what is no name counts for CUDA; and nothing is shared out twice
		}
		names = append(names, name)
	}
	return names
}

// Used tells how many bytes of each whole device are in use, by Device.ID. A device whose use is not known is not there; the error is
// why none is.
func (s SMI) Used(ctx context.Context) (map[string]int64, error) {
	rows, err := s.rows(ctx, "index", "memory.used")
	if len(rows) == 0 {
		return nil, err
	}
	used := make(map[string]int64, len(rows))
	for _, row := range rows {
		if n, err := mebibytes(row[1]); err == nil {
			used[row[0]] = n
		}
	}
	return used, nil
}

var (
	gpuLine = regexp.MustCompile(`^GPU \d+: .*\(UUID: (GPU-[^)]+)\)`)
	migLine = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)`)
	migSize = regexp.MustCompile(`\.(\d+)gb`)
)

// instances lists the MIG instances of the GPUs that are cut into such.
func (s SMI) instances(ctx context.Context, parents map[string]Device) ([]Device, error) {
	out, err := s.ask(ctx, "-L")
	if err != nil {
		return nil, err
	}
	var devices []Device
	var parent Device
	for line := range strings.Lines(string(out)) {
		if m := gpuLine.FindStringSubmatch(line); m != nil {
			parent = parents[m[1]]
			continue
		}
		m := migLine.FindStringSubmatch(line)
		if m == nil || parent.UUID == "" {
			continue
		}
		d := Device{ID: m[2], UUID: m[2], Product: parent.Product + " " + m[1], Alone: true}
		if size := migSize.FindStringSubmatch(m[1]); size != nil {
			n, err := strconv.ParseInt(size[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("nvidia-smi: the size of a MIG instance: %w", err)
			}
			d.Memory = n * gigabyte
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// restrict keeps the devices that have these names, by number or by the beginning of a UUID. As CUDA does, it ends the list at the
// first name that is nobody's.
func restrict(devices []Device, visible []string) []Device {
	var out []Device
	for _, name := range visible {
		found := -1
		for i, d := range devices {
			if d.ID == name || (strings.HasPrefix(name, "GPU-") || strings.HasPrefix(name, "MIG-")) && strings.HasPrefix(d.UUID, name) {
				found = i
				break
			}
		}
		if found < 0 {
			break
		}
		out = append(out, devices[found])
	}
	return out
}

// rows asks for properties of all GPUs. Rows that are none, such as complaints about a failed GPU, are the error.
func (s SMI) rows(ctx context.Context, properties ...string) ([][]string, error) {
	out, err := s.ask(ctx, "--query-gpu="+strings.Join(properties, ","), "--format=csv,noheader,nounits")
	rows, odd := readRows(out, len(properties))
	return rows, errors.Join(err, odd)
}

// ask returns what nvidia-smi prints, also where it reports an error.
func (s SMI) ask(ctx context.Context, args ...string) ([]byte, error) {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("nvidia-smi has not answered for %v", timeout))
	defer cancel()
	command := s.Command
	if len(command) == 0 {
		command = []string{"nvidia-smi"}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], args...)...)
	cmd.WaitDelay = time.Second // a child of a wrapper may hold the pipe
	// A language other than English, or a config file of somebody's, must not change what it prints.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	wait := s.wait
	if wait == nil {
		wait = (*exec.Cmd).Wait
	}
	err := cmd.Start()
	if err == nil {
		ended := make(chan error, 1)
		go func() { ended <- wait(cmd) }()
		select {
		case err = <-ended:
		case <-ctx.Done():
			select {
			case err = <-ended:
			case <-time.After(killPatience): // the goroutine stays as long as it does
				return nil, fmt.Errorf("%w, and cannot be killed", context.Cause(ctx))
			}
		}
	}
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, ErrNoSMI
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	if bytes.Contains(stdout.Bytes(), []byte("No devices were found")) { // a driver without a GPU; the exit status differs by version
		return nil, nil
	}
	return stdout.Bytes(), fmt.Errorf("nvidia-smi: %w: %s", err, short(stdout.String()+" "+stderr.String()))
}

func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return text
}

// readRows takes lines of so many values that begin with a number. The error tells the first of the others.
func readRows(out []byte, fields int) (rows [][]string, err error) {
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		r := csv.NewReader(strings.NewReader(line))
		r.FieldsPerRecord, r.TrimLeadingSpace, r.LazyQuotes = fields, true, true
		row, bad := r.Read()
		if bad == nil {
			for i := range row {
				row[i] = strings.TrimSpace(row[i])
			}
			_, bad = strconv.ParseUint(row[0], 10, 16)
		}
		if bad == nil {
			rows = append(rows, row)
		} else if err == nil {
			err = fmt.Errorf("nvidia-smi printed something else than expected: %s", short(line))
		}
	}
	return rows, err
}

func mebibytes(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	return n << 20, nil
}

func lookup(environ []string, name string) (string, bool) {
	if environ == nil {
		return os.LookupEnv(name)
	}
	for i := len(environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return value, true
		}
	}
	return "", false
}
