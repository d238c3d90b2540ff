package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
)

// transfer is one content and the paths that have it.
type transfer struct {
	File
	paths []string
	key   string // names the unfinished file and the lock: the blob's name where it is known

	counted  int64 // bytes of it that the meter has; by whoever begins it, then by partial's marks and what comes in
	partial  *partial
	release  func() error
	digest   chan digested
	wait     []int // chunks that nobody has taken; guarded by download.mu, as are the following
	active   int   // workers on it
	single   bool  // the server gives whole files only
	restarts int
}

type digested struct {
	hash string
	err  error
}

func newTransfer(f File) *transfer {
	t := &transfer{File: f, paths: []string{f.Path}, key: cmp.Or(f.SHA256, f.GitOID)}
	if t.key == "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %q", f.Path, f.Size, f.Version))
		t.key = "unnamed-" + hex.EncodeToString(sum[:])
	}
	return t
}

// begin locks and opens a file, and offers what is missing of it.
func (d *download) begin(ctx context.Context, t *transfer, opened chan<- *transfer) (err error) {
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.opening--
		d.changed.Broadcast()
	}()
	watch := watcher{download: d, transfer: t}
	release, err := lock(ctx, filepath.Join(d.dir.locks, t.key+".lock"), watch.look)
	watch.end()
	if err != nil {
		return err
	}
	// While we waited for the lock, its owner may have fetched it.
	if blob, err := d.find(t); err != nil || blob != "" {
		if err == nil {
			d.finished(t, blob)
		}
		return errors.Join(err, release())
	}
	partial, err := openPartial(d.dir.root, t.key, t.File)
	if err != nil {
		return errors.Join(err, release())
	}
	t.partial, t.release = partial, release
	opened <- t
	return d.offer(ctx, t)
}

