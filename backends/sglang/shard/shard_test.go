package shard

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
	"pilotlight/backends/store"
	"pilotlight/bench/pysglang"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const modelConfig = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}`

// source makes a model's folder: two files of weights with an index, and what lies beside them.
func source(t *testing.T) (dir string, tensors map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	random := rand.NewChaCha8([32]byte{1})
	tensors = map[string][]byte{}
	for file, names := range map[string]map[string][]int{
		"model-00001-of-00002.safetensors": {"embed.weight": {64, 32}, "norm.weight": {32}},
		"model-00002-of-00002.safetensors": {"layers.0.qkv_proj.weight": {96, 32}, "layers.0.norm.weight": {32}, "odd.weight": {5, 32}},
	} {
		writeSafetensors(t, filepath.Join(dir, file), names, random, tensors)
	}
	for name, text := range map[string]string{
		"config.json": modelConfig, "tokenizer.json": "{}", "model.safetensors.index.json": "{}", "code/modeling.py": "pass\n", ".gitattributes": "x",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, tensors
}

func writeSafetensors(t *testing.T, path string, shapes map[string][]int, random *rand.ChaCha8, all map[string][]byte) {
	t.Helper()
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var data []byte
	for name, shape := range shapes {
		n := 2
		for _, d := range shape {
			n *= d
		}
		content := make([]byte, n)
		if _, err := random.Read(content); err != nil {
			t.Fatal(err)
		}
		header[name] = map[string]any{"dtype": "BF16", "shape": shape, "data_offsets": []int{len(data), len(data) + n}}
		data, all[name] = append(data, content...), content
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	if err := os.WriteFile(path, append(file, data...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// engine is a Python with the simulated package, and what jobs need.
func engine(t *testing.T, tp int, env map[string]string) (Job, *store.Store, map[string][]byte) {
	t.Helper()
	python := testtools.Python(t)
	packages := filepath.Join(t.TempDir(), "packages")
	if err := pysglang.Write(packages); err != nil {
		t.Fatal(err)
	}
	dir, tensors := source(t)
	options := flags.Newest().Check([]string{"--tp-size", fmt.Sprint(tp), "--attention-backend", "triton"}, false)
	recipe, err := NewRecipe("org/model", strings.Repeat("ab", 20), dir, "0.5.15", options)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.New(store.Options{Path: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"PYTHONPATH": packages}
	for name, value := range env {
		vars[name] = value
	}
	return Job{
		Recipe: recipe, Source: dir, Command: []string{python, "-m", "sglang.launch_server"}, Options: options.Args,
		Environ: os.Environ(), Env: vars, Log: filepath.Join(t.TempDir(), "log"),
	}, s, tensors
}

func mustMake(t *testing.T, s *store.Store, job Job) store.Snapshot {
	t.Helper()
	found, err := Make(t.Context(), s, slog.New(slog.DiscardHandler), job)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(t, job))
	}
	return found
}

func logOf(t *testing.T, job Job) string {
	t.Helper()
	text, err := os.ReadFile(job.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tensorsOf reads the content of a file's tensors.
func tensorsOf(t *testing.T, path string) map[string][]byte {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	length := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+length], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for name, h := range header {
		out[name] = file[8+int(length)+h.Offsets[0] : 8+int(length)+h.Offsets[1]]
	}
	return out
}

// What two ranks wrote is, put together again, the model; beside it lies what an engine reads besides weights, and the manifest that says
// what it is. The second who asks gets what is there.
func TestMake(t *testing.T) {
	job, s, tensors := engine(t, 2, nil)
	var phases []Phase
	job.Progress = func(p Progress) {
		if !slices.Contains(phases, p.Phase) {
			phases = append(phases, p.Phase)
		}
		if p.Share < 0 || p.Share > 1 {
			t.Errorf("progress %+v", p)
		}
	}
	found := mustMake(t, s, job)
	if phases[0] != Starting || phases[len(phases)-1] != Finished || !slices.Contains(phases, Verifying) {
		t.Errorf("phases %v", phases)
	}
	var names []string
	for _, f := range found.Files {
		names = append(names, f.Path)
	}
	slices.Sort(names)
	want := []string{"code/modeling.py", "config.json", "model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors", ManifestName, "tokenizer.json"}
	if !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	ranks := []map[string][]byte{tensorsOf(t, filepath.Join(found.Path, names[2])), tensorsOf(t, filepath.Join(found.Path, names[3]))}
	for name, content := range tensors {
		whole := string(ranks[0][name]) + string(ranks[1][name])
		if replicated := len(whole) == 2*len(content); replicated && whole != string(content)+string(content) || !replicated && whole != string(content) {
			t.Errorf("%s is not what it was", name)
		}
	}
	m, err := ReadManifest(found.Path)
	if err != nil || m == nil || m.Recipe.Fits(job.Recipe) != nil || len(m.Files) != 2 || m.Files[1].Rank != 1 || m.Files[1].Tensors != len(tensors) {
		t.Fatalf("manifest %+v, %v", m, err)
	}
	for _, f := range m.Files {
		info, err := os.Stat(filepath.Join(found.Path, f.Name))
		if err != nil || info.Size() != f.Size || !slices.ContainsFunc(found.Files, func(s store.File) bool { return s.Path == f.Name && s.SHA256 == f.SHA256 }) {
			t.Errorf("manifest says %+v of %v, %v", f, info, err)
		}
	}
	job.Command = []string{"/nonexistent"} // must not be needed any more
	if again := mustMake(t, s, job); again.Path != found.Path {
		t.Errorf("found %s, then %s", found.Path, again.Path)
	}
	if left := leftOvers(t, s, job); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// leftOvers are what lies in the model's folder of the store beside what was published.
func leftOvers(t *testing.T, s *store.Store, job Job) (left []string) {
	t.Helper()
	making, err := s.Make(t.Context(), job.Recipe.Repo(), "probe", "a test", 0) // to learn where it is
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(making.Path)
	if err := making.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "partial" && e.Name() != "users" && e.Name() != "used" {
			left = append(left, e.Name())
		}
	}
	return left
}

// Large weights come in several files.
func TestParts(t *testing.T) {
	job, _, tensors := engine(t, 1, nil)
	out := t.TempDir()
	p := program{
		python: job.Command[0], env: append(os.Environ(), "PYTHONPATH="+job.Env["PYTHONPATH"]), log: job.Log, out: out, maxPart: 3000,
		options: append([]string{"--model-path", job.Source}, job.Options...), stall: time.Minute, report: func(Progress) {},
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, logOf(t, job))
	}
	parts, err := readParts(out, 1)
	if err != nil || len(parts) < 3 || p.version != "0.5.15" {
		t.Fatalf("%d parts, version %q, %v", len(parts), p.version, err)
	}
	n := 0
	for _, p := range parts {
		n += len(p.tensors)
	}
	if n != len(tensors) {
		t.Errorf("%d tensors, want %d", n, len(tensors))
	}
}

// Whatever goes wrong is named, and leaves neither an artefact nor a file nor a process.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		fail  string
		class backends.Class
		says  string
	}{
		{"oom", backends.ClassOutOfMemory, ""},
		{"unsupported", backends.ClassUnsupported, "LlamaForCausalLM"},
		{"disk", backends.ClassDiskFull, ""},
		{"quiet", backends.ClassDiskFull, "rank 1"},
		{"killed", backends.ClassKilled, ""},
		{"hang", backends.ClassHang, ""},
	} {
		t.Run(c.fail, func(t *testing.T) {
			t.Parallel()
			job, s, _ := engine(t, 2, map[string]string{"SGLANG_SIM_SHARD": c.fail})
			if c.fail == "hang" {
				job.Stall = 3 * time.Second
			}
			_, err := Make(t.Context(), s, slog.New(slog.DiscardHandler), job)
			var f *backends.Failure
			if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(err.Error()+f.Message, c.says) {
				t.Errorf("got %v\n%s", err, logOf(t, job))
			}
			if _, err := Find(s, job.Recipe); !errors.Is(err, store.ErrIncomplete) {
				t.Errorf("it is in the store: %v", err)
			}
			if left := leftOvers(t, s, job); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// Who gives up ends all processes at once.
func TestCancel(t *testing.T) {
	job, s, _ := engine(t, 2, map[string]string{"SGLANG_SIM_SHARD": "hang"})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	reason := errors.New("enough")
	job.Progress = func(p Progress) {
		if p.Phase == Writing {
			cancel(reason)
		}
	}
	if _, err := Make(ctx, s, slog.New(slog.DiscardHandler), job); !errors.Is(err, reason) {
		t.Fatalf("got %v\n%s", err, logOf(t, job))
	}
	if left := leftOvers(t, s, job); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// One who is killed leaves no process; the folder that it was writing to is gone when the next one comes.
func TestKilled(t *testing.T) {
	if job := os.Getenv("SHARD_TEST_JOB"); job != "" {
		var j Job
		if err := json.Unmarshal([]byte(job), &j); err != nil {
			t.Fatal(err)
		}
		s, err := store.New(store.Options{Path: os.Getenv("SHARD_TEST_STORE")})
		if err != nil {
			t.Fatal(err)
		}
		j.Progress = func(p Progress) {
			if p.Phase == Writing {
				if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		}
		_, err = Make(t.Context(), s, slog.New(slog.DiscardHandler), j)
		t.Fatalf("not killed: %v", err)
	}
	job, _, _ := engine(t, 2, map[string]string{"SGLANG_SIM_SHARD": "hang"})
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.New(store.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	runKilled(t, text, dir)
	if _, err := Find(s, job.Recipe); !errors.Is(err, store.ErrIncomplete) {
		t.Errorf("it is in the store: %v", err)
	}
	making, err := filepath.Glob(filepath.Join(dir, "models--sharded--org__model", ".pilotlight", "making-*"))
	if err != nil || len(making) != 1 {
		t.Fatalf("the killed one left %v, %v", making, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(processesWith(t, job.Source)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("processes left: %v", processesWith(t, job.Source))
		}
		time.Sleep(20 * time.Millisecond)
	}
	delete(job.Env, "SGLANG_SIM_SHARD")
	mustMake(t, s, job)
	if left := leftOvers(t, s, job); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
