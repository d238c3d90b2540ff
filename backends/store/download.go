package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// ErrHashMismatch is a file whose content was twice not what the source says.
var ErrHashMismatch = errors.New("the content does not have the hash that the source lists")

// ErrUnverified is what a Fetch with Options.Unverified ends in.
var ErrUnverified = errors.New("fetched without a check, and not published")

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
	// unclaimed is how many bytes nobody has taken yet, counted in whole chunks and including files that were not opened.
	unclaimed int64
	workers   workers
	blobs     map[string]string // blob by path
}

// download brings the contents of files into the store and returns the blob of each path. budget is asked whether so many bytes may be added.
func (s *Store) download(ctx context.Context, dir *folder, source Source, commit string, files []File, budget func(need int64) error, m *meter) (map[string]string, error) {
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
		t.unclaimed = int64(chunks(t.Size)) * chunk
		d.unclaimed += t.unclaimed
		need += t.Size - onDisk(dir, t.key)
		t.counted = marked(dir.root, t.key, t.Size)
		m.update(func(p *Progress) { p.BytesDone += t.counted })
	}
	// Small files first: they are what an engine looks at first, and large ones keep all connections busy at the end.
	slices.SortFunc(d.todo, func(a, b *transfer) int { return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Path, b.Path)) })
	if err := budget(need); err != nil {
		return nil, err
	}
	// Of each content a file and its lock, and a link for each name.
	if err := s.room(dir.path, need, 2*len(d.todo)+len(files)); err != nil {
		return nil, err
	}

	opened := make(chan *transfer, len(d.todo)) // to be closed whatever happens
	d.work(ctx, opened, func(err error) { cancel(err) })
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
	if s.unverified {
		return nil, ErrUnverified
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

// disk is what tests replace to have it full.
type disk struct {
	free  func(path string) (bytes, files int64, err error)
	write func(f *os.File, p []byte, offset int64) (int, error)
}

var theDisk = disk{free: freeSpace, write: (*os.File).WriteAt}

// freeSpace is what the file system has left for unprivileged users. files is -1 where it sets no limit to their number.
func freeSpace(path string) (bytes, files int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, 0, fmt.Errorf("looking for free space: %w", err)
	}
	files = int64(fs.Ffree)
	if fs.Files == 0 { // btrfs and others
		files = -1
	}
	return int64(fs.Bavail) * fs.Bsize, files, nil
}

// room refuses what the disk cannot take: so many bytes, in so many files more.
func (s *Store) room(path string, need int64, files int) error {
	free, inodes, err := s.disk.free(path)
	if err != nil {
		return err
	}
	if need > 0 && need > free-s.reserve {
		return fmt.Errorf("%w: %s are to be fetched and %s kept free, %s are free on the disk of %s", ErrDiskFull,
			humanize.IBytes(uint64(need)), humanize.IBytes(uint64(s.reserve)), humanize.IBytes(uint64(max(0, free))), path)
	}
	if inodes >= 0 && int64(files) > inodes {
		return fmt.Errorf("%w: %d files are to be made, the file system of %s has room for %d more", ErrDiskFull, files, path, inodes)
	}
	return nil
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
	// Not through root: the hub's client may keep a blob in a store shared among models and a link here. It is only looked at.
	info, err := os.Stat(filepath.Join(d.dir.path, "blobs", blob))
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Size() != t.Size || !info.Mode().IsRegular()) {
		return "", nil
	} else if err != nil {
		return "", err
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
			p.BytesDone += t.Size - t.counted // the rest came elsewhere
		}
		p.BytesDone += t.Size * int64(len(t.paths)-1)
	})
}
