package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options say where a store lies and how it fetches.
type Options struct {
	Path        string       // the hub client's cache folder (HF_HUB_CACHE); made when first needed
	Connections int          // the most per download, at once, of which it uses as many as help; 0 is 96
	Reserve     int64        // bytes of disk to leave free; 0 is none
	MaxBytes    int64        // budget of all models together; models that are not in use are removed for new ones; 0: the disk's size
	Remote      Remote       // a second tier; nil: none
	Logger      *slog.Logger // nil: silent
	// Unverified leaves out the check of contents, to measure what it costs. Nothing is published then: Fetch ends in ErrUnverified when all
	// bytes are on disk.
	Unverified bool
}

// Store is a folder of models. Its methods are safe for concurrent use, also by several processes on one folder.
type Store struct {
	path        string
	connections int
	reserve     int64
	maxBytes    int64
	remote      Remote
	log         *slog.Logger
	unverified  bool
	backoff     time.Duration // the first wait before asking again; tests shorten it
	disk        disk

	mu      sync.Mutex // guards flights
	flights map[string]*flight
}

// New checks the options; it touches no file.
func New(o Options) (*Store, error) {
	if o.Path == "" {
		return nil, errors.New("a store needs a path")
	}
	if o.Connections < 0 || o.Connections > 256 {
		return nil, fmt.Errorf("%d connections: want 1 to 256, or 0 for %d", o.Connections, defaultConnections)
	}
	abs, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: abs, connections: o.Connections, reserve: o.Reserve, maxBytes: o.MaxBytes, remote: o.Remote, log: o.Logger, unverified: o.Unverified, backoff: time.Second, disk: theDisk, flights: map[string]*flight{}}
	if s.connections == 0 {
		s.connections = defaultConnections
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Request says what to fetch.
type Request struct {
	// Repo names the model in the store. A name stands for one source: requests of one name that differ in Source share a download.
	Repo     string
	Revision string // "" is "main"
	// Source may be nil where the store has a remote, which then has to have it.
	Source Source
	Filter Filter
	// Fresh asks Source what a branch stands for before the store's remote. It means nothing without a remote: then Source is always asked.
	Fresh bool
	// Progress, if not nil, is called about five times a second, and once at the end, on the goroutine that called Fetch.
	Progress func(Progress)
}

// progressEvery is how often Request.Progress is called.
const progressEvery = 200 * time.Millisecond

// flight is one download and those who wait for it.
type flight struct {
	meter  meter
	cancel context.CancelCauseFunc
	done   chan struct{}
	result Snapshot // set before done is closed, as err
	err    error

	waiting int // guarded by Store.mu
}

// Fetch brings a model into the store, verified, and returns where it lies. Any number of callers that ask for the same cause one download,
// which ends when the last of them has left; what it fetched till then is used the next time. A file that another process fetches just now
// is waited for.
func (s *Store) Fetch(ctx context.Context, r Request) (Snapshot, error) {
	if err := errors.Join(CheckRepo(r.Repo), r.Filter.Check()); err != nil {
		return Snapshot{}, err
	}
	if r.Revision == "" {
		r.Revision = "main"
	}
	if err := checkRevision(r.Revision); err != nil {
		return Snapshot{}, err
	}
	f, leave := s.join(ctx, r)
	defer leave()
	if r.Progress == nil {
		r.Progress = func(Progress) {}
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return Snapshot{}, context.Cause(ctx)
		case <-tick.C:
			r.Progress(f.meter.read(time.Now()))
		case <-f.done:
			r.Progress(f.meter.read(time.Now()))
			return f.result, f.err
		}
	}
}

