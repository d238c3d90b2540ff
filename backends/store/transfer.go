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

	unclaimed int64 // its part of download.unclaimed until it is offered
	counted   int64 // bytes of it that the meter has; by whoever begins it, then by partial's marks and what comes in
	partial   *partial
	release   func() error
	digest    chan digested
	wait      []gap // chunks that nobody has taken; guarded by download.mu, as are the following
	active    int   // workers on it
	single    bool  // the server gives whole files only
	restarts  int
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
	watch := watcher{download: d, transfer: t}
	release, err := lock(ctx, filepath.Join(d.dir.locks, t.key+".lock"), watch.look)
	watch.end()
	if err != nil {
		return err
	}
	// While we waited for the lock, its owner may have fetched it.
	if blob, err := d.find(t); err != nil || blob != "" {
		d.mu.Lock()
		d.unclaimed -= t.unclaimed
		d.mu.Unlock()
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
	if !d.store.unverified {
		t.digest = make(chan digested, 1)
		go func(result chan<- digested) {
			hash, err := t.partial.digest(ctx, t.File)
			result <- digested{hash, err}
		}(t.digest)
	}
	wait, missing := t.partial.gaps(), int64(0)
	for _, g := range wait {
		missing += int64(g.to-g.from) * chunk
	}
	if len(wait) == 0 {
		return d.finish(ctx, t)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t.wait = wait
	d.unclaimed += missing - t.unclaimed
	t.unclaimed = 0
	d.open = append(d.open, t)
	d.changed.Broadcast()
	return nil
}

// fetchRun gets consecutive chunks over one connection, going on where a broken one stopped.
func (d *download) fetchRun(ctx context.Context, r *run, buffer []byte) error {
	t := r.t
	at, _ := t.partial.span(r.from)
	marked, last := r.from, false // the chunk up to which marks are set
	err := retry(ctx, d.store.backoff, func() (progress bool, err error) {
		from := at
		var now bool
		marked, now, err = d.copy(ctx, r, &at, marked, buffer)
		last = last || now
		d.press(err)
		return at > from, err
	})
	d.mu.Lock()
	t.active--
	d.workers.runs = slices.DeleteFunc(d.workers.runs, func(o *run) bool { return o == r })
	if errors.Is(err, errNoRanges) {
		err = nil
		t.single = true
		t.wait = append(t.wait, gap{marked, r.to})
		d.unclaimed += int64(r.to-marked) * chunk
		if !slices.Contains(d.open, t) {
			d.open = append(d.open, t)
		}
		begun, _ := t.partial.span(marked)
		d.meter.update(func(p *Progress) { p.BytesDone -= at - begun }) // it comes again with the whole file
	}
	d.changed.Broadcast()
	d.mu.Unlock()
	if err != nil || !last {
		return err
	}
	return d.finish(ctx, t)
}

// limit is where a run ends by now, in bytes; at is the chunk that it has come to.
func (d *download) limit(r *run, at int) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.at = min(at, r.to-1)
	offset, length := r.t.partial.span(r.to - 1)
	return offset + length
}

// copy writes a run to disk from at on, which it moves on, as it does marked; last says that the file has no gaps any more.
func (d *download) copy(ctx context.Context, r *run, at *int64, marked int, buffer []byte) (_ int, last bool, err error) {
	t := r.t
	end := d.limit(r, marked)
	body, err := d.source.Open(ctx, d.commit, t.File, *at, end-*at)
	if err != nil {
		return marked, false, err
	}
	defer body.Close() // what was read is read: its error would change nothing
	// How far the file must be for the next mark: a chunk, or more where a mark costs a flush.
	step := t.partial.step()
	next := func() int64 { return min(end, int64(marked+step)*chunk) }
	for mark := next(); *at < end; {
		n, err := body.Read(buffer[:min(int64(len(buffer)), mark-*at)])
		if n > 0 {
			if _, err := d.store.disk.write(t.partial.data, buffer[:n], *at); err != nil {
				return marked, last, err
			}
			*at += int64(n)
			d.meter.fetched(int64(n))
		}
		if *at == mark {
			to := chunks(*at) // *at ends a chunk, be it the file's shorter last one
			now, err := t.partial.mark(marked, to)
			if err != nil {
				return marked, last, err
			}
			marked, last = to, last || now
			end = d.limit(r, to)
			mark = next()
			continue
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return marked, last, ended(err)
		}
	}
	return marked, last, nil
}

// fetchWhole gets missing chunks from a server that gives whole files only. It is alone with the file.
func (d *download) fetchWhole(ctx context.Context, r *run, buffer []byte) error {
	t, step := r.t, r.t.partial.step()
	slices.SortFunc(r.whole, func(a, b gap) int { return cmp.Compare(a.from, b.from) })
	var parts []gap // of a mark each
	for _, g := range r.whole {
		for ; g.to-g.from > step; g.from += step {
			parts = append(parts, gap{g.from, g.from + step})
		}
		parts = append(parts, g)
	}
	last := false
	err := retry(ctx, d.store.backoff, func() (progress bool, err error) {
		before := len(parts)
		parts, last, err = d.readWhole(ctx, t, parts, buffer)
		d.press(err)
		// Fewer missing parts are progress, though the next try begins at the file's beginning again.
		return len(parts) < before, err
	})
	d.mu.Lock()
	t.active--
	d.mu.Unlock()
	if err != nil || !last {
		return err
	}
	return d.finish(ctx, t)
}

// readWhole reads the file from its beginning, keeps the parts that are missing, and returns those that still are.
func (d *download) readWhole(ctx context.Context, t *transfer, parts []gap, buffer []byte) (missing []gap, last bool, err error) {
	body, err := d.source.Open(ctx, d.commit, t.File, 0, t.Size)
	if err != nil {
		return parts, false, err
	}
	defer body.Close() // as in copy
	at := int64(0)
	for ; len(parts) > 0; parts = parts[1:] {
		offset, _ := t.partial.span(parts[0].from)
		end, length := t.partial.span(parts[0].to - 1)
		end += length
		// The structs hide WriteTo and ReadFrom, which would use buffers of their own.
		skipped, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(body, offset-at)}, buffer)
		d.meter.skipped(skipped)
		if err != nil || skipped != offset-at {
			return parts, false, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		to := io.NewOffsetWriter(t.partial.data, offset)
		n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.LimitReader(body, end-offset)}, buffer)
		d.meter.skipped(n)
		if err != nil || n != end-offset {
			return parts, false, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		d.meter.update(func(p *Progress) { p.BytesDone += n })
		if last, err = t.partial.mark(parts[0].from, parts[0].to); err != nil {
			return parts, false, err
		}
		at = end
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
	if d.store.unverified {
		d.finished(t, "")
		return errors.Join(t.partial.data.Sync(), t.end())
	}
	var sum digested
	select {
	case sum = <-t.digest:
	case <-ctx.Done(): // much of a file that lay there may not have been read yet
		return context.Cause(ctx)
	}
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
