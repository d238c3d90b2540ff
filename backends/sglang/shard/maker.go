package shard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
	"pilotlight/backends/store"
)

// Phase is what is being done.
type Phase string

const (
	Starting  Phase = "starting"  // the engine's packages are imported
	Loading   Phase = "loading"   // the weights go to the devices
	Writing   Phase = "writing"   // the ranks write
	Verifying Phase = "verifying" // what they wrote is read
	Finished  Phase = "finished"
)

// Progress is how far it is.
type Progress struct {
	Phase        Phase
	Share        float64 // of the phase, 0 to 1
	Bytes, Total int64   // written, or verified; Total is a guess while the ranks write
}

// Job is a model to be cut up, and with what.
type Job struct {
	Recipe Recipe
	// Source is the model's folder.
	Source string
	// Command starts the engine: its first word is the Python that has SGLang. Options are what SGLang gets behind it and the model, in
	// full names, --tp-size among them.
	Command []string
	Options []string
	Dir     string // working folder; empty: this process's
	// Environ is what the engine's environment begins with; Env are the model's own variables, secrets included.
	Environ []string
	Env     map[string]string
	// Devices are names for CUDA_VISIBLE_DEVICES; nil: as Environ has it.
	Devices []string
	// Log is the file for SGLang's output; empty: none is kept.
	Log string
	// Stall is how long nothing may happen; 0: 20 minutes.
	Stall    time.Duration
	Progress func(Progress) `json:"-"` // nil: nobody wants to know. Called about five times a second, on the goroutine that called Make.
}

// maxPart is what one file holds at most: SGLang's own example has the same.
const maxPart = 5 << 30

const defaultStall = 20 * time.Minute

// Find looks for sharded weights of this recipe in the store. Its error wraps store.ErrIncomplete where there are none.
func Find(s *store.Store, r Recipe) (store.Snapshot, error) {
	return s.Find(r.Repo(), r.Revision(), store.Filter{})
}

// Make makes sharded weights of a job's recipe and puts them into the store, if they are not there yet; somebody else who makes the same is
// waited for. What fails is a *backends.Failure, and leaves nothing in the store. The caller has the devices to itself.
func Make(ctx context.Context, s *store.Store, log *slog.Logger, job Job) (found store.Snapshot, err error) {
	if job.Progress == nil {
		job.Progress = func(Progress) {}
	}
	found, err = Find(s, job.Recipe)
	if err == nil || !errors.Is(err, store.ErrIncomplete) {
		return found, err
	}
	others, weights, err := sourceFiles(job.Source)
	if err != nil {
		return store.Snapshot{}, err
	}
	making, err := s.Make(ctx, job.Recipe.Repo(), job.Recipe.Revision(), "cutting up for "+job.Recipe.text(), weights)
	if err != nil {
		return store.Snapshot{}, diskFull(err)
	}
	defer func() { err = errors.Join(err, making.Close()) }()
	if found, err := Find(s, job.Recipe); err == nil {
		return found, nil // made while we waited
	}
	began := time.Now()
	log.InfoContext(ctx, "weights are being cut up", "model", job.Recipe.Model, "for", job.Recipe.text())
	files, err := job.make(ctx, making.Path, weights)
	if err == nil {
		files, err = beside(job, others, making.Path, files)
	}
	if err == nil {
		found, err = making.Publish(ctx, files)
	}
	if err != nil {
		return store.Snapshot{}, diskFull(err)
	}
	job.Progress(Progress{Phase: Finished, Share: 1})
	log.InfoContext(ctx, "weights are cut up", "model", job.Recipe.Model, "for", job.Recipe.text(), "seconds", time.Since(began).Seconds(), "folder", found.Path)
	return found, nil
}