// join finds the flight for a request, or starts it.
func (s *Store) join(ctx context.Context, r Request) (f *flight, leave func()) {
	key := strings.Join([]string{r.Repo, r.Revision, strings.Join(r.Filter.Include, "\x01"), strings.Join(r.Filter.Exclude, "\x01")}, "\x00")
	s.mu.Lock()
	defer s.mu.Unlock()
	f = s.flights[key]
	if f == nil {
		// It outlives the caller that caused it, as long as others wait.
		work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{})}
		s.flights[key] = f
		go func() {
			f.result, f.err = s.fetch(work, r, &f.meter)
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			cancel(nil)
			close(f.done)
		}()
	}
	f.waiting++
	return f, func() {
		s.mu.Lock()
		f.waiting--
		last := f.waiting == 0
		if last && s.flights[key] == f {
			delete(s.flights, key) // a later caller must not join what is being given up
		}
		s.mu.Unlock()
		if last {
			f.cancel(errors.New("nobody waits for this download any more"))
			<-f.done
		}
	}
}

// fetchFrom lists, downloads what is missing, and publishes.
func (s *Store) fetchFrom(ctx context.Context, r Request, m *meter) (found Snapshot, err error) {
	if isHex(r.Revision, 40) { // a commit never changes, so nobody need be asked about one that is here
		if found, err := s.Find(r.Repo, r.Revision, r.Filter); err == nil && !found.Guessed {
			m.update(func(p *Progress) { *p = whole(found) })
			return found, nil
		} else if err != nil && !errors.Is(err, ErrIncomplete) {
			return Snapshot{}, err
		}
	}
	m.phase(Asking)
	var list Listing
	err = retry(ctx, s.backoff, func() (bool, error) {
		var err error
		list, err = r.Source.List(ctx, r.Revision)
		return false, err
	})
	if err != nil {
		return Snapshot{}, err
	}
	if err := list.Check(); err != nil {
		return Snapshot{}, err
	}
	chosen := r.Filter.choose(list.Files)
	if len(chosen) == 0 {
		return Snapshot{}, fmt.Errorf("%s at %s: none of its %d files is chosen: %w", r.Repo, r.Revision, len(list.Files), ErrFileNotFound)
	}
	// What is here as it should be is not written to, so that a cache that others own can be used.
	if found, err := s.Find(r.Repo, r.Revision, r.Filter); err == nil && !found.Guessed && found.Commit == list.Commit {
		m.update(func(p *Progress) { *p = whole(found) })
		return found, nil
	}
	use, err := s.Use(ctx, r.Repo, User{Who: "a download"})
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { err = errors.Join(err, use.Close()) }()
	dir, err := openFolder(s.path, r.Repo)
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { err = errors.Join(err, dir.root.Close()) }()
	if err := s.tag(); err != nil {
		return Snapshot{}, err
	}
	blobs, err := s.download(ctx, dir, r.Source, list.Commit, chosen, func(need int64) error { return s.makeRoom(ctx, r.Repo, need, use) }, m)
	if err != nil {
		return Snapshot{}, fmt.Errorf("fetching %s: %w", r.Repo, err)
	}
	m.phase(Publishing)
	if err := dir.publish(list.Commit, blobs); err != nil {
		return Snapshot{}, err
	}
	if err := dir.writeTree(list); err != nil {
		return Snapshot{}, err
	}
	// The ref comes last: who looks a revision up finds the old commit or a whole new one.
	if r.Revision != list.Commit {
		if err := dir.replace("refs/"+r.Revision, []byte(list.Commit)); err != nil {
			return Snapshot{}, err
		}
	}
	m.phase(Finished)
	return Snapshot{Repo: r.Repo, Commit: list.Commit, Path: filepath.Join(dir.path, "snapshots", list.Commit), Files: chosen}, nil
}

// whole is the progress of what needs none.
func whole(s Snapshot) Progress {
	p := Progress{Phase: Finished, Files: len(s.Files), FilesDone: len(s.Files)}
	for _, f := range s.Files {
		p.Bytes += f.Size
	}
	p.BytesDone = p.Bytes
	return p
}

// tag marks the folder as a cache for backup programs, as the hub's client does (https://bford.info/cachedir/).
func (s *Store) tag() error {
	f, err := os.OpenFile(filepath.Join(s.path, "CACHEDIR.TAG"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = f.WriteString("Signature: 8a477f597d28d172789f06886806bc55\n# This folder holds downloaded models.\n")
	return errors.Join(err, f.Close())
}
