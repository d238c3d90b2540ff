package store

import (
	"io/fs"
	"os"
	"time"
)

// watchEvery is how often the bytes of a file that another process fetches are looked at.
const watchEvery = 250 * time.Millisecond

// watcher follows a file that another process is fetching, so that those who wait for it see it come. It is used by one goroutine.
type watcher struct {
	download *download
	transfer *transfer
	looked   time.Time // zero: nobody else was found to have it yet
}

// look counts what has come since it last looked.
func (w *watcher) look() {
	first := w.looked.IsZero()
	if !first && time.Since(w.looked) < watchEvery {
		return
	}
	w.looked = time.Now()
	m := w.download.meter
	if first {
		w.download.wait(1)
		m.update(func(p *Progress) { p.Elsewhere++ })
	}
	t := w.transfer
	n := marked(w.download.dir.root, t.key, t.Size)
	if n == 0 {
		n = incomplete(w.download.dir.root, t)
	}
	if first { // it came before we looked
		m.update(func(p *Progress) { p.BytesDone += n - t.counted })
	} else {
		m.elsewhere(n - t.counted)
	}
	t.counted = n
}

// end says that the other process has let go of the file.
func (w *watcher) end() {
	if !w.looked.IsZero() {
		w.download.wait(-1)
		w.download.meter.update(func(p *Progress) { p.Elsewhere-- })
	}
}

// incomplete is how much of a file the hub's client has fetched: it writes in order to blobs/BLOB.RANDOM.incomplete (older ones to
// blobs/BLOB.incomplete) while it holds the blob's lock. Leftovers of killed ones lie there, too, so the newest counts.
func incomplete(root *os.Root, t *transfer) (n int64) {
	names, err := fs.Glob(root.FS(), "blobs/"+t.key+"*.incomplete")
	if err != nil {
		return 0 // a pattern of our own making; and this is only for people to look at
	}
	var newest time.Time
	for _, name := range names {
		if info, err := root.Stat(name); err == nil && info.ModTime().After(newest) {
			newest, n = info.ModTime(), min(info.Size(), t.Size)
		}
	}
	return n
}

// wait counts workers that wait for others, in whose place there may be more.
func (d *download) wait(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.workers.waiting += n
}
