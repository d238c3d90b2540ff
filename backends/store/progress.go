package store

import (
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

// Phase is what a download is doing.
type Phase int

const (
	Asking      Phase = iota // the source is asked what there is
	Downloading              // files come in, and are verified as they do
	Publishing               // the whole model becomes visible
	Pushing                  // it is uploaded to the store's remote
	Finished                 // it is in the store
	Verifying                // what is in the store is read and compared with its hashes (Store.Verify)
)

func (p Phase) String() string {
	return [...]string{"asking", "downloading", "publishing", "pushing", "finished", "verifying"}[p]
}

// Progress is how far a download is. Bytes are those of the chosen files.
type Progress struct {
	Phase            Phase
	Files, FilesDone int   // done: verified and in the store
	Bytes, BytesDone int64 // done: on disk, verified or not, also from earlier downloads and from what another process fetches just now
	BytesFetched     int64 // came from the source in this download, also those fetched a second time
	Elsewhere        int   // files that another process is fetching just now, and that this download waits for
	// Rate is how many bytes a second came in over the last rateWindow, here and in processes that are waited for. 0: none came, or it is
	// too early to say.
	Rate float64
	// ETA is the time until the last byte at that rate, in whole seconds and at least one. 0: not known, because nothing comes in or it is
	// too early to say, or because nothing is left.
	ETA time.Duration
}

// Fraction is from 0 to 1; a download of nothing but empty files goes by files.
func (p Progress) Fraction() float64 {
	switch {
	case p.Phase == Finished:
		return 1
	case p.Bytes > 0:
		return float64(p.BytesDone) / float64(p.Bytes)
	case p.Files > 0:
		return float64(p.FilesDone) / float64(p.Files)
	}
	return 0
}

// String is a short line for people, such as "downloading 42% (1.2 GiB of 2.9 GiB, 34.0 MiB/s, 51s left)". 100% is only said of what is there.
func (p Progress) String() string {
	if p.Phase != Downloading && p.Phase != Verifying {
		return p.Phase.String()
	}
	// Rounded down: the last byte may still be missing at 99.9 %.
	text := fmt.Sprintf("%s %d%% (%s of %s", p.Phase, int(100*p.Fraction()), humanize.IBytes(uint64(p.BytesDone)), humanize.IBytes(uint64(p.Bytes)))
	if p.Rate > 0 {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(p.Rate)))
	}
	if p.ETA > 0 {
		text += fmt.Sprintf(", %s left", p.ETA)
	}
	return text + ")"
}

const (
	// rateWindow smooths the rate: long enough to hide that ranges begin and end, short enough that a stall is seen before people give up.
	rateWindow = 10 * time.Second
	// rateAfter is how long bytes must have come in before a rate is said; connections are slow at first.
	rateAfter = time.Second
	// sampleEvery bounds how many samples a window holds, however many ask.
	sampleEvery = 200 * time.Millisecond
)

// meter is a Progress that many write.
type meter struct {
	mu      sync.Mutex // guards the fields below
	now     Progress   // without Rate and ETA
	arrived int64      // bytes that came in, here and elsewhere; never goes back
	samples []sample   // of arrived, oldest first; the oldest is the last one outside the window, if there is one
}

type sample struct {
	at      time.Time
	arrived int64
}

func (m *meter) update(change func(*Progress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.now)
}

// fetched counts bytes that came from the source for the first time; again counts those that came before.
func (m *meter) fetched(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.BytesDone += n
	m.now.BytesFetched += n
	m.arrived += n
}

// skipped counts bytes that came from the source and are there already.
func (m *meter) skipped(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.BytesFetched += n
	m.arrived += n
}

// elsewhere counts bytes that another process has fetched since it was last looked at; n < 0 is one that began again.
func (m *meter) elsewhere(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.BytesDone += n
	m.arrived += max(0, n)
}

// came is how many bytes came in so far, here and elsewhere.
func (m *meter) came() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.arrived
}

func (m *meter) phase(p Phase) { m.update(func(now *Progress) { now.Phase = p }) }

// read is the progress at a time, which also is when the rate is measured: somebody must read about as often as sampleEvery.
func (m *meter) read(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.now
	if p.Phase != Downloading && p.Phase != Verifying {
		return p
	}
	if m.arrived == 0 {
		m.samples = append(m.samples[:0], sample{now, 0}) // the window begins when the first byte comes
		return p
	}
	if n := len(m.samples); n == 0 || now.Sub(m.samples[n-1].at) >= sampleEvery {
		m.samples = append(m.samples, sample{now, m.arrived})
	}
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= rateWindow {
		m.samples = m.samples[1:]
	}
	first := m.samples[0]
	if took := now.Sub(first.at); took >= rateAfter {
		p.Rate = float64(m.arrived-first.arrived) / took.Seconds()
	}
	if left := float64(p.Bytes - p.BytesDone); p.Rate > 0 && left > 0 {
		// A rate of next to nothing would give a time that no Duration holds; beyond a hundred days nobody is helped by a figure.
		if seconds := left / p.Rate; seconds < 100*24*3600 {
			p.ETA = max(time.Second, time.Duration(seconds*float64(time.Second)).Round(time.Second))
		}
	}
	return p
}
