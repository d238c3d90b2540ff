package store

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// ours is the part of a model's folder that the hub's client does not know, on the same file system as its blobs.
	ours     = ".pilotlight"
	partials = ours + "/partial"
	// chunk is the unit of progress that survives this process: a connection that was cut off loses less than this much, and in files
	// without a hash less than durableRun.
	chunk = 1 << 20
	// durableRun is how much of a file without a hash is flushed to disk at a time, before its marks are set.
	durableRun = 8 << 20
)

// partial is an unfinished file: KEY.data of the final size, and (where there are several chunks) KEY.marks, which says for each whether it
// is there. Data is written
// before its mark, so after kill -9 every mark is true; after a power cut one may not be, which the hash at the end finds (where there is no
// hash, data is flushed to disk before its mark).
type partial struct {
	name    string // partials/KEY
	size    int64
	durable bool
	data    *os.File
	marks   *os.File // nil in a file of one chunk
	header  string

	mu      sync.Mutex
	changed *sync.Cond
	done    []bool // guarded by mu, as are the following
	missing int
	aborted bool
}

// openPartial goes on with what lies there, or begins.
func openPartial(root *os.Root, key string, file File) (p *partial, err error) {
	p = &partial{
		name: partials + "/" + key, size: file.Size, durable: !file.hashed(),
		header: marksHeader(file.Size), done: make([]bool, chunks(file.Size)),
	}
	p.changed = sync.NewCond(&p.mu)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.data, err = root.OpenFile(p.name+".data", os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return p, err
	}
	if len(p.done) < 2 { // nothing is worth being remembered of it
		return p, p.reset()
	}
	if p.marks, err = root.OpenFile(p.name+".marks", os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return p, err
	}
	marks, err := io.ReadAll(io.LimitReader(p.marks, int64(len(p.header)+len(p.done)+1)))
	if err != nil {
		return p, err
	}
	info, err := p.data.Stat()
	if err != nil {
		return p, err
	}
	if len(marks) != len(p.header)+len(p.done) || string(marks[:len(p.header)]) != p.header || info.Size() != p.size {
		return p, p.reset()
	}
	for i, m := range marks[len(p.header):] {
		p.done[i] = m == '1'
		if !p.done[i] {
			p.missing++
		}
	}
	return p, nil
}

// marksHeader begins a file of marks; one with another header belongs to another content or program.
func marksHeader(size int64) string { return fmt.Sprintf("pilotlight partial 1 %d %d\n", size, chunk) }

// chunks is how many chunks a file has.
func chunks(size int64) int { return int((size + chunk - 1) / chunk) }

// span is where chunk i of a file lies in it.
func span(i int, size int64) (offset, length int64) {
	offset = int64(i) * chunk
	return offset, min(chunk, size-offset)
}

// marked is how many bytes of a file are marked as fetched, by whichever process: 0 where nothing is.
func marked(root *os.Root, key string, size int64) (n int64) {
	marks, err := root.ReadFile(partials + "/" + key + ".marks")
	header := marksHeader(size)
	if err != nil || len(marks) != len(header)+chunks(size) || string(marks[:len(header)]) != header {
		return 0 // not begun, or just beginning, or ended; this is only for people to look at
	}
	for i, m := range marks[len(header):] {
		if m == '1' {
			_, length := span(i, size)
			n += length
		}
	}
	return n
}

// reset forgets all content. No chunk may be in work.
func (p *partial) reset() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.done)
	p.missing = len(p.done)
	// The marks go first: an end in between must not leave marks for data that is gone.
	if p.marks != nil {
		if err := p.marks.Truncate(0); err != nil {
			return err
		}
	}
	if err := p.data.Truncate(0); err != nil {
		return err
	}
	if err := p.data.Truncate(p.size); err != nil {
		return err
	}
	if p.marks == nil {
		return nil
	}
	marks := append([]byte(p.header), make([]byte, len(p.done))...)
	for i := range p.done {
		marks[len(p.header)+i] = '0'
	}
	_, err := p.marks.WriteAt(marks, 0)
	return err
}

