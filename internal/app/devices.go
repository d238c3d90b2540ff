package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"pilotlight/activator"
	"pilotlight/activator/ledger"
	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/internal/config"
)

// FindDevices are the GPUs that a gateway with this configuration shares out, and what an operator should know about them. None
// without an error: nobody keeps account of GPUs, and models that ask for some start without. With one it is not known which there are.
func FindDevices(ctx context.Context, c *config.Config, smi gpu.SMI) (devices []gpu.Device, notes []string, err error) {
	if c.Devices.None() {
		return nil, nil, nil
	}
	found, err := smi.List(ctx)
	none := errors.Is(err, gpu.ErrNoSMI)
	switch {
	case none:
		err = nil
	case err != nil && len(found) == 0:
		notes = append(notes, fmt.Sprintf("GPUs cannot be found: %v", err))
	case err != nil:
		notes = append(notes, fmt.Sprintf("not all GPUs can be found: %v", err))
		err = nil
	}
	devices = found
	if !c.Devices.Auto {
		devices = gpu.Settle(c.Devices.List, found, err == nil && !none, smi.Visible())
		err = nil // they are taken at their word
	}
	if err != nil {
		return nil, append(notes, "models that ask for GPUs do not start; mend nvidia-smi and start the gateway again, or write devices: none, or a list of devices"), err
	}
	return devices, append(notes, lacking(c, devices)...), nil
}

// lacking are notes about what is missing of the devices that are declared and asked for.
func lacking(c *config.Config, devices []gpu.Device) (notes []string) {
	missing := map[string]int{}
	for _, d := range devices {
		if d.Missing {
			missing[d.Kind]++
		}
	}
	for _, kind := range gpu.Names() {
		if n := missing[kind]; n > 0 {
			notes = append(notes, fmt.Sprintf("devices declares %d %s more than nvidia-smi shows; they are not given out", n, kind))
		}
	}
	if n := missing[""]; n > 0 {
		notes = append(notes, fmt.Sprintf("devices declares %d GPUs more than nvidia-smi shows; they are not given out", n))
	}
	asking := 0
	left := slices.Clone(devices) // of what models have that always run
	for i := range c.Models {
		m := &c.Models[i]
		asked := m.Spec.Devices
		if asked.Count == 0 {
			continue
		}
		asking++
		suits := needOf(m)
		if have := suits.most(devices); len(devices) > 0 && have < asked.Count {
			with := ""
			if suits.memory > 0 && (need{asked, 0}).most(devices) > have {
				with = fmt.Sprintf(" with the %s that its weights take of each", humanize.IBytes(uint64(suits.memory)))
			}
			notes = append(notes, fmt.Sprintf("%s asks for %s, and there are %d%s: it cannot start", m.Name, m.Resources.GPU, have, with))
		} else if asked.Share == 0 {
			for range m.Activator.Min {
				if len(devices) > 0 && suits.most(left) < asked.Count {
					notes = append(notes, fmt.Sprintf("%s always runs and asks for %s, which others that always run leave it none of: it cannot start beside them",
						m.Name, m.Resources.GPU))
					break
				}
				left = suits.without(left)
			}
		}
	}
	for i := range c.Models {
		m := &c.Models[i]
		if suits := needOf(m); suits.Count > 0 && m.Activator.Min == 0 && suits.most(devices) >= suits.Count && suits.most(left) < suits.Count {
			notes = append(notes, fmt.Sprintf("%s asks for %s, which models that always run leave it none of: it cannot start beside them", m.Name, m.Resources.GPU))
		}
	}
	if len(devices) == 0 && asking > 0 {
		notes = append(notes, "no GPU is found, so none are shared out; models that ask for some are started all the same. devices: none says that this is meant, a list of devices declares them")
	}
	return notes
}

// need is what one replica asks for: the ledger's rules, for notes.
type need struct {
	backends.Devices
	memory int64 // of each device, in bytes
}

func needOf(m *config.Model) need { return need{m.Spec.Devices, m.LeastMemory()} }

func (n need) suits(d gpu.Device) bool {
	return !d.Missing && (n.Kind == "" || d.Kind == n.Kind) && (n.Count == 1 || !d.Alone) && (d.Memory == 0 || d.Memory >= n.memory)
}

// group: the devices of one replica are of one kind, or of one product.
func (n need) group(d gpu.Device) string {
	switch {
	case n.Count == 1:
		return ""
	case d.Kind != "":
		return d.Kind
	}
	return d.Product
}

