package activator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLauncher starts replicas that are nothing but a record of what was done to them. It fails like the real
// one: with an error and nothing left, also when its context ends.
type fakeLauncher struct {
	takes       time.Duration
	concurrency int
	err         func(n int) error // of the n-th start, counting from 1; nil: none
	phases      []string          // reported at equal distances
	naps        time.Duration     // what falling asleep and waking up take

	mu        sync.Mutex // guards the fields below
	starts    []Start
	cancelled int
	instances []*fakeInstance
}

func (l *fakeLauncher) Launch(ctx context.Context, start Start, progress func(Progress)) (Instance, error) {
	l.mu.Lock()
	l.starts = append(l.starts, start)
	n := len(l.starts)
	l.mu.Unlock()
	pause := l.takes / time.Duration(len(l.phases)+1)
	for i := range len(l.phases) + 1 {
		if i > 0 {
			progress(Progress{Phase: l.phases[i-1], Percent: 100 * float64(i) / float64(len(l.phases)+1)})
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			l.mu.Lock()
			l.cancelled++
			l.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	if l.err != nil {
		if err := l.err(n); err != nil {
			return nil, err
		}
	}
	i := &fakeInstance{id: start.ID, concurrency: l.concurrency, naps: l.naps, exited: make(chan struct{})}
	l.mu.Lock()
	l.instances = append(l.instances, i)
	l.mu.Unlock()
	return i, nil
}

func (l *fakeLauncher) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.starts)
}

// instance is the n-th one that became ready, from 0.
func (l *fakeLauncher) instance(n int) *fakeInstance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.instances[n]
}

type fakeInstance struct {
	id          uint64
	concurrency int
	naps        time.Duration
	failSleep   atomic.Bool
	failWake    atomic.Bool
	hangs       atomic.Bool // falling asleep and waking up take an hour

	exited   chan struct{}
	gone     sync.Once
	cause    atomic.Pointer[error]
	stops    atomic.Int32
	idleStop atomic.Bool
	sleeps   atomic.Int32
	wakes    atomic.Int32
	ended    atomic.Bool // stopped or asleep: no request may be here
	inFlight atomic.Int32
	misused  atomic.Int32
}

func (i *fakeInstance) Exited() <-chan struct{} { return i.exited }

func (i *fakeInstance) Cause() error {
	if err := i.cause.Load(); err != nil {
		return *err
	}
	return nil
}

func (i *fakeInstance) end(err error) {
	i.gone.Do(func() {
		if err != nil {
			i.cause.Store(&err)
		}
		close(i.exited)
	})
}

func (i *fakeInstance) Stop(_ context.Context, idle bool) error {
	i.stops.Add(1)
	i.idleStop.Store(idle)
	i.ended.Store(true)
	if idle && i.inFlight.Load() != 0 && i.Cause() == nil {
		i.misused.Add(1)
	}
	i.end(nil)
	return nil
}

func (i *fakeInstance) Sleep(ctx context.Context) error {
	i.ended.Store(true)
	if i.sleeps.Add(1)-i.wakes.Load() != 1 || i.inFlight.Load() != 0 {
		i.misused.Add(1)
	}
	return i.nap(ctx, &i.failSleep)
}

func (i *fakeInstance) Wake(ctx context.Context) error {
	if i.wakes.Add(1) != i.sleeps.Load() {
		i.misused.Add(1)
	}
	if err := i.nap(ctx, &i.failWake); err != nil {
		return err
	}
	i.ended.Store(false)
	return nil
}

// nap is what falling asleep and waking up take.
func (i *fakeInstance) nap(ctx context.Context, fails *atomic.Bool) error {
	takes := i.naps
	if i.hangs.Load() {
		takes = time.Hour
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fails.Load() {
		return errTest
	}
	return nil
}

func (i *fakeInstance) Concurrency() int { return i.concurrency }

// use is a request on the replica.
func (i *fakeInstance) use(work func()) {
	i.inFlight.Add(1)
	if i.ended.Load() {
		i.misused.Add(1)
	}
	work()
	i.inFlight.Add(-1)
}

var errTest = errors.New("engine said no")

func testConfig() Config {
	c := DefaultConfig()
	c.ScaledownAfter = time.Minute
	return c
}

func newTestModel(t testing.TB, c Config, l Launcher, change ...func(*Options)) *Model {
	t.Helper()
	o := Options{Name: "m", Config: c, Launcher: l, SpecHash: "spec1", Jitter: func() float64 { return 0 }}
	for _, f := range change {
		f(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// scale is an autoscaler's word.
func scale(m *Model, n int) { m.mail.send(event{kind: evScale, n: n}) }

func closeModel(t testing.TB, m *Model) {
	t.Helper()
	if err := m.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
	if r, b := m.queued.requests.Load(), m.queued.bytes.Load(); r != 0 || b != 0 {
		t.Errorf("left in the queue: %d requests, %d bytes", r, b)
	}
}

// enqueue must succeed.
func enqueue(t testing.TB, m *Model, r Request) *Ticket {
	t.Helper()
	k, err := m.Enqueue(r)
	if err != nil {
		t.Fatalf("enqueue: %v", err)
	}
	return k
}

// wait is for the lease, which must come.
func wait(t testing.TB, k *Ticket) *Lease {
	t.Helper()
	<-k.Done()
	l, err := k.Lease()
	if err != nil {
		t.Fatalf("lease: %v", err)
	}
	return &l
}

// acquire takes the warm path, which must be open.
func acquire(t testing.TB, m *Model) *Lease {
	t.Helper()
	l, ok := m.TryAcquire()
	if !ok {
		t.Fatalf("no warm path: %+v", m.Status())
	}
	return &l
}

func wantState(t testing.TB, m *Model, want State) {
	t.Helper()
	if got := m.Status().State; got != want {
		t.Errorf("state is %v, want %v", got, want)
	}
}
