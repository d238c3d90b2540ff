package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/activator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shop is some models on some devices, with everything but the engines real. Its methods are called in a synctest bubble.
type shop struct {
	t       *testing.T
	ledger  *Ledger
	machine *machine
	models  map[string]*activator.Model
	engines map[string]*engines
	takes   map[string]time.Duration

	mu sync.Mutex // guards models, engines and takes
}

// machine is what engines run on: it knows who really is on which device.
type machine struct {
	t      *testing.T
	ledger *Ledger
	lag    time.Duration // until memory is back after an engine's end

	mu      sync.Mutex // guards the fields below
	memory  map[string]int64
	running map[Replica]bool
	fail    error
}

func (m *machine) used(context.Context) (map[string]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	out := map[string]int64{}
	for id, n := range m.memory {
		out[id] = n
	}
	return out, nil
}

func (m *machine) set(id string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memory[id] = n
}

const deviceMemory = 80 << 30

// start puts an engine on its devices, which must be its own and empty.
func (m *machine) start(who Replica) Placement {
	p, ok := m.ledger.Placement(who.Model, who.ID)
	if !ok {
		m.t.Errorf("%v starts without devices", who)
	}
	share := int64(whole)
	if p.Share > 0 {
		share = int64(p.Share)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range p.Devices {
		if m.memory[d.ID] += deviceMemory * share / whole; m.memory[d.ID] > deviceMemory+slack {
			m.t.Errorf("%v starts on %s, where %d GiB are in use then", who, d.ID, m.memory[d.ID]>>30)
		}
	}
	m.running[who] = true
	return p
}

func (m *machine) stop(who Replica, p Placement) {
	share := int64(whole)
	if p.Share > 0 {
		share = int64(p.Share)
	}
	m.mu.Lock()
	delete(m.running, who)
	m.mu.Unlock()
	back := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, d := range p.Devices {
			m.memory[d.ID] -= deviceMemory * share / whole
		}
	}
	if m.lag == 0 {
		back()
		return
	}
	time.AfterFunc(m.lag, back)
}

// engines is a Launcher.
type engines struct {
	model   string
	machine *machine
	takes   time.Duration
	starts  atomic.Int64
	fail    atomic.Bool
	latest  atomic.Pointer[engine]
}

type engine struct {
	owner  *engines
	who    Replica
	at     Placement
	exited chan struct{}
	gone   sync.Once
	ended  sync.Once
	cause  atomic.Pointer[error]
	flying atomic.Int64
}

func (e *engines) Launch(ctx context.Context, start activator.Start, _ func(activator.Progress)) (activator.Instance, error) {
	who := Replica{e.model, start.ID}
	at := e.machine.start(who)
	e.starts.Add(1)
	select {
	case <-time.After(e.takes):
	case <-ctx.Done():
		e.machine.stop(who, at)
		return nil, ctx.Err()
	}
	if e.fail.Load() {
		e.machine.stop(who, at)
		return nil, fmt.Errorf("engine of %s broke", e.model)
	}
	n := &engine{owner: e, who: who, at: at, exited: make(chan struct{})}
	e.latest.Store(n)
	return n, nil
}

func (e *engine) Exited() <-chan struct{} { return e.exited }

func (e *engine) Cause() error {
	if err := e.cause.Load(); err != nil {
		return *err
	}
	return nil
}

func (e *engine) crash(err error) {
	e.cause.Store(&err)
	e.gone.Do(func() { close(e.exited) })
}

func (e *engine) Stop(context.Context, bool) error {
	if n := e.flying.Load(); n != 0 && e.cause.Load() == nil {
		e.owner.machine.t.Errorf("%v was stopped with %d requests in flight", e.who, n)
	}
	e.gone.Do(func() { close(e.exited) })
	e.ended.Do(func() { e.owner.machine.stop(e.who, e.at) })
	return nil
}

func (*engine) Sleep(context.Context) error { return nil }
func (*engine) Wake(context.Context) error  { return nil }
func (*engine) Concurrency() int            { return 4 }

// open makes n devices of a kind; measured if lag is not negative.
func open(t *testing.T, n int, kind string, lag time.Duration) *shop {
	s := &shop{t: t, models: map[string]*activator.Model{}, engines: map[string]*engines{}, takes: map[string]time.Duration{}}
	s.machine = &machine{t: t, lag: max(0, lag), memory: map[string]int64{}, running: map[Replica]bool{}}
	var devices []Device
	for i := range n {
		id := fmt.Sprint(i)
		s.machine.memory[id] = 0
		devices = append(devices, Device{ID: id, Label: kind + " " + id, Kind: kind, Memory: deviceMemory, Measured: lag >= 0})
	}
	var err error
	s.ledger, err = New(Options{
		Devices: devices, Used: s.machine.used, Logger: slog.New(slog.DiscardHandler),
		Models: func(name string) []*activator.Model {
			s.mu.Lock()
			defer s.mu.Unlock()
			if m := s.models[name]; m != nil {
				return []*activator.Model{m}
			}
			return nil
		},
		StartTime: func(name string) time.Duration {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.takes[name]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.machine.ledger = s.ledger
	return s
}

// add opens a model. takes is what its starts take, which the ledger has learned already.
func (s *shop) add(name string, takes time.Duration, terms Terms, adjust ...func(*activator.Config)) *activator.Model {
	s.t.Helper()
	c := activator.DefaultConfig()
	c.BackoffMin, c.BackoffMax = time.Second, time.Second
	for _, f := range adjust {
		f(&c)
	}
	terms.Keep = c.Min
	s.mu.Lock()
	s.takes[name] = takes
	s.mu.Unlock()
	s.ledger.SetTerms(name, terms)
	e := &engines{model: name, machine: s.machine, takes: takes}
	m, err := activator.New(activator.Options{Name: name, Config: c, Launcher: e, Ledger: s.ledger})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[name], s.engines[name] = m, e
	return m
}

func (s *shop) close() {
	for _, m := range s.models {
		if err := m.Close(context.Background()); err != nil {
			s.t.Error(err)
		}
	}
	time.Sleep(time.Minute) // memory comes back
	st := s.ledger.Status()
	for _, d := range st.Devices {
		if d.Condition != "usable" || len(d.Holders) > 0 {
			s.t.Errorf("in the end device %s is %s, held by %v", d.ID, d.Condition, d.Holders)
		}
	}
	if len(st.Waiting) > 0 {
		s.t.Errorf("in the end %v wait", st.Waiting)
	}
	s.ledger.Close()
}

// ask sends one request and returns how long it waited; it is answered after the given time.
func (s *shop) ask(model string, answer time.Duration) (waited time.Duration, err error) {
	s.mu.Lock()
	m := s.models[model]
	s.mu.Unlock()
	lease, ok := m.TryAcquire()
	if !ok {
		ticket, err := m.Enqueue(activator.Request{Tenant: "t"})
		if err != nil {
			return 0, err
		}
		<-ticket.Done()
		if lease, err = ticket.Lease(); err != nil {
			return 0, err
		}
	}
	waited = lease.Waited()
	e := lease.Instance().(*engine)
	e.flying.Add(1)
	time.Sleep(answer)
	e.flying.Add(-1)
	lease.Release()
	return waited, nil
}
