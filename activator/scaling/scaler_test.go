package scaling

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const start = 60 * time.Second

// scene feeds a Scaler once a second with a fluid model of a fleet: requests arrive at a rate, each is in flight for a while, and a
// replica takes as many at once as it is meant to.
type scene struct {
	t       *testing.T
	scaler  *Scaler
	config  Config
	seen    Observation
	work    float64   // fractions of requests that arrived or finished
	ends    []float64 // when those in flight end, in seconds
	ready   []float64 // when replicas are ready
	service float64
	most    int
}

func newScene(t *testing.T, c Config, service float64) *scene {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &scene{t: t, scaler: s, config: c, service: service}
}

// run lets seconds pass at a rate of arrivals, after at-once arrivals, and returns the last decision.
func (s *scene) run(seconds int, rate float64, atOnce int) Decision {
	var d Decision
	for range seconds {
		s.seen.At += time.Second
		now := s.seen.At.Seconds()
		s.work += rate + float64(atOnce)
		atOnce = 0
		s.seen.Arrived += uint64(s.work)
		s.seen.Queued += int(s.work)
		s.work -= float64(int(s.work))
		left := s.ends[:0]
		for _, end := range s.ends {
			if end > now {
				left = append(left, end)
			}
		}
		s.seen.Finished += uint64(len(s.ends) - len(left))
		s.ends = left
		s.seen.Ready, s.seen.Starting, s.seen.StartLeft = 0, 0, 0
		for _, at := range s.ready {
			if at <= now {
				s.seen.Ready++
				continue
			}
			s.seen.Starting++
			if left := time.Duration((at - now) * float64(time.Second)); s.seen.StartLeft == 0 || left < s.seen.StartLeft {
				s.seen.StartLeft = left
			}
		}
		for s.seen.Queued > 0 && float64(len(s.ends)) < float64(s.seen.Ready)*s.config.Concurrency {
			s.ends = append(s.ends, now+s.service)
			s.seen.Queued--
		}
		s.seen.InFlight, s.seen.StartTime = len(s.ends), start
		d = s.scaler.Observe(s.seen)
		if d.Want < s.config.Min || d.Want > s.config.Max {
			s.t.Fatalf("at %v: wants %d, outside of %d to %d", s.seen.At, d.Want, s.config.Min, s.config.Max)
		}
		for len(s.ready) < d.Want {
			s.ready = append(s.ready, now+start.Seconds())
		}
		s.ready = s.ready[:d.Want]
		s.most = max(s.most, d.Want)
	}
	return d
}

func config() Config {
	return Config{Max: 10, Concurrency: 10, ScaledownAfter: 5 * time.Minute}
}

func TestColdBacklogIsNotLoad(t *testing.T) {
	s := newScene(t, config(), 2)
	s.run(120, 1, 0) // learns that a request takes 2 s: one replica does 5 in a second
	s.run(600, 0, 0)
	if len(s.ready) != 0 {
		t.Fatalf("%d replicas after 10 idle minutes", len(s.ready))
	}
	s.most = 0
	s.run(300, 2, 0) // 120 wait when it is ready: 12 replicas' worth, if that were load
	if s.most != 1 {
		t.Errorf("got up to %d replicas for a load that takes 0.4 of one", s.most)
	}
}

func TestFirstBacklogIsNotLoad(t *testing.T) {
	s := newScene(t, config(), 2) // nothing is known of how long a request takes
	s.run(300, 2, 0)
	if s.most != 1 {
		t.Errorf("got up to %d replicas for a load that takes 0.4 of one", s.most)
	}
}

func TestWhatIsKnownHelpsTheFirstStart(t *testing.T) {
	c := config()
	s := newScene(t, c, 2)
	s.run(50, 20, 0)
	if s.most != 1 {
		t.Fatalf("got up to %d replicas when nothing was known", s.most)
	}
	c.Service = 2 * time.Second
	if s = newScene(t, c, 2); s.run(50, 20, 0).Want < 4 {
		t.Errorf("got %d replicas for a load of 40", s.most)
	}
	s.run(100, 20, 0)
	if got := s.scaler.Service(); got < 1500*time.Millisecond || got > 2500*time.Millisecond {
		t.Errorf("measured %v for 2 s", got)
	}
}

