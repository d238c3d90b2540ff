package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what Verify found.
type Report struct {
	Repo, Commit string
	Files        int       // that were looked at
	Bytes        int64     // that were read; a content that several files share is read once
	Problems     []Problem // by path
	// Unchecked are files that are there, and of which neither a listing nor the content's name says a hash.
	Unchecked []string
}

// OK says that all is there and right, as far as it could be checked.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Fault is what is wrong with a file.
type Fault string

// The faults that Verify tells apart.
const (
	Missing    Fault = "missing"
	WrongSize  Fault = "of the wrong size"
	Wrong      Fault = "wrong" // its content has another hash
	Unreadable Fault = "not readable"
)

// Problem is one file that is not as it should be.
type Problem struct {
	Path   string
	Fault  Fault
	Detail string // figures, for people
	blob   string // what Discard takes away; "" is nothing
}

// Verify reads all chosen files of a revision ("" is "main") and compares them with the hashes that its listing has, or where there is none
// with those that contents are named by. It asks no source, changes nothing, and does not count as a use. What is wrong is in the report; the
// error is ErrIncomplete where the revision is not in the store at all. progress, if not nil, is called about five times a second and at the
// end.
func (s *Store) Verify(ctx context.Context, repo, revision string, filter Filter, progress func(Progress)) (_ Report, err error) {
	if err := errors.Join(CheckRepo(repo), filter.Check()); err != nil {
		return Report{}, err
	}
	if _, commit, err := s.commitOf(repo, cmp.Or(revision, "main")); err != nil {
		return Report{}, err
	} else if _, err := os.Stat(filepath.Join(folderPath(s.path, repo), "snapshots", commit)); errors.Is(err, fs.ErrNotExist) {
		return Report{}, fmt.Errorf("%s at %s: %w", repo, commit, ErrIncomplete) // before a folder is made for the use
	}
	use, err := s.use(ctx, repo, User{Who: "a verification"}, false)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, use.Close()) }()
	dir, commit, err := s.commitOf(repo, cmp.Or(revision, "main"))
	if err != nil {
		return Report{}, err
	}
	found := Snapshot{Repo: repo, Commit: commit, Path: filepath.Join(dir, "snapshots", commit)}
	list, err := readTree(dir, commit)
	if errors.Is(err, fs.ErrNotExist) {
		list, err = walkSnapshot(found.Path)
	}
	if err != nil {
		return Report{}, err
	}
	files := filter.choose(list.Files)
	if len(files) == 0 {
		return Report{}, fmt.Errorf("%s at %s: %w", repo, commit, ErrIncomplete)
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	return verify(ctx, found, files, progress)
}

// content is what Verify reads once.
type content struct {
	File         // with the hash to compare with, if any is known
	at    string // where to read it
	blob  string
	paths []string
}

