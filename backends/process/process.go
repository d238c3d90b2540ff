// Package process runs replicas as processes of this machine: it starts an engine in a process group of
// its own, follows its output, tells when it is ready, sees its end, and leaves nothing behind.
//
// It keeps to a few rules that make a gateway's own death harmless. The engine writes to a file and never
// to a pipe, so nothing blocks or kills it when the gateway goes. Its end is seen through a pidfd, which
// works for any process and cannot be confused by a reused pid. A record lies in the state folder from
// before the process exists until the last of its processes is gone.
//
// It does not restart anything, decide when to start or stop, or send requests other than probes: that is
// the activator's and the gateway's part. Engines must run as processes in the foreground; a command that
// hands the work to a daemon (such as "docker run") cannot be told from a foreign server and is refused.
//
// A Driver and its Replicas are safe for concurrent use. Linux 5.4 or later.
package process

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a Driver needs to know.
type Options struct {
	// StateDir holds replicas/ (records), logs/ and cache/. It is created with mode 0700, because records
	// and logs hold the replicas' API keys. One gateway at a time uses it.
	StateDir string
	// Logger gets starts, ends and what was cleaned up. nil: nothing is logged.
	Logger *slog.Logger
	// Environ is what engines inherit, less PILOTLIGHT_ variables. nil means os.Environ().
	Environ []string
	// Host is the address that engines listen on. Empty means 127.0.0.1.
	Host string
	// IdleGrace is the time between SIGTERM and SIGKILL when no request is in flight. 0 means 2 s: an idle
	// SGLang needs 4 to 8 s to go by itself, and a killed one gives its GPU back in half a second.
	IdleGrace time.Duration
	// StopGrace is the same with requests in flight. 0 means 30 s. The context of Stop may end it earlier.
	StopGrace time.Duration

	// Knobs of tests; zero values mean production's.
	rand       io.Reader                         // of keys and marks
	logLimit   int64                             // bytes of a log before it is rotated
	sweepLimit time.Duration                     // for killed processes to be gone
	freeBytes  func(path string) (uint64, error) // of a file system
	vitals     func(family) (vitals, error)
	oomKills   func() (int64, error)
	vitalsPace time.Duration // between two looks at them
	hangAfter  time.Duration
	guard      guardTimes
	write      func(path string, data []byte) error
}

const (
	defaultIdleGrace    = 2 * time.Second
	defaultStopGrace    = 30 * time.Second
	defaultStartTimeout = 20 * time.Minute
	// Killed processes are gone in milliseconds unless a device driver holds them; that long we wait.
	defaultSweepLimit = 15 * time.Second
	// One log and its predecessor, 32 MiB a replica, hold some hours of a busy server.
	defaultLogLimit = 16 << 20
	keptLogs        = 5
)

// Driver starts replicas. Make one with New.
type Driver struct {
	opts   Options
	logger *slog.Logger
	bootID string
	lock   *os.File
	ports  *ports

	mu   sync.Mutex // guards the fields below
	live map[string]*Replica
	left map[string]*Record // by an earlier gateway, alive and neither adopted nor ended
}

// ErrStateDirInUse means that another gateway runs with the same state folder.
var ErrStateDirInUse = errors.New("state folder is in use by another gateway")

// New prepares the state folder and looks at what an earlier gateway left in it. Records without a living process are removed. Replicas
// that live and may serve are listed by Leftovers, for their owner to Adopt, to launch on or to End; processes of others
// are killed and waited for. Nothing is killed on the strength of a pid alone: see record.
func New(opts Options) (*Driver, error) {
	if opts.StateDir == "" {
		return nil, errors.New("process driver: no state folder given")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	if opts.Host == "" {
		opts.Host = "127.0.0.1"
	}
	orDuration(&opts.IdleGrace, defaultIdleGrace)
	orDuration(&opts.StopGrace, defaultStopGrace)
	orDuration(&opts.sweepLimit, defaultSweepLimit)
	if opts.logLimit == 0 {
		opts.logLimit = defaultLogLimit
	}
	if opts.rand == nil {
		opts.rand = rand.Reader
	}
	if opts.freeBytes == nil {
		opts.freeBytes = freeBytes
	}
	if opts.vitals == nil {
		opts.vitals = family.vitals
	}
	if opts.oomKills == nil {
		opts.oomKills = oomKills
	}
	orDuration(&opts.vitalsPace, vitalsPause)
	orDuration(&opts.hangAfter, hangAfter)
	if opts.write == nil {
		opts.write = writeAtomically
	}
	dir, err := filepath.Abs(opts.StateDir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	opts.StateDir = dir

	d := &Driver{opts: opts, logger: opts.Logger, ports: newPorts(opts.Host), live: make(map[string]*Replica), left: make(map[string]*Record)}
	for _, dir := range []string{d.recordDir(), d.logDir(), d.cacheDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("state folder: %w", err)
		}
	}
	if d.bootID, err = bootID(); err != nil {
		return nil, err
	}
	if d.lock, err = lockFile(filepath.Join(d.recordDir(), ".lock")); err != nil {
		return nil, err
	}
	if err := d.findLeftovers(); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// Close gives the state folder free for another gateway. Replicas that their owner has not stopped before go on, with nobody to watch
// them, until a gateway takes them over: their channels are not closed any more, and their methods must not be called.
func (d *Driver) Close() error {
	d.mu.Lock()
	live := slices.Collect(maps.Values(d.live))
	d.mu.Unlock()
	var problems error
	for _, r := range live {
		problems = errors.Join(problems, r.letGo())
	}
	return errors.Join(problems, d.lock.Close())
}

func (d *Driver) recordDir() string { return filepath.Join(d.opts.StateDir, "replicas") }
func (d *Driver) logDir() string    { return filepath.Join(d.opts.StateDir, "logs") }
func (d *Driver) cacheDir() string  { return filepath.Join(d.opts.StateDir, "cache") }

// lockFile takes a lock that ends with this process, however it ends. Engines do not inherit it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(inUse(f), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0) // for whoever finds it locked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f, nil
}

// inUse says who holds a lock, and what can be done.
func inUse(f *os.File) error {
	by := ""
	var buf [20]byte
	if n, err := f.ReadAt(buf[:], 0); n > 0 && errors.Is(err, io.EOF) {
		by = " (pid " + string(buf[:n]) + ")"
	}
	return fmt.Errorf("%w%s; stop that one, or give this one a state_dir of its own", ErrStateDirInUse, by)
}

func freeBytes(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

func orDuration(d *time.Duration, otherwise time.Duration) {
	if *d == 0 {
		*d = otherwise
	}
}