// TestFullReplicasAreNotLongRequests: what waits inside of a replica is no reason to believe that more replicas are needed than that.
func TestFullReplicasAreNotLongRequests(t *testing.T) {
	s, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	o := Observation{Ready: 1, StartTime: start}
	second := func(arrived, finished uint64, inFlight, queued int) {
		o.At += time.Second
		o.Arrived, o.Finished, o.InFlight, o.Queued = o.Arrived+arrived, o.Finished+finished, inFlight, queued
		s.Observe(o)
	}
	for range 200 {
		second(4, 4, 8, 0)
	}
	for i := range 100 { // twice as many in flight as are meant to be, and no faster for it
		second(6, 5, 20, 5+i)
	}
	if got := s.Service(); got < 1900*time.Millisecond || got > 2100*time.Millisecond {
		t.Errorf("got %v in flight, want the 2 s of a replica that is not too full", got)
	}
}

// TestInFlightKeepsButDoesNotGrow: a replica that takes more than it is meant to after a spike is no reason for another when nothing comes.
func TestInFlightKeepsButDoesNotGrow(t *testing.T) {
	c := config()
	c.ScaledownAfter, c.GiveUpEvery, c.BurstFactor = time.Second, time.Second, -1
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	o := Observation{Ready: 2, Arrived: 50, InFlight: 50, StartTime: start}
	for range 300 {
		o.At += time.Second
		if d := s.Observe(o); o.At > 2*time.Minute && d.Want != 2 {
			t.Fatalf("at %v: got %+v for 50 long requests at the 2 replicas that are meant to take 20, want 2", o.At, d)
		}
	}
}

// TestFirstToFinishIsNotTheMeasure: one of 30 that began together is done after a second, which is not 30 seconds for one.
func TestFirstToFinishIsNotTheMeasure(t *testing.T) {
	s, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	s.Observe(Observation{At: time.Second, Ready: 3})
	s.Observe(Observation{At: 2 * time.Second, Ready: 3, Arrived: 30, InFlight: 30})
	s.Observe(Observation{At: 3 * time.Second, Ready: 3, Arrived: 30, InFlight: 29, Finished: 1})
	if got := s.Service(); got > 2*time.Second {
		t.Errorf("measured %v", got)
	}
}

func TestBacklogThatIsDoneInTimeAsksForNothing(t *testing.T) {
	s, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	s.service = 1
	o := Observation{Ready: 1, Queued: 10, StartTime: start} // in 120 s one replica does 1200, of which 1188 are load
	if got := s.backlog(o, 9.9); got != 0 {
		t.Errorf("got %d replicas for what is done in time", got)
	}
	if o.Queued = 100; s.backlog(o, 9.9) != 2 {
		t.Errorf("got %d replicas for what is not, want 2", s.backlog(o, 9.9))
	}
	o.Ready, o.Starting, o.StartLeft = 0, 1, start // in the 60 s that are left it does 600
	if got := s.backlog(o, 1); got != 0 {
		t.Errorf("got %d replicas for what a starting one has done in time", got)
	}
	if o.Queued = 1500; s.backlog(o, 1) != 2 {
		t.Errorf("got %d replicas for what a starting one has not, want 2", s.backlog(o, 1))
	}
}

// TestWhoAsksAgainWhenAnswered: ten who wait for each answer never make more load than the eight places take, and two of them wait always.
func TestWhoAsksAgainWhenAnswered(t *testing.T) {
	for _, known := range []time.Duration{0, 20 * time.Second} {
		s, err := New(Config{Max: 10, Concurrency: 4})
		if err != nil {
			t.Fatal(err)
		}
		o := Observation{Ready: 2, InFlight: 8, Queued: 2, StartTime: known}
		patience := 2 * max(known, 0)
		if known == 0 {
			patience = 2 * DefaultWindow
		}
		for o.At < 10*time.Minute {
			o.At += time.Second
			o.Arrived, o.Finished = o.Arrived+8, o.Finished+8
			d := s.Observe(o)
			if d.Want > 2 {
				if o.At < patience || o.At > patience+5*time.Second || d.Want != 3 || d.Reason != ReasonBacklog {
					t.Errorf("start time %v: got %+v after %v", known, d, o.At)
				}
				break
			}
		}
		if o.At == 10*time.Minute {
			t.Errorf("start time %v: nothing after %v", known, o.At)
		}
		o.Starting = 1 // and no further one before that one has shown what it does
		for range 300 {
			o.At += time.Second
			o.Arrived, o.Finished = o.Arrived+8, o.Finished+8
			if d := s.Observe(o); d.Want > 3 {
				t.Fatalf("start time %v: got %+v while one starts", known, d)
			}
		}
	}
}

