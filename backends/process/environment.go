package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

// ownPrefix marks the gateway's own variables, such as its admin token; engines get none of them.
const ownPrefix = "PILOTLIGHT_"

// readSecrets reads the spec's secrets, at each start, so that a rotated one is used from then on.
// A trailing newline, which editors and kubectl add, is not part of a secret.
func readSecrets(spec *backends.Spec) (map[string]string, error) {
	values := make(map[string]string, len(spec.Secrets))
	for _, s := range spec.Secrets {
		b, err := os.ReadFile(s.File)
		if err == nil && bytes.IndexByte(b, 0) >= 0 {
			err = errors.New("it holds a zero byte, which no environment variable can")
		}
		if err != nil {
			return nil, &backends.Failure{
				Class:   backends.ClassSecret,
				Message: "the secret " + s.Name + " of the model cannot be read",
				Advice:  "check that its file is there and that the gateway may read it",
				Err:     err,
			}
		}
		values[s.Env] = strings.TrimRight(string(b), "\r\n")
	}
	return values, nil
}

// environment is what the engine gets.
func (d *Driver) environment(spec *backends.Spec, on backends.Placement, secrets map[string]string, mark, tmp string) []string {
	inherited := make([]string, 0, len(d.opts.Environ))
	for _, entry := range d.opts.Environ {
		if !strings.HasPrefix(entry, ownPrefix) {
			inherited = append(inherited, entry)
		}
	}
	own := make(map[string]string, len(spec.Env)+len(secrets)+len(on.Env)+3)
	for name, value := range on.Env {
		if !slices.ContainsFunc(inherited, func(entry string) bool { return strings.HasPrefix(entry, name+"=") }) {
			own[name] = value
		}
	}
	maps.Copy(own, spec.Env)
	maps.Copy(own, secrets)
	if len(on.Devices) > 0 {
		own["CUDA_VISIBLE_DEVICES"] = strings.Join(on.Devices, ",")
		own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID" // the order of nvidia-smi's numbers; CUDA's own is by speed
	}
	own[markName] = mark
	if spec.Engine == backends.EngineSGLang {
		return sglang.Env(inherited, own, sglang.Folders{Temp: tmp, Cache: filepath.Join(d.cacheDir(), "torchinductor")})
	}
	// Most engines are Python programs, and show progress late without it.
	if _, set := own["PYTHONUNBUFFERED"]; !set {
		own["PYTHONUNBUFFERED"] = "1"
	}
	env := slices.DeleteFunc(inherited, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, replaced := own[name]
		return replaced
	})
	for name, value := range own {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// commandLine is what to run, and the API key that the engine will ask for: empty where it was given none.
func commandLine(spec *backends.Spec, on backends.Placement, host string, port int, key string) (argv []string, apiKey string) {
	if on.ModelPath != "" {
		placed := *spec
		placed.ModelPath = on.ModelPath
		placed.ExtraArgs = slices.Concat(spec.ExtraArgs, on.Args)
		spec = &placed
	}
	if spec.Engine == backends.EngineSGLang {
		if on.MemoryFraction > 0 {
			shared := *spec
			// Rounded down: what a share has too little is its own, what it has too much is somebody else's.
			fraction := strconv.FormatFloat(math.Floor(on.MemoryFraction*1000)/1000, 'f', 3, 64)
			shared.ExtraArgs = slices.Concat([]string{"--mem-fraction-static", fraction}, spec.ExtraArgs)
			spec = &shared
		}
		return sglang.CommandLine(spec, host, port, key), key
	}
	values := strings.NewReplacer(
		"{host}", host, "{port}", strconv.Itoa(port), "{api_key}", key,
		"{model_path}", spec.ModelPath, "{served_name}", spec.ServedName,
	)
	for _, arg := range slices.Concat(spec.Command, spec.ExtraArgs) {
		if strings.Contains(arg, "{api_key}") {
			apiKey = key
		}
		argv = append(argv, values.Replace(arg))
	}
	return argv, apiKey
}

// lookPath finds a program as a shell with the engine's own environment would: a PATH in the model's
// env_vars counts, so that a virtual environment's bin folder works. os/exec looks in ours instead.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // relative ones are relative to the working folder; the kernel says if it is missing
	}
	path := ""
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		// Relative entries, which include the empty one, are a way to run what one did not mean to.
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w in PATH", name, fs.ErrNotExist)
}

// startFailure explains why no process came to be.
func startFailure(err error, spec *backends.Spec) *backends.Failure {
	if full := diskFull(err); full != nil {
		return full
	}
	f := &backends.Failure{Class: backends.ClassLaunch, Message: "this machine could not start the engine", Err: err}
	switch {
	case spec.Dir != "" && !isDir(spec.Dir):
		f.Class, f.Permanent = backends.ClassNotFound, true
		f.Message = "the working folder of the engine is missing"
		f.Advice = "create it, or change the model's dir"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		f.Class, f.Permanent = backends.ClassNotFound, true
		f.Message = "the program that runs the engine is not installed"
		f.Advice = "install it, or change the model's command"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		f.Class, f.Permanent = backends.ClassNotFound, true
		f.Message = "the program that runs the engine cannot be executed"
		f.Advice = "check the file's permissions and first line, or change the model's command"
	case errors.Is(err, syscall.E2BIG):
		f.Class, f.Permanent = backends.ClassBadFlag, true
		f.Message = "the engine's arguments and environment are too long"
	default:
		f.Advice = "check the machine's limits of processes, memory and open files"
	}
	return f
}

// diskFull returns a Failure if that is what err means, else nil.
func diskFull(err error) *backends.Failure {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	return &backends.Failure{
		Class: backends.ClassDiskFull, Message: "the disk with the gateway's state folder is full",
		Advice: "free disk space", Err: err,
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