// span is where chunk i lies in the file.
func (p *partial) span(i int) (offset, length int64) { return span(i, p.size) }

// mark records that the chunks from i on and before to have been written, and says whether the last one missing is among them.
func (p *partial) mark(i, to int) (last bool, err error) {
	if p.durable {
		if err := unix.Fdatasync(int(p.data.Fd())); err != nil {
			return false, err
		}
	}
	if p.marks != nil {
		if _, err := p.marks.WriteAt(bytes.Repeat([]byte{'1'}, to-i), int64(len(p.header)+i)); err != nil {
			return false, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; i < to; i++ {
		if !p.done[i] {
			p.done[i] = true
			p.missing--
		}
	}
	p.changed.Broadcast()
	return p.missing == 0, nil
}

// present is how many bytes are there.
func (p *partial) present() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, done := range p.done {
		if done {
			_, length := p.span(i)
			n += length
		}
	}
	return n
}

// gaps are the chunks that are missing.
func (p *partial) gaps() (all []gap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, done := range p.done {
		switch n := len(all); {
		case done:
		case n > 0 && all[n-1].to == i:
			all[n-1].to++
		default:
			all = append(all, gap{i, i + 1})
		}
	}
	return all
}

// step is how many chunks get their marks at once.
func (p *partial) step() int {
	if p.durable {
		return durableRun / chunk
	}
	return 1
}

// newHash is the hash that a file is checked with; without one that the source said, it is the sha256 that will name the blob.
func newHash(f File) hash.Hash {
	if f.SHA256 == "" && f.GitOID != "" {
		h := sha1.New() // git's own; see File.GitOID
		fmt.Fprintf(h, "blob %d\x00", f.Size)
		return h
	}
	return sha256.New()
}

// digest reads the chunks in order as they come in, so that checking costs no time after the last one, and returns the hash in hex. It
// ends with errAborted after abort, and with ErrHashMismatch if the file's Checker says so.
func (p *partial) digest(ctx context.Context, f File) (string, error) {
	h, buffer := newHash(f), make([]byte, min(256<<10, max(1, f.Size)))
	var to io.Writer = h
	var second hash.Hash
	if !f.hashed() && f.Checker != nil {
		if second = f.Checker.Begin(ctx); second != nil {
			to = io.MultiWriter(h, second)
		}
	}
	for i := range p.done {
		p.mu.Lock()
		for !p.done[i] && !p.aborted {
			p.changed.Wait()
		}
		aborted := p.aborted
		p.mu.Unlock()
		if aborted {
			return "", errAborted
		}
		offset, length := p.span(i)
		// The struct hides WriteTo and ReadFrom, which would use buffers of their own.
		if n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.NewSectionReader(p.data, offset, length)}, buffer); err != nil {
			return "", err
		} else if n != length {
			return "", io.ErrUnexpectedEOF
		}
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if f.hashed() || f.Checker == nil {
		return sum, nil
	}
	var also []byte
	if second != nil {
		also = second.Sum(nil)
	}
	return sum, f.Checker.End(ctx, sum, also)
}

var errAborted = errors.New("the download ended before")

// abort ends digest.
func (p *partial) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aborted = true
	p.changed.Broadcast()
}

// publish makes the data the blob of that name.
func (p *partial) publish(root *os.Root, blob string) error {
	if err := p.data.Sync(); err != nil {
		return err
	}
	if err := root.Rename(p.name+".data", "blobs/"+blob); err != nil {
		return err
	}
	if p.marks == nil {
		return nil
	}
	if err := root.Remove(p.name + ".marks"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close leaves the files for the next time.
func (p *partial) close() error {
	var errs []error
	for _, f := range []*os.File{p.data, p.marks} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