// TestTimeInFlightOutlivesTheLoad: what is known of requests does not shrink with what is left of them in the window.
func TestTimeInFlightOutlivesTheLoad(t *testing.T) {
	s := newScene(t, config(), 5)
	s.run(200, 2, 0)
	was := s.scaler.Service()
	s.run(300, 0, 0)
	if is := s.scaler.Service(); is < was-was/10 || was < 4*time.Second {
		t.Errorf("%v in flight, and %v after a while without requests", was, is)
	}
}

// TestAdjustKeepsWhatWasSeen: other bounds are no reason to forget the load, nor to let all go at once that is there.
func TestAdjustKeepsWhatWasSeen(t *testing.T) {
	s := newScene(t, config(), 2)
	s.run(1500, 20, 0)
	top := len(s.ready)
	for _, bounds := range [][2]int{{0, 20}, {2, 12}} {
		c := config()
		c.Min, c.Max = bounds[0], bounds[1]
		if err := s.scaler.Adjust(c); err != nil {
			t.Fatal(err)
		}
		s.config = c
		if d := s.run(5, 20, 0); d.Want != top {
			t.Errorf("%v: got %+v, want the %d of before", bounds, d, top)
		}
	}
	if err := s.scaler.Adjust(Config{}); err == nil {
		t.Error("an impossible configuration was taken")
	}
	c := config()
	c.Max = 3
	if err := s.scaler.Adjust(c); err != nil {
		t.Fatal(err)
	}
	s.config = c
	if d := s.run(5, 20, 0); d.Want != 3 || d.Reason != ReasonMax {
		t.Errorf("got %+v, want no more than 3", d)
	}
}

// TestThoseAtHandCountAsNeeded at the beginning.
func TestThoseAtHandCountAsNeeded(t *testing.T) {
	c := config()
	c.Have = 3
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Hour
	for at := begin; at < begin+c.ScaledownAfter; at += time.Second {
		if d := s.Observe(Observation{At: at, Ready: 3}); d.Want != 3 {
			t.Fatalf("after %v: got %+v, want the 3 that are there", at-begin, d)
		}
	}
	if d := s.Observe(Observation{At: begin + c.ScaledownAfter, Ready: 3}); d.Want != 2 {
		t.Errorf("got %+v when the time is up, want 2", d)
	}
}

func TestSpikeIsWorkedOff(t *testing.T) {
	s := newScene(t, config(), 2)
	s.run(300, 1, 0)
	s.run(300, 1, 200) // 40 s for one replica: less than a start
	if s.most != 1 {
		t.Errorf("got up to %d replicas for what one had done before a second was ready", s.most)
	}
	s.run(1, 1, 2000) // 400 s for one replica
	if d := s.run(3, 1, 0); d.Want < 3 {
		t.Errorf("got %+v for 400 s of work, want several replicas", d)
	}
}

func TestLoadOverTheWindow(t *testing.T) {
	s := newScene(t, config(), 2)
	s.run(300, 4, 0)
	if d := s.run(300, 7, 0); d.Want != 2 {
		t.Errorf("got %+v for a load of 14, want 2 replicas", d)
	}
}

func TestBurstCountsAtOnce(t *testing.T) {
	c := config()
	c.Patience = -1
	s := newScene(t, c, 2)
	s.run(300, 2, 0)
	d := s.run(8, 30, 0)
	if d.Want < 5 || d.Want > 7 || d.Reason != ReasonBurst && d.Reason != ReasonHeld {
		t.Errorf("8 s after the load rose to 60: got %+v, want about 6 replicas by burst", d)
	}
	if d.Load >= 20 {
		t.Errorf("the average is %v already, so this shows nothing", d.Load)
	}
	c.BurstFactor = -1
	calm := newScene(t, c, 2)
	calm.run(300, 2, 0)
	if d := calm.run(8, 30, 0); d.Want >= 5 {
		t.Errorf("without burst mode: got %+v", d)
	}
}

