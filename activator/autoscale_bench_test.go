package activator

import (
	"log/slog"
	"testing"
	"time"
)

// BenchmarkAutoscale is what a model with three replicas costs once a second.
func BenchmarkAutoscale(b *testing.B) {
	c := scaledConfig()
	c.Min = 3
	m := &Model{name: "m", base: time.Now(), log: slog.New(slog.DiscardHandler), mail: newMailbox(), jitter: func() float64 { return 0 }}
	m.open.Store(&openSet{})
	o := &m.owner
	o.init(m, Options{Name: "m", Config: c, Launcher: &fakeLauncher{}})
	defer o.cancel()
	o.core.step(event{kind: evTick}, m.now())
	for id := uint64(1); id <= 3; id++ {
		o.instances[id] = &fakeInstance{exited: make(chan struct{})}
		for _, f := range o.core.step(event{kind: evStarted, id: id}, m.now()) {
			o.do(f, m.now())
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if o.auto != nil {
			o.auto.next = 1
		}
		o.autoscale()
	}
	if s := m.Scaling(); s == nil || s.Want != 3 {
		b.Fatalf("got %+v", s)
	}
}
