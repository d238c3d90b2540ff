package venv

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// minMinor is the oldest Python 3 that is used: the pinned wheels are built for 3.10 and later.
const minMinor = 10

// candidates are the names tried in order. Plain python3 comes first because it is the one that has its
// venv and pip packages installed, if any has.
func candidates() []string {
	names := []string{"python3"}
	for minor := 14; minor >= minMinor; minor-- {
		names = append(names, "python3."+strconv.Itoa(minor))
	}
	return append(names, "python")
}

// interpreter is a Python that can make environments.
type interpreter struct {
	path string
	// version is major.minor.micro.
	version string
	// ensurepip tells whether venv can put pip into a new environment by itself.
	ensurepip bool
}

// MissingError says which piece of Python this machine lacks and what to install.
type MissingError struct {
	What  string // such as "the venv module of python3"
	Found string // what was looked at, for the reader; may be empty
	Fix   string // such as "apt-get install python3-venv"
}

func (e *MissingError) Error() string {
	text := e.What + " is missing"
	if e.Found != "" {
		text += " (" + e.Found + ")"
	}
	return text + "; install it: " + e.Fix
}

const (
	fixPython = "apt-get install python3 python3-venv python3-pip (Debian, Ubuntu), or dnf install python3 python3-pip (Fedora, RHEL)"
	fixVenv   = "apt-get install python3-venv (Debian, Ubuntu), or dnf install python3-pip (Fedora, RHEL)"
)

// probeScript prints the version and which modules are there, without importing more than their specs.
const probeScript = `import sys, importlib.util as u
print("%d.%d.%d" % sys.version_info[:3], *[m for m in ("venv", "ensurepip", "pip") if u.find_spec(m)])`

// findPython returns the first interpreter that is new enough and complete. A complaint about the best
// incomplete one is returned where none is.
func findPython(ctx context.Context, names []string, env []string) (interpreter, error) {
	var tooOld []string
	var incomplete error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := run(ctx, command{argv: []string{path, "-I", "-c", probeScript}, env: env})
		if ctx.Err() != nil {
			return interpreter{}, ctx.Err()
		}
		words := strings.Fields(out)
		if err != nil || len(words) == 0 {
			// A shim without an interpreter behind it ends here.
			continue
		}
		if !newEnough(words[0]) {
			tooOld = append(tooOld, name+" is "+words[0])
			continue
		}
		has := map[string]bool{}
		for _, module := range words[1:] {
			has[module] = true
		}
		if has["venv"] && (has["ensurepip"] || has["pip"]) {
			return interpreter{path: path, version: words[0], ensurepip: has["ensurepip"]}, nil
		}
		if incomplete == nil {
			what := "the venv module"
			if has["venv"] {
				what = "the ensurepip module"
			}
			incomplete = &MissingError{What: what + " of Python", Found: path + " is " + words[0], Fix: fixVenv}
		}
	}
	if incomplete != nil {
		return interpreter{}, incomplete
	}
	return interpreter{}, &MissingError{What: "Python 3." + strconv.Itoa(minMinor) + " or later", Found: strings.Join(tooOld, ", "), Fix: fixPython}
}

func newEnough(version string) bool {
	parts := strings.Split(version, ".")
	if len(parts) < 2 || parts[0] != "3" {
		return false
	}
	minor, err := strconv.Atoi(parts[1])
	return err == nil && minor >= minMinor
}

// keepPip are the settings that say where packages come from and how to get there. All others are dropped:
// PIP_TARGET, PIP_USER, PIP_PREFIX and their like would install elsewhere, PIP_REQUIRE_HASHES or
// PIP_CONSTRAINT would refuse pins that this program chose.
var keepPip = map[string]bool{
	"PIP_INDEX_URL": true, "PIP_EXTRA_INDEX_URL": true, "PIP_FIND_LINKS": true, "PIP_NO_INDEX": true,
	"PIP_TRUSTED_HOST": true, "PIP_CERT": true, "PIP_CLIENT_CERT": true, "PIP_PROXY": true,
	"PIP_TIMEOUT": true, "PIP_DEFAULT_TIMEOUT": true, "PIP_RETRIES": true, "PIP_CONFIG_FILE": true,
	"PIP_KEYRING_PROVIDER": true, "PIP_CACHE_DIR": true, "PIP_NO_CACHE_DIR": true, "PIP_USE_FEATURE": true,
}

// Environ returns environ without what would lead a private environment's Python astray: every PYTHON…
// variable, an activated environment, and pip's settings except those about package sources.
func Environ(environ []string) []string {
	clean := make([]string, 0, len(environ)+3)
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "PYTHON"), name == "VIRTUAL_ENV", name == "__PYVENV_LAUNCHER__",
			strings.HasPrefix(name, "CONDA_"):
		case strings.HasPrefix(name, "PIP_") && !keepPip[name]:
		default:
			clean = append(clean, kv)
		}
	}
	// PIP_USER=0 outranks a pip.conf that says user = true.
	return append(clean, "PIP_USER=0", "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1")
}

var errNoOutput = errors.New("it printed nothing")

// describe puts the last lines of a program's output behind err, because pip explains itself only there.
func describe(doing, output string, err error) error {
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	const keep = 6
	if len(lines) > keep {
		lines = lines[len(lines)-keep:]
	}
	last := strings.TrimSpace(strings.Join(lines, "\n"))
	if last == "" {
		last = errNoOutput.Error()
	}
	return fmt.Errorf("%s: %w: %s", doing, err, last)
}