// most counts the devices that one replica may have together.
func (n need) most(devices []gpu.Device) int {
	counts, most := map[string]int{}, 0
	for _, d := range devices {
		if n.suits(d) {
			g := n.group(d)
			counts[g]++
			most = max(most, counts[g])
		}
	}
	return most
}

// without takes the devices of one replica away, of those that suit it the last.
func (n need) without(devices []gpu.Device) []gpu.Device {
	counts := map[string]int{}
	for _, d := range devices {
		if n.suits(d) {
			counts[n.group(d)]++
		}
	}
	var out []gpu.Device
	taken, from := 0, ""
	for _, d := range slices.Backward(devices) {
		if g := n.group(d); taken < n.Count && n.suits(d) && counts[g] >= n.Count && (taken == 0 || g == from) {
			taken, from = taken+1, g
			continue
		}
		out = append(out, d)
	}
	slices.Reverse(out)
	return out
}

// openLedger starts the account of GPUs, if there are any.
func (a *App) openLedger(ctx context.Context) error {
	devices, notes, unknown := FindDevices(ctx, a.config, a.opts.SMI)
	for _, n := range notes {
		a.log.Warn("GPUs are not as the configuration has them", "note", n)
	}
	if a.noDevices = unknown; len(devices) == 0 {
		return nil
	}
	shared := make([]ledger.Device, len(devices))
	labels := make([]string, len(devices))
	for i, d := range devices {
		labels[i] = d.Label()
		shared[i] = ledger.Device{ID: d.ID, Label: d.Label(), Kind: d.Kind, Group: d.Product, Alone: d.Alone, Memory: d.Memory, Measured: d.Measured, Missing: d.Missing}
	}
	var err error
	a.ledger, err = ledger.New(ledger.Options{
		Devices: shared, Used: a.opts.SMI.Used, Models: a.activators, Logger: a.log,
		StartTime: func(model string) time.Duration {
			d, _ := a.durations.Estimate(activator.Subject{Model: model}) // as it was last started; 0: never
			return d
		},
	})
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	a.log.Info("GPUs are shared out", "devices", strings.Join(labels, ", "))
	return nil
}

func (a *App) closeLedger() {
	if a.ledger != nil {
		a.ledger.Close()
	}
}

// activators are the ledger's models by that name. It calls with its lock held, so that a.mu must not be held by whoever calls it.
func (a *App) activators(name string) []*activator.Model {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*activator.Model
	if m := a.models[name]; m != nil {
		out = append(out, m.activator)
	}
	for _, m := range a.leaving {
		if m.name == name {
			out = append(out, m.activator)
		}
	}
	return out
}

// setTerms tells the ledger what a model gets, before a replica of it asks.
func (a *App) setTerms(m *config.Model) {
	if a.ledger == nil {
		return
	}
	d := m.Spec.Devices
	a.ledger.SetTerms(m.Name, ledger.Terms{Count: d.Count, Kind: d.Kind, Share: d.Share, Memory: m.LeastMemory(), Priority: m.Priority, Pinned: m.Pinned, Keep: m.Activator.Min})
}

// accounts is activator.Ledger over a ledger, with the failures that clients and operators know.
type accounts struct{ *ledger.Ledger }

func (a accounts) Reserve(ctx context.Context, model string, replica uint64, because func(string)) error {
	err := a.Ledger.Reserve(ctx, model, replica, because)
	var unfit *ledger.UnfitError
	var kept *ledger.KeptError
	switch {
	case errors.As(err, &unfit):
		return &backends.Failure{
			Class: backends.ClassDriver, Permanent: true, Message: "this machine does not have the GPUs that the model asks for",
			Advice: "resources.gpu " + unfit.Error(), Err: err,
		}
	case errors.As(err, &kept):
		return &backends.Failure{
			Class: backends.ClassBusy, Message: kept.Error(),
			Advice: "run one of them on demand, scaling.replicas: [0, 1], or add GPUs", Err: err,
		}
	}
	return err
}

// accountsOf is nil, and not an interface that holds nil, without a ledger.
func accountsOf(l *ledger.Ledger) activator.Ledger {
	if l == nil {
		return nil
	}
	return accounts{l}
}

