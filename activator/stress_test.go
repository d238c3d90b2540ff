package activator

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRequestsAgainstEvictions hammers models whose replicas idle out after a millisecond or a few, in real
// time: every request is served, and none meets a replica that is stopped or asleep.
func TestRequestsAgainstEvictions(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	const workers = 2 // more of them would hardly ever all be idle
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"1ms", func(c *Config) { c.ScaledownAfter = time.Millisecond }},
		{"5ms", func(c *Config) { c.ScaledownAfter = 5 * time.Millisecond }},
		{"at once", func(c *Config) { c.ScaledownAfter = 0 }},
		{"asleep", func(c *Config) { c.SleepAfter, c.ScaledownAfter = time.Millisecond, 3*time.Millisecond }},
		{"two replicas", func(c *Config) { c.Max, c.Min, c.ScaledownAfter = 2, 1, time.Millisecond }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := testConfig()
			c.Concurrency = 2
			tt.change(&c)
			idle := c.ScaledownAfter
			if c.SleepAfter > 0 {
				idle = c.SleepAfter
			}
			l := &fakeLauncher{takes: 500 * time.Microsecond, naps: 200 * time.Microsecond}
			m := newTestModel(t, c, l)
			var served, cancelled atomic.Int32
			var wg sync.WaitGroup
			stop := make(chan struct{})
			if c.Max > 1 {
				wg.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						case <-time.After(2 * time.Millisecond):
							scale(m, n%3)
						}
					}
				})
			}
			var requests sync.WaitGroup
			for worker := range workers {
				random := rand.New(rand.NewPCG(uint64(worker), 7))
				requests.Go(func() {
					for range rounds {
						lease, ok := m.TryAcquire()
						if !ok {
							k, err := m.Enqueue(Request{Tenant: string(rune('a' + worker)), Bytes: 3})
							if err != nil {
								t.Errorf("enqueue: %v", err)
								return
							}
							if random.IntN(10) == 0 {
								time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond)
								k.Cancel()
								cancelled.Add(1)
								continue
							}
							<-k.Done()
							if lease, err = k.Lease(); err != nil {
								t.Errorf("lease: %v", err)
								return
							}
						}
						lease.Instance().(*fakeInstance).use(func() {
							if random.IntN(2) == 0 {
								time.Sleep(time.Duration(random.IntN(200)) * time.Microsecond)
							}
						})
						lease.Release()
						served.Add(1)
						// Come back about when the idle time is over.
						time.Sleep(idle + time.Duration(random.IntN(600)-400)*time.Microsecond)
					}
				})
			}
			requests.Wait()
			close(stop)
			wg.Wait()
			closeModel(t, m)
			s := m.Status()
			if n := served.Load() + cancelled.Load(); int(n) != workers*rounds {
				t.Errorf("%d of %d requests came to an end", n, workers*rounds)
			}
			for _, i := range l.instances {
				if n := i.misused.Load(); n != 0 || i.inFlight.Load() != 0 || i.stops.Load() != 1 {
					t.Errorf("replica %d: misused %d times, %d in flight, stopped %d times", i.id, n, i.inFlight.Load(), i.stops.Load())
				}
			}
			if s.Starts != uint64(l.count()) || s.StartFailures != 0 || s.Ignored != 0 {
				t.Errorf("%d starts, counters %+v", l.count(), s.Counters)
			}
			t.Logf("%d served, %d cancelled, %+v", served.Load(), cancelled.Load(), s.Counters)
		})
	}
}
