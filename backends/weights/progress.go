package weights

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"pilotlight/backends/store"
)

// Progress is how far a download is, and how fast.
type Progress struct {
	store.Progress
	Rate float64       // bytes per second, over the last paceOver; 0: not known
	Left time.Duration // at that rate; 0: not known
}

// Detail is the progress in words, without the percentage: "1.2 GB of 4.1 GB, 85 MB/s, 34 s left".
func (p Progress) Detail() string {
	switch {
	case p.Phase == store.Asking:
		return "asking what there is"
	case p.Phase != store.Downloading && p.Phase != store.Pushing || p.Bytes == 0:
		return ""
	}
	text := humanize.Bytes(uint64(p.BytesDone)) + " of " + humanize.Bytes(uint64(p.Bytes))
	if p.Rate > 0 {
		text += ", " + humanize.Bytes(uint64(p.Rate)) + "/s"
	}
	if p.Left > 0 {
		text += fmt.Sprintf(", %s left", p.Left.Round(time.Second))
	}
	return text
}

const (
	// paceOver is what a rate is measured over: long enough for chunks of 8 MiB on slow lines, short enough to follow a change.
	paceOver = 10 * time.Second
	paceStep = 250 * time.Millisecond // between two samples that are kept
)

// pace measures a download's rate. The zero value is ready; it is not safe for concurrent use.
type pace struct {
	last    Progress
	samples []sample
}

type sample struct {
	at    time.Duration
	bytes int64
}

// note takes one report, at a time since the beginning.
func (p *pace) note(now store.Progress, at time.Duration) Progress {
	p.last = Progress{Progress: now}
	if now.Phase != store.Downloading && now.Phase != store.Pushing {
		return p.last
	}
	if n := len(p.samples); n == 0 || at-p.samples[n-1].at >= paceStep {
		p.samples = append(p.samples, sample{at, now.BytesDone})
	}
	for len(p.samples) > 1 && at-p.samples[0].at > paceOver {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	if gone := at - first.at; gone >= paceStep && now.BytesDone > first.bytes {
		p.last.Rate = float64(now.BytesDone-first.bytes) / gone.Seconds()
		p.last.Left = time.Duration(float64(now.Bytes-now.BytesDone) / p.last.Rate * float64(time.Second))
	}
	return p.last
}
