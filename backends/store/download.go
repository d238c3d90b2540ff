package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrHashMismatch is a file whose content was twice not what the source says.
var ErrHashMismatch = errors.New("the content does not have the hash that the source lists")

// ErrDiskFull is a disk that cannot take what is to be fetched.
var ErrDiskFull = errors.New("not enough disk space")

// download is one run over the files of one model. Its workers take chunks of files that have been opened, and open the next file only
// when there is none, so that few files are open at a time.
type download struct {
	store  *Store
	dir    *folder
	source Source
	commit string
	meter  *meter

	mu      sync.Mutex
	changed *sync.Cond
	todo    []*transfer // not opened yet; guarded by mu, as are the following
	open    []*transfer // with chunks that nobody has taken
	opening int
	blobs   map[string]string // blob by path
}

// transfer is one content and the paths that have it.
type transfer struct {
	File
	paths []string
	key   string // names the unfinished file and the lock: the blob's name where it is known

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

// download brings the contents of files into the store and returns the blob of each path.
func (s *Store) download(ctx context.Context, dir *folder, source Source, commit string, files []File, m *meter) (map[string]string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &download{store: s, dir: dir, source: source, commit: commit, meter: m, blobs: map[string]string{}}
	d.changed = sync.NewCond(&d.mu)
	byKey := map[string]*transfer{}
	total := int64(0)
	for _, f := range files {
		total += f.Size
		t := newTransfer(f)
		if same := byKey[t.key]; same == nil {
			byKey[t.key] = t
		} else if same.Size != t.Size {
			return nil, fmt.Errorf("%w: %q and %q have one hash and two sizes", ErrBadListing, same.Path, t.Path)
		} else {
			same.paths = append(same.paths, f.Path)
		}
	}
	m.update(func(p *Progress) { p.Phase, p.Files, p.Bytes = Downloading, len(files), total })
	need := int64(0)
	for _, t := range byKey {
		if blob, err := d.find(t); err != nil {
			return nil, err
		} else if blob != "" {
			d.finished(t, blob)
			continue
		}
		d.todo = append(d.todo, t)
		need += t.Size - onDisk(dir, t.key)
	}
	// Small files first: they are what an engine looks at first, and large ones keep all connections busy at the end.
	slices.SortFunc(d.todo, func(a, b *transfer) int { return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Path, b.Path)) })
	if err := s.room(dir.path, need); err != nil {
		return nil, err
	}

	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})()
	opened := make(chan *transfer, len(d.todo)) // to be closed whatever happens
	var workers sync.WaitGroup
	for range s.connections {
		workers.Go(func() {
			for ctx.Err() == nil {
				t, chunks, whole, ok := d.next(ctx)
				if !ok {
					return
				}
				var err error
				switch {
				case chunks == nil:
					err = d.begin(ctx, t, opened)
				case whole:
					err = d.fetchWhole(ctx, t, chunks)
				default:
					err = d.fetchChunk(ctx, t, chunks[0])
				}
				if err != nil {
					if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
						err = fmt.Errorf("%w: %w", ErrDiskFull, err)
					}
					cancel(fmt.Errorf("%s: %w", t.Path, err))
				}
			}
		})
	}
	workers.Wait()
	close(opened)
	var errs []error
	if ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	for t := range opened {
		errs = append(errs, t.end())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(d.blobs) != len(files) {
		panic(fmt.Sprintf("BUG: %d of %d files were fetched without an error", len(d.blobs), len(files)))
	}
	return maps.Clone(d.blobs), nil
}

// onDisk is how many bytes of an unfinished file take space already.
func onDisk(dir *folder, key string) int64 {
	var stat unix.Stat_t
	if unix.Stat(filepath.Join(dir.path, partials, key+".data"), &stat) != nil {
		return 0 // not begun
	}
	return min(stat.Blocks*512, stat.Size)
}

