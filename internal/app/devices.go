package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pilotlight/activator"
	"pilotlight/activator/ledger"
	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/internal/config"
)

// FindDevices are the GPUs that a gateway with this configuration shares out, and what an operator should know about them. None:
// nobody keeps account of GPUs, and models that ask for some start without.
func FindDevices(ctx context.Context, c *config.Config, smi gpu.SMI) (devices []gpu.Device, notes []string) {
	if c.Devices.None() {
		return nil, nil
	}
	found, err := smi.List(ctx)
	if err != nil && !errors.Is(err, gpu.ErrNoSMI) {
		notes = append(notes, fmt.Sprintf("GPUs cannot be found: %v", err))
	}
	devices = found
	if !c.Devices.Auto {
		devices = gpu.Settle(c.Devices.List, found)
	}
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
	for i := range c.Models {
		m := &c.Models[i]
		asked := m.Spec.Devices
		if asked.Count == 0 {
			continue
		}
		asking++
		if have := suiting(devices, asked); len(devices) > 0 && have < asked.Count {
			notes = append(notes, fmt.Sprintf("%s asks for %s, and there are %d: it cannot start", m.Name, m.Resources.GPU, have))
		}
	}
	if len(devices) == 0 && asking > 0 {
		notes = append(notes, "no GPU is found, so none are shared out; models that ask for some are started all the same. devices: none says that this is meant, a list of devices declares them")
	}
	return devices, notes
}

// suiting counts the devices that one replica may have together.
func suiting(devices []gpu.Device, asked backends.Devices) int {
	counts, most := map[string]int{}, 0
	for _, d := range devices {
		if d.Missing || asked.Kind != "" && d.Kind != asked.Kind {
			continue
		}
		group := d.Kind
		if group == "" {
			group = d.Product
		}
		counts[group]++
		most = max(most, counts[group])
	}
	return most
}

// openLedger starts the account of GPUs, if there are any.
func (a *App) openLedger(ctx context.Context) error {
	devices, notes := FindDevices(ctx, a.config, a.opts.SMI)
	for _, n := range notes {
		a.log.Warn("GPUs are not as the configuration has them", "note", n)
	}
	if len(devices) == 0 {
		return nil
	}
	shared := make([]ledger.Device, len(devices))
	labels := make([]string, len(devices))
	for i, d := range devices {
		labels[i] = d.Label()
		shared[i] = ledger.Device{ID: d.ID, Label: d.Label(), Kind: d.Kind, Group: d.Product, Memory: d.Memory, Measured: d.Measured, Missing: d.Missing}
	}
	var err error
	a.ledger, err = ledger.New(ledger.Options{
		Devices: shared, Used: a.opts.SMI.Used, Models: a.activators, Logger: a.log,
		StartTime: func(model string) time.Duration {
			d, _, _ := a.durations.Estimate(model, "", "") // as it was last started; 0: never
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
	a.ledger.SetTerms(m.Name, ledger.Terms{Count: d.Count, Kind: d.Kind, Share: d.Share, Priority: m.Priority, Pinned: m.Pinned, Keep: m.Activator.Min})
}

// accounts is activator.Ledger over a ledger, with the failures that clients and operators know.
type accounts struct{ *ledger.Ledger }

func (a accounts) Reserve(ctx context.Context, model string, replica uint64, because func(string)) error {
	err := a.Ledger.Reserve(ctx, model, replica, because)
	var unfit *ledger.UnfitError
	if errors.As(err, &unfit) {
		return &backends.Failure{
			Class: backends.ClassDriver, Permanent: true, Message: "this machine does not have the GPUs that the model asks for",
			Advice: "resources.gpu " + unfit.Error(), Err: err,
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
	if held.Share == 0 || l.spec.Engine != backends.EngineSGLang {
		return p, nil
	}
	d := held.Devices[0]
	free := d.Memory * int64(held.Left) / 1000
	if d.Measured {
		used, err := l.smi.Used(ctx)
		if n, ok := used[d.ID]; err == nil && ok {
			free = d.Memory - n // those beside it may have left something of their shares
		}
	}
	if p.MemoryFraction = memoryFraction(d.Memory, free, held.Share, held.Left); p.MemoryFraction <= 0 {
		return p, &backends.Failure{
			Class: backends.ClassOutOfMemory, Permanent: true, Message: "the model's share of a GPU is too small for any server",
			Advice: fmt.Sprintf("raise gpu_share: %.1f GiB are kept beside weights and cache, and the share has %.1f", float64(leastReserve)/(1<<30),
				float64(d.Memory)*float64(held.Share)/1000/(1<<30)),
		}
	}
	return p, nil
}

const (
	// leastReserve and reservePart are what stays out of SGLang's static memory, for activations and graphs: its own reserve with the
	// smallest chunk of prefill (512 MiB + 1.5 MiB for each of 2048 tokens), and its fallback fraction of 0.88.
	leastReserve = 3584 << 20
	reservePart  = 0.12
	mostFraction = 0.95
)

// memoryFraction is the --mem-fraction-static with which an engine takes no more than its share (in thousandths) of a device. SGLang takes it of
// the memory that is free when it starts. left is what is nobody else's, for devices of unknown size (memory 0).
func memoryFraction(memory, free int64, share, left int) float64 {
	if memory == 0 {
		return (1 - reservePart) * float64(share) / float64(left)
	}
	own := float64(memory) * float64(share) / 1000
	static := own - max(leastReserve, reservePart*own)
	if free <= 0 {
		return 0
	}
	return min(mostFraction, static/float64(free))
}

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
