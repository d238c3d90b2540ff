package store

import "sync"

// Phase is what a download is doing.
type Phase int

const (
	Asking      Phase = iota // the source is asked what there is
	Downloading              // files come in, and are verified as they do
	Publishing               // the whole model becomes visible
	Finished                 // it is in the store
)

func (p Phase) String() string {
	return [...]string{"asking", "downloading", "publishing", "finished"}[p]
}

// Progress is how far a download is. Bytes are those of the chosen files.
type Progress struct {
	Phase            Phase
	Files, FilesDone int   // done: verified and in the store
	Bytes, BytesDone int64 // done: on disk, verified or not, also from earlier downloads
	BytesFetched     int64 // came from the source in this download, also those fetched a second time
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

// meter is a Progress that many write.
type meter struct {
	mu  sync.Mutex // guards now
	now Progress
}

func (m *meter) update(change func(*Progress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.now)
}

func (m *meter) phase(p Phase) { m.update(func(now *Progress) { now.Phase = p }) }

func (m *meter) read() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}