// diskFull makes a failure of what says that there is no room.
func diskFull(err error) error {
	var f *backends.Failure
	switch {
	case errors.As(err, &f):
	case errors.Is(err, store.ErrDiskFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &backends.Failure{Class: backends.ClassDiskFull, Message: "the store's disk has no room for the sharded weights", Advice: "free space, or remove models: pilotlight models ls, pilotlight models rm", Err: err}
	case errors.Is(err, store.ErrOverBudget):
		return &backends.Failure{Class: backends.ClassDiskFull, Message: "the sharded weights do not fit in the store's budget", Advice: "raise store.max_bytes, or remove models: pilotlight models ls, pilotlight models rm", Err: err}
	}
	return err
}

// make has the ranks write into dir, and returns what they wrote with hashes.
func (job *Job) make(ctx context.Context, dir string, expect int64) ([]store.File, error) {
	p := &program{
		python: job.Command[0], dir: job.Dir, log: job.Log, out: dir, maxPart: maxPart, expect: expect, stall: cmp.Or(job.Stall, defaultStall), report: job.Progress,
		options: append([]string{"--model-path", job.Source}, loading(job.Options)...),
	}
	if p.log == "" {
		file, err := os.CreateTemp("", "pl-shard-*.log")
		if err != nil {
			return nil, err
		}
		p.log = file.Name()
		defer os.Remove(p.log)
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	p.env = sglang.Env(job.Environ, job.Env, sglang.Folders{})
	if job.Devices != nil {
		p.env = append(p.env, "CUDA_VISIBLE_DEVICES="+strings.Join(job.Devices, ","), "CUDA_DEVICE_ORDER=PCI_BUS_ID")
	}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	if p.version != job.Recipe.Version {
		return nil, Refuse(fmt.Errorf("SGLang %s is installed, and %s was expected", p.version, job.Recipe.Version), "set engine_version, or leave it out")
	}
	parts, err := readParts(dir, job.Recipe.TP)
	if err != nil {
		return nil, p.incomplete(err)
	}
	return job.verify(ctx, dir, parts)
}

// incomplete is for ranks that have not written what they should, though the first has.
func (p *program) incomplete(err error) *backends.Failure {
	f := sglang.Classify(p.lines, sglang.ExitStatus{}, p.options...) // a rank's own words, such as those of a full disk
	if f.Class == backends.ClassExited {
		f.Message, f.Advice = "the engine did not write all of the sharded weights", "see the last lines of its log"
	}
	f.Err = err
	return f
}

// verify reads all that was written, as many files at once as there are processors.
func (job *Job) verify(ctx context.Context, dir string, parts []part) ([]store.File, error) {
	now := Progress{Phase: Verifying}
	for _, p := range parts {
		now.Total += p.size
	}
	job.Progress(now)
	files := make([]store.File, len(parts))
	problems := make([]error, len(parts))
	done := make(chan int64)
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, p := range parts {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots; done <- p.size }()
			f, err := os.Open(filepath.Join(dir, p.name))
			if err != nil {
				problems[i] = err
				return
			}
			defer f.Close()
			sum, err := store.HashFile(ctx, f)
			files[i], problems[i] = store.File{Path: p.name, Size: p.size, SHA256: sum}, err
		})
	}
	for range parts {
		now.Bytes += <-done
		now.Share = float64(now.Bytes) / float64(max(now.Total, 1))
		job.Progress(now)
	}
	wait.Wait()
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return files, job.writeManifest(dir, parts, files)
}

func (job *Job) writeManifest(dir string, parts []part, files []store.File) error {
	m := Manifest{Format: 1, Recipe: job.Recipe}
	for i, p := range parts {
		m.Files = append(m.Files, ManifestFile{Name: p.name, Rank: p.rank, Tensors: len(p.tensors), Size: p.size, SHA256: files[i].SHA256})
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), append(text, '\n'), 0o644)
}

// onlyServing begin options that only a server needs, of things that change the model after its weights are loaded or are models of their own.
var onlyServing = []string{"--enable-lora", "--lora-", "--max-lora", "--max-loras", "--speculative-", "--load-format"}

// loading leaves them out. Options are in full names, each with its values behind it.
func loading(options []string) (out []string) {
	dropping := false
	for _, word := range options {
		if strings.HasPrefix(word, "--") {
			dropping = slices.ContainsFunc(onlyServing, func(begin string) bool { return strings.HasPrefix(word, begin) })
		}
		if !dropping {
			out = append(out, word)
		}
	}
	return out
}

// weightFiles are what an engine reads weights from, in any format, and indexes of them; they do not lie beside sharded ones.
var weightFiles = []string{"*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.npz", "*.index.json"}

// sourceFiles are the names of a model's files that are not weights, and the bytes of its weights.
func sourceFiles(dir string) (others []string, weights int64, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(filepath.Join(dir, name)) // of what links lead to
		if err != nil {
			return err
		}
		if slices.ContainsFunc(weightFiles, func(pattern string) bool { ok, _ := path.Match(pattern, d.Name()); return ok }) {
			if !strings.Contains(name, "/") { // others, such as original/, are not loaded
				weights += info.Size()
			}
			return nil
		}
		if info.Mode().IsRegular() && !strings.HasPrefix(d.Name(), ".") && name != ManifestName {
			others = append(others, name)
		}
		return nil
	})
	return others, weights, err
}

// beside copies the model's other files beside its sharded weights, and lists them all, the manifest too.
func beside(job Job, others []string, dir string, files []store.File) ([]store.File, error) {
	for _, name := range append(slices.Clone(others), ManifestName) {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if name != ManifestName {
			if err := copyFile(filepath.Join(job.Source, filepath.FromSlash(name)), to); err != nil {
				return nil, err
			}
		}
		info, err := os.Stat(to)
		if err != nil {
			return nil, err
		}
		files = append(files, store.File{Path: name, Size: info.Size()})
	}
	return files, nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