// room refuses what the disk cannot take.
func (s *Store) room(path string, need int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return fmt.Errorf("looking for free space: %w", err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > 0 && need+s.reserve > free {
		return fmt.Errorf("%w: %d bytes are to be fetched and %d kept free, %d are free", ErrDiskFull, need, s.reserve, free)
	}
	return nil
}

// next is what a worker does next: a chunk of an open file, all that are missing of one that only comes whole, or (nil chunks) opening one.
func (d *download) next(ctx context.Context) (t *transfer, chunks []int, whole, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ctx.Err() == nil {
		for _, t := range d.open {
			n := 1
			if t.single {
				if t.active > 0 {
					continue // till those that asked for parts have given them back
				}
				n = len(t.wait)
			}
			chunks := t.wait[:n:n]
			t.wait = t.wait[n:]
			t.active++
			if len(t.wait) == 0 {
				d.open = slices.DeleteFunc(d.open, func(o *transfer) bool { return o == t })
			}
			return t, chunks, t.single, true
		}
		if len(d.todo) > 0 {
			t := d.todo[0]
			d.todo = d.todo[1:]
			d.opening++
			return t, nil, false, true
		}
		if d.opening == 0 && len(d.open) == 0 {
			return nil, nil, false, false
		}
		d.changed.Wait()
	}
	return nil, nil, false, false
}

// blobName is the blob that has a transfer's content, or "" while that is not known.
func (d *download) blobName(t *transfer) (string, error) {
	if t.hashed() {
		return t.key, nil
	}
	text, err := d.dir.root.ReadFile(ours + "/named/" + t.key)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isHex(string(text), 64) {
		return "", nil
	}
	return string(text), err
}

// find looks for a blob that is there already. Blobs appear by renaming a whole and verified file, here as in the hub's client.
func (d *download) find(t *transfer) (string, error) {
	blob, err := d.blobName(t)
	if err != nil || blob == "" {
		return "", err
	}
	info, err := d.dir.root.Lstat("blobs/" + blob)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	// The hub's client may keep a blob elsewhere and a link here; its size is checked when the model is looked up.
	if info.Mode().IsRegular() && info.Size() != t.Size {
		return "", nil
	}
	return blob, nil
}

func (d *download) finished(t *transfer, blob string) {
	d.mu.Lock()
	for _, name := range t.paths {
		d.blobs[name] = blob
	}
	d.mu.Unlock()
	d.meter.update(func(p *Progress) {
		p.FilesDone += len(t.paths)
		if t.partial == nil {
			p.BytesDone += t.Size
		}
		p.BytesDone += t.Size * int64(len(t.paths)-1)
	})
}

// begin locks and opens a file, and offers what is missing of it.
func (d *download) begin(ctx context.Context, t *transfer, opened chan<- *transfer) (err error) {
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.opening--
		d.changed.Broadcast()
	}()
	release, err := lock(ctx, filepath.Join(d.dir.locks, t.key+".lock"))
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
	d.meter.update(func(p *Progress) { p.BytesDone += present })
	t.digest = make(chan digested, 1)
	go func(result chan<- digested) {
		hash, err := t.partial.digest(t.File)
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
		d.meter.update(func(p *Progress) { p.BytesDone -= got })
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
			d.meter.update(func(p *Progress) { p.BytesDone += int64(r); p.BytesFetched += int64(r) })
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
		d.meter.update(func(p *Progress) { p.BytesFetched += skipped })
		if err != nil {
			return chunks, false, ended(err)
		}
		to := io.NewOffsetWriter(t.partial.data, offset)
		n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.LimitReader(body, length)}, buffer)
		d.meter.update(func(p *Progress) { p.BytesFetched += n })
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
	if sum.err != nil {
		return sum.err
	}
	blob := t.key
	if !t.hashed() {
		blob = sum.hash
	} else if sum.hash != t.key {
		err := fmt.Errorf("%w: want %s, got %s", ErrHashMismatch, t.key, sum.hash)
		if err := t.partial.reset(); err != nil {
			return err
		}
		d.meter.update(func(p *Progress) { p.BytesDone -= t.Size })
		if t.restarts++; t.restarts > 1 {
			return err
		}
		d.store.log.Warn("a file is fetched again", "file", t.Path, "error", err)
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