// placement is where a replica starts.
func (l *launcher) placement(ctx context.Context, id uint64) (backends.Placement, error) {
	if l.noDevices != nil && l.spec.Devices.Count > 0 {
		return backends.Placement{}, &backends.Failure{
			Class: backends.ClassDriver, Message: "this machine's GPUs could not be found when the gateway started",
			Advice: "mend nvidia-smi and start the gateway again, or write devices: none, or a list of devices", Err: l.noDevices,
		}
	}
	if l.ledger == nil {
		return backends.Placement{}, nil
	}
	held, ok := l.ledger.Placement(l.spec.Model, id)
	if !ok {
		return backends.Placement{}, nil // it asked for none
	}
	var p backends.Placement
	for _, d := range held.Devices {
		p.Devices = append(p.Devices, d.ID)
	}
	p.Share = held.Share
	if held.Share == 0 || l.spec.Engine != backends.EngineSGLang {
		return p, nil
	}
	d := held.Devices[0]
	whole := d.Memory - held.Reserved
	free := whole * int64(held.Left) / 1000
	if d.Measured {
		used, err := l.smi.Used(ctx)
		if n, ok := used[d.ID]; err == nil && ok {
			free = d.Memory - n // those beside it may have left something of their shares
		}
	}
	var err error
	p.MemoryFraction, err = memoryFraction(whole, free, held.Share, held.Left)
	return p, err
}

const (
	// leastReserve and reservePart are what stays out of SGLang's static memory, for activations and graphs: its own reserve with the
	// smallest chunk of prefill (512 MiB + 1.5 MiB for each of 2048 tokens), and its fallback fraction of 0.88.
	leastReserve = 3584 << 20
	reservePart  = 0.12
	// leastFraction is what the command line can say: three digits, rounded down.
	leastFraction = 0.001
)

// memoryFraction is the --mem-fraction-static with which an engine takes no more than its share (in thousandths) of a device's memory,
// nor of what is free of it. SGLang takes it of the memory that is free when it starts. left is what is nobody else's, for devices of unknown
// size (memory 0).
func memoryFraction(memory, free int64, share, left int) (float64, error) {
	if memory == 0 {
		return (1 - reservePart) * float64(share) / float64(left), nil
	}
	own := float64(memory) * float64(share) / 1000
	reserve := max(leastReserve, reservePart*own)
	if own <= reserve {
		return 0, &backends.Failure{
			Class: backends.ClassOutOfMemory, Permanent: true, Message: "the model's share of a GPU is too small for any server",
			Advice: fmt.Sprintf("raise gpu_share: %s are kept beside weights and cache, and the share has %s", gib(reserve), gib(own)),
		}
	}
	fraction := (min(own, float64(free)) - reserve) / float64(max(free, 1))
	if fraction < leastFraction {
		return 0, &backends.Failure{
			Class: backends.ClassOutOfMemory, Message: "other programs use the memory of the model's share of a GPU",
			Advice: fmt.Sprintf("end them: %s of the GPU are free, %s are kept beside weights and cache, and the share is %s", gib(float64(free)), gib(reserve), gib(own)),
		}
	}
	return fraction, nil
}

func gib(bytes float64) string { return fmt.Sprintf("%.1f GiB", bytes/(1<<30)) }

// DeviceState is one GPU, as the admin API shows it.
type DeviceState struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Kind   string `json:"kind,omitempty"`
	Memory int64  `json:"memory_bytes,omitempty"`
	// State is usable, settling (the memory of the last holder is not back yet), quarantined or missing.
	State   string        `json:"state"`
	Since   time.Time     `json:"since"`
	Problem string        `json:"problem,omitempty"`
	Holders []HolderState `json:"holders"`
}

// HolderState is a replica on a GPU.
type HolderState struct {
	Model   string    `json:"model"`
	Replica uint64    `json:"replica"`
	Share   float64   `json:"share"` // 1: the whole GPU
	Since   time.Time `json:"since"`
	Leaving bool      `json:"leaving,omitempty"`
}

// devices is who holds what; nil without an account.
func (a *App) devices() []DeviceState {
	if a.ledger == nil {
		return nil
	}
	var out []DeviceState
	for _, d := range a.ledger.Status().Devices {
		s := DeviceState{ID: d.ID, Label: d.Label, Kind: d.Kind, Memory: d.Memory, State: d.Condition, Since: d.Since, Problem: d.Problem, Holders: []HolderState{}}
		for _, h := range d.Holders {
			s.Holders = append(s.Holders, HolderState{Model: h.Model, Replica: h.ID, Share: float64(h.Share) / 1000, Since: h.Since, Leaving: h.Leaving})
		}
		out = append(out, s)
	}
	return out
}
