// Package installed asks the Python that a command runs which release of SGLang it has. It imports neither SGLang nor
// torch, which take half a minute: importlib.metadata reads the name of a folder. What it starts is the interpreter
// that the command itself starts, never another program.
package installed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"pilotlight/backends/sglang/flags"
)

const (
	// limit is far above the 50 ms that an interpreter takes, and short enough for a reload.
	limit = 5 * time.Second
	// fresh is how long an answer counts: long enough for a file that is loaded for many models, short enough that
	// an upgrade is seen by the next reload.
	fresh = time.Minute
)

// Detector asks interpreters and remembers for a minute what they said. It is safe for concurrent use.
type Detector struct {
	environ []string
	now     func() time.Time
	ask     func(ctx context.Context, python, dir string, env []string) (string, error)

	mu      sync.Mutex // guards the field below, and keeps two from asking the same
	answers map[string]answer
}

type answer struct {
	version string
	err     error
	at      time.Time
}

// New returns a Detector that gives interpreters the environment environ (as os.Environ) and what Version adds.
func New(environ []string) *Detector {
	return &Detector{environ: environ, now: time.Now, ask: ask, answers: map[string]answer{}}
}

// Version returns the release that command would start, such as 0.5.15, in working folder dir (empty: this
// process's) with the variables env, of which only those that lead to packages are passed on. It takes at most
// five seconds. The errors are flags.ErrNoPython, flags.ErrNoSGLang, or say why the interpreter did not answer.
func (d *Detector) Version(command []string, dir string, env map[string]string) (string, error) {
	leading := packagesOf(env)
	vars := slices.Concat(d.environ, leading)
	python, err := Python(command, dir)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strings.Join(append([]string{python, dir}, leading...), "\x00")
	maps.DeleteFunc(d.answers, func(_ string, a answer) bool { return d.now().Sub(a.at) >= fresh })
	if a, ok := d.answers[key]; ok {
		return a.version, a.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	version, err := d.ask(ctx, python, dir, vars)
	d.answers[key] = answer{version, err, d.now()}
	return version, err
}

// packagesOf are the variables that lead to packages, sorted.
func packagesOf(env map[string]string) (vars []string) {
	for name, value := range env {
		if name == "PATH" || name == "VIRTUAL_ENV" || name == "CONDA_PREFIX" || name == "HOME" || strings.HasPrefix(name, "PYTHON") {
			vars = append(vars, name+"="+value)
		}
	}
	slices.Sort(vars)
	return vars
}

var pythonName = regexp.MustCompile(`^python(\d(\.\d+)?)?$`)

// Python finds the interpreter of a command in working folder dir (empty: this process's): its program, or what its program's first lines
// name. A bare name is one of the PATH that the command gets. The error wraps flags.ErrNoPython.
func Python(command []string, dir string) (string, error) {
	if len(command) == 0 {
		return "", flags.ErrNoPython
	}
	program := command[0]
	if strings.Contains(program, "/") && !filepath.IsAbs(program) && dir != "" {
		program = filepath.Join(dir, program)
	}
	if pythonName.MatchString(filepath.Base(program)) {
		return program, nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %w", flags.ErrNoPython, err)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", flags.ErrNoPython, err)
	}
	defer file.Close()
	if python := shebang(io.LimitReader(file, 1024)); python != "" {
		return python, nil
	}
	return "", flags.ErrNoPython
}

// shebang reads the first lines of a script as pip writes them: #!/path/python, or for paths that are too long for the
// kernel #!/bin/sh and an exec of the path in quotes.
func shebang(r io.Reader) string {
	lines := bufio.NewScanner(r)
	for range 2 {
		if !lines.Scan() {
			return ""
		}
		line, first := strings.CutPrefix(lines.Text(), "#!")
		if !first {
			line, _ = strings.CutPrefix(line, "'''exec' ")
		}
		words := strings.Fields(line)
		if len(words) > 1 && strings.HasSuffix(words[0], "/env") {
			words = words[1:]
		}
		if len(words) == 0 {
			return ""
		}
		if python := strings.Trim(words[0], `"`); pythonName.MatchString(filepath.Base(python)) {
			return python
		}
	}
	return ""
}

// missing is the exit status that says that the package is not there; Python itself uses 1 and 2.
const missing = 47

var script = fmt.Sprintf(`import sys
from importlib import metadata
try:
    print(metadata.version("sglang"))
except metadata.PackageNotFoundError:
    sys.exit(%d)
`, missing)

var versionText = regexp.MustCompile(`^[0-9A-Za-z.+!_-]{1,64}$`)

func ask(ctx context.Context, python, dir string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, python, "-c", script)
	cmd.Dir, cmd.Env = dir, env
	cmd.WaitDelay = time.Second // a child of the interpreter's own that keeps the pipe
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not say within %s which SGLang it has", python, limit)
	case errors.As(err, &exit) && exit.ExitCode() == missing:
		return "", flags.ErrNoSGLang
	case err != nil:
		return "", fmt.Errorf("asking %s which SGLang it has: %w: %s", python, err, lastLine(stderr.String()))
	}
	version := lastLine(stdout.String()) // the interpreter's own start may print, too
	if !versionText.MatchString(version) {
		return "", fmt.Errorf("%s gave no release of SGLang", python)
	}
	return version, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := lines[len(lines)-1]
	return last[:min(len(last), 200)]
}
