package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pilotlight/activator/ledger"
	"pilotlight/backends/gpu"
)

// errNoSleep cannot happen: the configuration lets only engines of the process driver sleep.
var errNoSleep = errors.New("BUG: this driver puts no replicas to sleep")

// memory is what is in use of some GPUs.
type memory struct {
	used    func(context.Context) (map[string]int64, error)
	devices []string // by the names that used knows; none: nothing can be measured
}

// memoryOf is that of the GPUs that a replica holds to itself. l may be nil.
func memoryOf(l *ledger.Ledger, smi gpu.SMI, model string, replica uint64) memory {
	m := memory{used: smi.Used}
	if l == nil {
		return m
	}
	held, ok := l.Placement(model, replica)
	for _, d := range held.Devices {
		if !ok || !d.Measured || held.Share > 0 {
			return m
		}
		m.devices = append(m.devices, d.ID)
	}
	return m
}

// read is the sum over the devices; false: it cannot be measured now.
func (m memory) read(ctx context.Context) (int64, bool) {
	if len(m.devices) == 0 {
		return 0, false
	}
	used, err := m.used(ctx)
	var sum int64
	for _, id := range m.devices {
		n, ok := used[id]
		if err != nil || !ok {
			return 0, false
		}
		sum += n
	}
	return sum, true
}

const (
	// leastFreed is less than any KV cache has, and more than a driver's figure changes by itself.
	leastFreed = 64 << 20
	// freedWithin is how long memory may take to come back: old releases of SGLang answer before it has.
	freedWithin = 5 * time.Second
	freedPause  = 100 * time.Millisecond
)

// Sleep is activator.Instance's. Where the GPUs can be measured, an engine that says that it sleeps and gives nothing back has failed.
func (i *instance) Sleep(ctx context.Context) error {
	s, ok := i.replica.(sleeper)
	if !ok {
		return errNoSleep
	}
	before, measured := i.memory.read(ctx)
	if err := s.Sleep(ctx); err != nil || !measured {
		return err
	}
	for began := time.Now(); ; {
		now, ok := i.memory.read(ctx)
		if !ok {
			return nil
		}
		if freed := before - now; freed >= leastFreed {
			i.freed.Store(freed)
			return nil
		}
		if time.Since(began) > freedWithin {
			return fmt.Errorf("the engine says that it sleeps, and its GPUs have %d bytes in use, %d before", now, before)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(freedPause):
		}
	}
}

// Wake is activator.Instance's.
func (i *instance) Wake(ctx context.Context) error {
	s, ok := i.replica.(sleeper)
	if !ok {
		return errNoSleep
	}
	err := s.Wake(ctx)
	if err == nil {
		i.freed.Store(0)
	}
	return err
}