func TestSurplusGoesOneByOne(t *testing.T) {
	c := config()
	c.GiveUpEvery = 30 * time.Second
	s := newScene(t, c, 2)
	s.run(1500, 20, 0) // what the beginning took for a burst is forgotten
	top := len(s.ready)
	if top < 4 {
		t.Fatalf("%d replicas for a load of 40", top)
	}
	s.run(290, 1, 0)
	if len(s.ready) != top {
		t.Fatalf("%d of %d replicas left before the time was up", len(s.ready), top)
	}
	last, lastAt, gone := top, time.Duration(0), 0
	for range 600 {
		s.run(1, 1, 0)
		if n := len(s.ready); n != last {
			if last-n != 1 || lastAt != 0 && s.seen.At-lastAt < c.GiveUpEvery {
				t.Errorf("from %d to %d replicas %v after the last", last, n, s.seen.At-lastAt)
			}
			last, lastAt = n, s.seen.At
			gone++
		}
	}
	if last != 1 || gone != top-1 {
		t.Errorf("%d replicas in the end, want 1", last)
	}
}

func TestIdleGoesToMin(t *testing.T) {
	for _, least := range []int{0, 1, 2} {
		c := config()
		c.Min = least
		s := newScene(t, c, 2)
		s.run(200, 1, 0)
		if s.run(295, 0, 0); len(s.ready) != max(1, least) {
			t.Errorf("min %d: %d replicas before the time is up", least, len(s.ready))
		}
		if d := s.run(20, 0, 0); d.Want != least {
			t.Errorf("min %d: got %+v after the time is up", least, d)
		}
	}
}

func TestRequestRate(t *testing.T) {
	s, err := New(Config{Max: 10, RequestRate: 5})
	if err != nil {
		t.Fatal(err)
	}
	var d Decision
	for i := range 120 {
		d = s.Observe(Observation{At: time.Duration(i) * time.Second, Arrived: uint64(i) * 12, Finished: uint64(i) * 12, Ready: 3})
	}
	if d.Want != 3 || d.Load < 11.5 || d.Load > 12.5 {
		t.Errorf("12 in a second: got %+v, want 3 replicas", d)
	}
}

func TestDevicesBound(t *testing.T) {
	s := newScene(t, config(), 2)
	s.seen.Ceiling = 2
	d := s.run(600, 20, 0)
	if d.Want != 2 || d.Reason != ReasonDevices {
		t.Errorf("got %+v, want the 2 that there are devices for", d)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	_, err := New(Config{Min: 3, Max: 0, Concurrency: 1, RequestRate: 1, Window: -1, ScaledownAfter: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"max is 0", "min is 3", "exactly one", "the window is", "scale-down time"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// TestAnything: whatever is seen, the answer stays in its bounds, falls by at most one, and its numbers are numbers.
func TestAnything(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		c := Config{Max: 1 + r.IntN(8), Window: time.Duration(1+r.IntN(100)) * time.Second, ScaledownAfter: time.Duration(r.IntN(400)) * time.Second}
		c.Min = r.IntN(c.Max + 1)
		if r.IntN(2) == 0 {
			c.Concurrency = 0.5 + 30*r.Float64()
		} else {
			c.RequestRate = 0.1 + 30*r.Float64()
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		var o Observation
		last := c.Min
		for range 200 {
			o.At += time.Duration(r.Int64N(int64(20 * time.Second)))
			o.Arrived += r.Uint64N(100)
			if o.Arrived > 0 {
				o.Finished = r.Uint64N(o.Arrived)
			}
			o.InFlight, o.Queued, o.Ready, o.Starting = r.IntN(100), r.IntN(1000), r.IntN(9), r.IntN(3)
			o.StartTime, o.StartLeft = time.Duration(r.IntN(300))*time.Second, time.Duration(r.IntN(300))*time.Second
			d := s.Observe(o)
			if d.Want < c.Min || d.Want > c.Max || d.Want < last-1 || !(d.Load >= 0) || !(d.Burst >= 0) {
				t.Fatalf("seed %d: %+v after %d, config %+v, observation %+v", seed, d, last, c, o)
			}
			last = d.Want
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	s, err := New(config())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	o := Observation{Ready: 3, StartTime: start}
	for b.Loop() {
		o.At += time.Second
		o.Arrived, o.Finished, o.InFlight = o.Arrived+7, o.Finished+7, 14
		s.Observe(o)
	}
}