// offer starts the check of a file and makes its missing chunks available; a file with none is finished at once.
func (d *download) offer(ctx context.Context, t *transfer) error {
	present := t.partial.present()
	d.meter.update(func(p *Progress) { p.BytesDone += present - t.counted })
	t.counted = present
	t.digest = make(chan digested, 1)
	go func(result chan<- digested) {
		hash, err := t.partial.digest(ctx, t.File)
		result <- digested{hash, err}
	}(t.digest)
	var wait []int
	for i, done := range t.partial.done { // nobody changes it yet
		if !done {
			wait = append(wait, i)
		}
	}
	if len(wait) == 0 {
		return d.finish(ctx, t)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t.wait = wait
	d.open = append(d.open, t)
	d.changed.Broadcast()
	return nil
}

// fetchChunk gets one chunk over one connection, going on where a broken one stopped.
func (d *download) fetchChunk(ctx context.Context, t *transfer, i int) error {
	got, last := int64(0), false
	offset, length := t.partial.span(i)
	err := retry(ctx, d.store.backoff, func() (progress bool, err error) {
		n, err := d.copy(ctx, t, offset+got, length-got)
		got += n
		if err == nil {
			last, err = t.partial.mark(i)
		}
		return n > 0, err
	})
	d.mu.Lock()
	t.active--
	if errors.Is(err, errNoRanges) {
		err = nil
		t.single = true
		t.wait = append(t.wait, i)
		if !slices.Contains(d.open, t) {
			d.open = append(d.open, t)
		}
		d.meter.update(func(p *Progress) { p.BytesDone -= got }) // it comes again with the whole file
	}
	d.changed.Broadcast()
	d.mu.Unlock()
	if err != nil || !last {
		return err
	}
	return d.finish(ctx, t)
}

// copy writes a range of the file to disk and returns how much of it came.
func (d *download) copy(ctx context.Context, t *transfer, offset, length int64) (n int64, err error) {
	body, err := d.source.Open(ctx, d.commit, t.File, offset, length)
	if err != nil {
		return 0, err
	}
	defer body.Close() // what was read is read: its error would change nothing
	buffer := make([]byte, min(256<<10, length))
	for n < length {
		r, err := io.ReadAtLeast(body, buffer[:min(int64(len(buffer)), length-n)], 1)
		if r > 0 {
			if _, err := t.partial.data.WriteAt(buffer[:r], offset+n); err != nil {
				return n, err
			}
			n += int64(r)
			d.meter.fetched(int64(r))
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && n < length {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return n, err
		}
	}
	return n, nil
}

// fetchWhole gets missing chunks from a server that gives whole files only. It is alone with the file.
func (d *download) fetchWhole(ctx context.Context, t *transfer, chunks []int) error {
	slices.Sort(chunks)
	last := false
	err := retry(ctx, d.store.backoff, func() (progress bool, err error) {
		before := len(chunks)
		chunks, last, err = d.readWhole(ctx, t, chunks)
		// Fewer missing chunks are progress, though the next try begins at the file's beginning again.
		return len(chunks) < before, err
	})
	d.mu.Lock()
	t.active--
	d.changed.Broadcast()
	d.mu.Unlock()
	if err != nil || !last {
		return err
	}
	return d.finish(ctx, t)
}

// readWhole reads the file from its beginning, keeps the chunks that are missing, and returns those that still are.
func (d *download) readWhole(ctx context.Context, t *transfer, chunks []int) (missing []int, last bool, err error) {
	body, err := d.source.Open(ctx, d.commit, t.File, 0, t.Size)
	if err != nil {
		return chunks, false, err
	}
	defer body.Close() // as in copy
	buffer, at := make([]byte, 256<<10), int64(0)
	for ; len(chunks) > 0; chunks = chunks[1:] {
		offset, length := t.partial.span(chunks[0])
		skipped, err := io.CopyN(io.Discard, body, offset-at)
		d.meter.skipped(skipped)
		if err != nil {
			return chunks, false, ended(err)
		}
		to := io.NewOffsetWriter(t.partial.data, offset)
		n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.LimitReader(body, length)}, buffer)
		d.meter.skipped(n)
		if err != nil || n != length {
			return chunks, false, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		d.meter.update(func(p *Progress) { p.BytesDone += n })
		if last, err = t.partial.mark(chunks[0]); err != nil {
			return chunks, false, err
		}
		at = offset + length
	}
	return nil, last, nil
}

// ended turns an end that came too early into what it is.
func ended(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// finish checks a file that is all there, and publishes it. A wrong one is fetched once more: bytes may have been damaged on their way, or
// by a power cut.
func (d *download) finish(ctx context.Context, t *transfer) error {
	sum := <-t.digest
	t.digest = nil
	blob, wrong := t.key, sum.err
	switch {
	case sum.err != nil && !errors.Is(sum.err, ErrHashMismatch):
		return sum.err
	case sum.err != nil:
	case !t.hashed():
		blob = sum.hash
	case sum.hash != t.key:
		wrong = fmt.Errorf("%w: want %s, got %s", ErrHashMismatch, t.key, sum.hash)
	}
	if wrong != nil {
		if err := t.partial.reset(); err != nil {
			return err
		}
		d.meter.update(func(p *Progress) { p.BytesDone -= t.Size })
		t.counted = 0
		if t.restarts++; t.restarts > 1 {
			return wrong
		}
		d.store.log.Warn("a file is fetched again", "file", t.Path, "error", wrong)
		return d.offer(ctx, t)
	}
	if err := t.partial.publish(d.dir.root, blob); err != nil {
		return err
	}
	if !t.hashed() {
		if err := d.dir.replace(ours+"/named/"+t.key, []byte(blob)); err != nil {
			return err
		}
	}
	d.finished(t, blob)
	return t.end()
}

// end lets go of a file, whether it is finished or not. Calling it again does nothing.
func (t *transfer) end() error {
	if t.release == nil {
		return nil
	}
	t.partial.abort()
	if t.digest != nil {
		<-t.digest
		t.digest = nil
	}
	err := errors.Join(t.partial.close(), t.release())
	t.release = nil
	return err
}