func verify(ctx context.Context, found Snapshot, files []File, progress func(Progress)) (Report, error) {
	report := Report{Repo: found.Repo, Commit: found.Commit, Files: len(files)}
	contents, total := []*content{}, int64(0)
	known := map[string]*content{}
	for _, f := range files {
		c := &content{File: f, at: filepath.Join(found.Path, filepath.FromSlash(f.Path)), paths: []string{f.Path}}
		if to, err := os.Readlink(c.at); err == nil {
			c.blob = path.Base(filepath.ToSlash(to))
		}
		if !c.hashed() && isHex(c.blob, 64) {
			c.SHA256 = c.blob
		} else if !c.hashed() && isHex(c.blob, 40) {
			c.GitOID = c.blob
		}
		key := fmt.Sprint(c.blob, " ", c.Size, " ", cmp.Or(c.SHA256, c.GitOID))
		if same := known[key]; same != nil && c.blob != "" {
			same.paths = append(same.paths, f.Path)
			continue
		}
		known[key] = c
		contents = append(contents, c)
		total += c.Size
	}
	// Large ones first, so that no processor is left with one in the end.
	slices.SortFunc(contents, func(a, b *content) int { return cmp.Compare(b.Size, a.Size) })
	m := &meter{now: Progress{Phase: Verifying, Files: len(files), Bytes: total}}

	var mu sync.Mutex // guards report
	next := make(chan *content)
	var workers sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) { // two also on one processor: one may wait for the disk
		workers.Go(func() {
			for c := range next {
				read, problem := c.check(ctx, m)
				mu.Lock()
				report.Bytes += read
				for _, name := range c.paths {
					switch {
					case problem != nil:
						report.Problems = append(report.Problems, Problem{name, problem.Fault, problem.Detail, problem.blob})
					case !c.hashed():
						report.Unchecked = append(report.Unchecked, name)
					}
				}
				mu.Unlock()
				m.update(func(p *Progress) { p.FilesDone += len(c.paths) })
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, c := range contents {
			select {
			case next <- c:
				continue
			case <-ctx.Done():
			}
			break
		}
		close(next)
		workers.Wait()
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			progress(m.read(time.Now()))
			continue
		case <-done:
		}
		break
	}
	if ctx.Err() != nil {
		return Report{}, context.Cause(ctx)
	}
	m.phase(Finished)
	progress(m.read(time.Now()))
	slices.SortFunc(report.Problems, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	slices.Sort(report.Unchecked)
	return report, nil
}

// check reads one content and returns what is wrong with it, nil if nothing is.
func (c *content) check(ctx context.Context, m *meter) (read int64, _ *Problem) {
	counted := int64(0)
	defer func() { m.update(func(p *Progress) { p.BytesDone += c.Size - counted }) }() // what need not be read is done as well
	f, err := openUnnoticed(c.at)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, &Problem{Fault: Missing, Detail: "it is listed and not there"}
	} else if err != nil {
		return 0, &Problem{Fault: Unreadable, Detail: err.Error()}
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return 0, &Problem{Fault: Unreadable, Detail: err.Error()}
	}
	if !info.Mode().IsRegular() || info.Size() != c.Size {
		return 0, &Problem{Fault: WrongSize, Detail: fmt.Sprintf("%d bytes are listed, %d are there", c.Size, info.Size()), blob: c.blob}
	}
	if !c.hashed() {
		return 0, nil
	}
	h, buffer := newHash(c.File), make([]byte, min(1<<20, max(1, c.Size)))
	for ctx.Err() == nil {
		n, err := f.Read(buffer)
		h.Write(buffer[:n])
		read += int64(n)
		if now := min(int64(n), c.Size-counted); now > 0 {
			counted += now
			m.fetched(now)
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return read, &Problem{Fault: Unreadable, Detail: err.Error(), blob: c.blob}
		}
	}
	want := cmp.Or(c.SHA256, c.GitOID)
	if got := hex.EncodeToString(h.Sum(nil)); got != want && ctx.Err() == nil {
		return read, &Problem{Fault: Wrong, Detail: fmt.Sprintf("its hash should be %s and is %s", want, got), blob: c.blob}
	}
	return read, nil
}

// openUnnoticed opens a file such that reading it does not look like a use of it, where that is allowed (open(2), O_NOATIME: to its owner).
func openUnnoticed(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, fs.ErrPermission) {
		return os.Open(name)
	}
	return f, err
}

// Discard takes the contents away that a report found to be damaged, so that the next Fetch gets them again, and returns how many there were.
// Programs that read them just now are not disturbed.
func (s *Store) Discard(ctx context.Context, r Report) (n int, err error) {
	if err := CheckRepo(r.Repo); err != nil {
		return 0, err
	}
	dir, err := openFolder(s.path, r.Repo)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.root.Close()) }()
	gone := map[string]bool{"": true}
	for _, p := range r.Problems {
		if gone[p.blob] {
			continue
		}
		gone[p.blob] = true
		release, err := lock(ctx, filepath.Join(dir.locks, p.blob+".lock"), func() {}) // nobody takes it for whole meanwhile
		if err != nil {
			return n, err
		}
		err = dir.root.Remove("blobs/" + p.blob)
		if err == nil {
			n++
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err := errors.Join(err, release()); err != nil {
			return n, err
		}
	}
	return n, nil
}
