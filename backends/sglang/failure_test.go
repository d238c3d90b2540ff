package sglang

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pilotlight/backends"
)

func tailOf(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fail-"+name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestClassifyNamesTheCause(t *testing.T) {
	killed := ExitStatus{Signal: syscall.SIGKILL}
	for _, c := range []struct {
		log       string
		exit      ExitStatus
		class     backends.Class
		permanent bool
		message   string // must be part of it
		advice    string // must be part of it
		args      []string
	}{
		{"flag", ExitStatus{Code: 2}, backends.ClassBadFlag, true, "--max-model-len", "--context-length", nil},
		{"missing-folder", ExitStatus{Code: 1}, backends.ClassModelNotFound, true, "not found", "revision", nil},
		{"no-kv-memory", killed, backends.ClassOutOfMemory, true, "cache", "above 0.003", nil},
		{"not-enough", killed, backends.ClassOutOfMemory, true, "cache", "--mem-fraction-static", nil},
		{"oom-weights", killed, backends.ClassOutOfMemory, true, "while loading the weights", "--tp-size", nil},
		{"oom-serving", killed, backends.ClassOutOfMemory, false, "while answering", "--chunked-prefill-size", nil},
		{"graph-capture", killed, backends.ClassOutOfMemory, true, "CUDA graphs", "0.8", nil},
		{"gated", ExitStatus{Code: 1}, backends.ClassGated, true, "gated", "HF_TOKEN", nil},
		{"offline", ExitStatus{Code: 1}, backends.ClassUnreachable, false, "could not be reached", "network", nil},
		{"unsupported", killed, backends.ClassUnsupported, true, "architecture", "newer SGLang", nil},
		{"divisible", killed, backends.ClassBadFlag, true, "cut", "--tp-size", nil},
		{"port", ExitStatus{Code: 1}, backends.ClassPortTaken, false, "port", "", nil},
		{"dp-port", ExitStatus{Code: 1}, backends.ClassPortTaken, false, "port", "", nil},
		{"disk", ExitStatus{Code: 1}, backends.ClassDiskFull, false, "disk", "free disk space", nil},
		{"shm", killed, backends.ClassDriver, false, "shared memory", "shm", nil},
		{"host-oom", ExitStatus{Code: 1}, backends.ClassKilled, false, "ran out of memory", "more memory", nil},
		{"no-module", ExitStatus{Code: 1}, backends.ClassNotFound, true, "sglang", "install", nil},
		{"optional-module", ExitStatus{Code: 1}, backends.ClassExited, false, "exited", "log", nil},
		{"watchdog", killed, backends.ClassHang, false, "hung", "--watchdog-timeout", nil},
		{"warmup", killed, backends.ClassExited, false, "first request", "proxy", nil},
		{"remote-code", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "code of its own", "--trust-remote-code", nil},
		{"context", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "context length", "--context-length", nil},
		{"driver", killed, backends.ClassDriver, true, "driver", "build", nil},
		{"no-gpu", ExitStatus{Code: 1}, backends.ClassDriver, true, "no GPU", "driver", nil},
		{"child", killed, backends.ClassExited, false, "a part of the engine crashed", "log", nil},
		{"weights-missing", killed, backends.ClassModelNotFound, true, "no weight files", "--load-format", nil},
		{"sharded", killed, backends.ClassModelNotFound, true, "sharded", "--tp-size", nil},
		{"graph-decode", killed, backends.ClassOutOfMemory, true, "512.00 MiB, and 301.19 MiB of the GPU's 79.10 GiB", "from 0.9 to 0.82, or capture fewer batch sizes with --cuda-graph-max-bs-decode 64 (it went up to 256)", []string{"--mem-fraction-static", "0.9"}},
		{"graph-decode", killed, backends.ClassOutOfMemory, true, "CUDA graphs", "another process holds 4.20 GiB", nil},
		{"oom-weights", killed, backends.ClassOutOfMemory, true, "224.00 MiB, and 93.50 MiB of the GPU's 23.68 GiB were free", "--tp-size 4", []string{"--tp=2"}},
		{"oom-serving", killed, backends.ClassOutOfMemory, false, "1.50 GiB more", "--chunked-prefill-size", nil},
		{"not-enough", killed, backends.ClassOutOfMemory, true, "cache", "from 0.5 to 0.9", nil},
		{"not-enough-figures", killed, backends.ClassOutOfMemory, true, "cache", "above 0.78", nil},
		{"not-enough-gpu", killed, backends.ClassOutOfMemory, true, "cache", "96 % of the GPU", nil},
		{"unbalanced", killed, backends.ClassOutOfMemory, false, "39.1 GB", "free the GPUs", nil},
		{"context", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "context length", "lower --context-length to 8192", nil},
		{"colon", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "colon", "--served-model-name", nil},
		{"not-divisible", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "(5 by 2)", "--tp-size", nil},
		{"divisible", killed, backends.ClassBadFlag, true, "(4)", "--tp-size", []string{"--tp-size", "4"}},
		{"ordinal", killed, backends.ClassBadFlag, true, "more GPUs", "which is 4", []string{"--tp-size", "4"}},
		{"watchdog", killed, backends.ClassHang, false, "for 300 s", "above 300", nil},
		{"unsupported", killed, backends.ClassUnsupported, true, "FancyForCausalLM", "newer SGLang", nil},
		{"old-driver", killed, backends.ClassDriver, true, "CUDA 12.4", "driver", nil},
		{"mismatch", ExitStatus{Code: 1}, backends.ClassDriver, true, "updated", "reboot", nil},
		{"fabric", killed, backends.ClassDriver, false, "fabric", "nvidia-fabricmanager", nil},
		{"nccl", killed, backends.ClassDriver, false, "talk", "NCCL_DEBUG", nil},
		{"store-timeout", killed, backends.ClassDriver, false, "talk", "network interfaces", nil},
		{"token", ExitStatus{Code: 1}, backends.ClassGated, true, "refused access", "HF_TOKEN", nil},
		{"store-credentials", ExitStatus{Code: 1}, backends.ClassGated, true, "object store", "AWS_ACCESS_KEY_ID", nil},
		{"hub-offline", ExitStatus{Code: 1}, backends.ClassModelNotFound, true, "cache", "HF_HUB_OFFLINE", nil},
		{"damaged", killed, backends.ClassModelNotFound, true, "damaged", "fetch the model again", nil},
		{"streamer", killed, backends.ClassUnreachable, false, "streamed", "RUNAI_STREAMER_LOG_LEVEL=DEBUG", nil},
		{"bootstrap-port", ExitStatus{Code: 1}, backends.ClassPortTaken, false, "port", "", nil},
		{"space-figures", ExitStatus{Code: 1}, backends.ClassDiskFull, false, "4976.70 MB, and 312.15 MB are free", "free disk space", nil},
		{"nvcc", killed, backends.ClassNotFound, true, "compiler", "nvcc", nil},
		{"host-memory", killed, backends.ClassOutOfMemory, false, "machine ran out of memory", "more memory", nil},
		{"version", ExitStatus{Code: 1}, backends.ClassExited, true, "do not fit", "flashinfer", nil},
		{"silent", killed, backends.ClassKilled, false, "killed", "memory", nil},
		{"silent", ExitStatus{Code: 137}, backends.ClassKilled, false, "killed", "memory", nil},
		{"silent", ExitStatus{Code: 143}, backends.ClassKilled, false, "asked to end", "", nil},
		{"silent", ExitStatus{Signal: syscall.SIGSEGV}, backends.ClassExited, false, "crashed", "", nil},
		{"silent", ExitStatus{Code: 2}, backends.ClassBadFlag, true, "arguments", "--help", nil},
		{"silent", ExitStatus{Code: 3}, backends.ClassExited, false, "exited", "", nil},
		{"silent", ExitStatus{}, backends.ClassExited, false, "exited", "", nil},
		{"silent", ExitStatus{Unknown: true}, backends.ClassExited, false, "exited", "", nil},
	} {
		t.Run(c.log+" "+c.exit.String(), func(t *testing.T) {
			f := Classify(tailOf(t, c.log), c.exit, c.args...)
			if f.Class != c.class || f.Permanent != c.permanent {
				t.Errorf("got class %s, permanent %t; want %s, %t", f.Class, f.Permanent, c.class, c.permanent)
			}
			if !strings.Contains(f.Message, c.message) || f.Message == "" {
				t.Errorf("got message %q; want %q in it", f.Message, c.message)
			}
			if !strings.Contains(f.Advice, c.advice) {
				t.Errorf("got advice %q; want %q in it", f.Advice, c.advice)
			}
			inside := regexp.MustCompile(`(^|\s|'|")/\w|https?:|\d+\.\d+\.\d+\.\d+|localhost|hf_|secret`)
			if m := inside.FindString(f.Message + " " + f.Advice); m != "" {
				t.Errorf("client text %q, %q holds %q", f.Message, f.Advice, m)
			}
			if got := f.Error(); !strings.Contains(got, c.exit.String()) {
				t.Errorf("error text %q does not say %q", got, c.exit)
			}
		})
	}
}

// The wordings that docs/facts/sglang.md lists, one line each, where testdata has another one.
func TestClassifyKnowsEveryWording(t *testing.T) {
	for line, want := range map[string]backends.Class{
		"sglang serve: error: ambiguous option: --pp could match --pp-size, --pp-max-micro-batch-size":                                            backends.ClassBadFlag,
		"sglang serve: error: argument --load-format: invalid choice: 'quick' (choose from 'auto', 'pt')":                                         backends.ClassBadFlag,
		"sglang serve: error: argument --tp-size: expected one argument":                                                                          backends.ClassBadFlag,
		"AssertionError: tp_size must be divisible by number of nodes":                                                                            backends.ClassBadFlag,
		"ValueError: The output_size of gate's and up's weight = 1408 is not divisible by weight quantization block_n = 128.":                     backends.ClassBadFlag,
		"HIP out of memory. Tried to allocate 2.00 GiB.":                                                                                          backends.ClassOutOfMemory,
		"OSError: org/m is not a local folder and is not a valid model identifier listed on 'https://hf.co'":                                      backends.ClassModelNotFound,
		"huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.":                                                                       backends.ClassModelNotFound,
		"huggingface_hub.errors.EntryNotFoundError: 404 Client Error. Entry Not Found for url":                                                    backends.ClassModelNotFound,
		"ValueError: Could not find checkpoint files '/m/model-rank-0-part-*.safetensors', only pre-sharded checkpoints are currently supported!": backends.ClassModelNotFound,
		"requests.exceptions.HTTPError: 403 Client Error: Forbidden for url":                                                                      backends.ClassGated,
		"ValueError: Model architectures ['XForCausalLM'] failed to be inspected. Please check the logs for more details.":                        backends.ClassUnsupported,
		"RuntimeError: CUDA driver version is insufficient for CUDA runtime version":                                                              backends.ClassDriver,
		"ncclRemoteError: A call failed possibly due to a network error":                                                                          backends.ClassDriver,
		"RuntimeError: CUDA error: an illegal memory access was encountered":                                                                      backends.ClassDriver,
		"RuntimeError: Found no NVIDIA driver on your system.":                                                                                    backends.ClassDriver,
		"ValueError: Port 30233 is not available":                                                                                                 backends.ClassPortTaken,
		"RuntimeError: Port is already in use":                                                                                                    backends.ClassPortTaken,
		"AssertionError: sglang-kernel is installed with version 0.3.1 which is less than the minimum":                                            backends.ClassExited,
		"RuntimeError: Rank 0 scheduler died during initialization (exit code: -11).":                                                             backends.ClassExited,
		"Initialization failed. warmup error: timed out":                                                                                          backends.ClassExited,
		"requests.exceptions.HTTPError: 429 Client Error: Too Many Requests":                                                                      backends.ClassUnreachable,
	} {
		f := Classify([]string{line}, ExitStatus{Unknown: true})
		if f.Class != want || f.Message == "the engine exited by itself" || f.Advice == "" {
			t.Errorf("%q: got %s, %q, advice %q; want %s", line, f.Class, f.Message, f.Advice, want)
		}
	}
	// It is no failure when the cache is full; the engine takes requests back and goes on.
	if f := Classify([]string{"KV cache pool is full. Retract requests. #retracted_reqs: 1"}, ExitStatus{Code: 1}); f.Class != backends.ClassExited {
		t.Errorf("got %s for a full cache", f.Class)
	}
	if f := Classify([]string{"Rank 0 scheduler died during initialization (exit code: -11)."}, ExitStatus{Code: 1}); !strings.HasSuffix(f.Message, ": segmentation fault") {
		t.Errorf("got %q", f.Message)
	}
}

// Every excerpt in testdata is used, so that a new one cannot be forgotten in the table.
func TestClassifyKnowsEveryExcerptWithoutItsExitStatus(t *testing.T) {
	files, err := filepath.Glob("testdata/fail-*.log")
	if err != nil || len(files) < 20 {
		t.Fatalf("got %d excerpts, error %v", len(files), err)
	}
	unsigned := []string{"silent", "child", "optional-module"}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "fail-"), ".log")
		byText := Classify(tailOf(t, name), ExitStatus{Unknown: true})
		generic := byText.Message == "the engine exited by itself" || byText.Message == "a part of the engine crashed"
		if generic != slices.Contains(unsigned, name) {
			t.Errorf("%s: got %q without an exit status", name, byText.Message)
		}
	}
}

func TestClassifyFindsASignatureAmongManyLines(t *testing.T) {
	var tail []string
	for range 150 {
		tail = append(tail, "  File \"x.py\", line 1, in f")
	}
	tail = append(tail, "torch.OutOfMemoryError: CUDA out of memory.", "Authorization: Bearer abcdef")
	for range 5 {
		tail = append(tail, "[rank0]: done")
	}
	f := Classify(tail, ExitStatus{Signal: syscall.SIGKILL})
	if f.Class != backends.ClassOutOfMemory {
		t.Errorf("got %s, want %s", f.Class, backends.ClassOutOfMemory)
	}
	if len(f.Lines) != kept {
		t.Errorf("got %d lines, want %d", len(f.Lines), kept)
	}
	if strings.Contains(strings.Join(f.Lines, "\n"), "abcdef") {
		t.Error("a bearer token is in the failure's lines")
	}
}

func TestClassifyAnyGivesNoAdviceInSGLangsWords(t *testing.T) {
	for _, c := range []struct {
		log   string
		exit  ExitStatus
		class backends.Class
	}{
		{"port", ExitStatus{Code: 1}, backends.ClassPortTaken},
		{"disk", ExitStatus{Code: 1}, backends.ClassDiskFull},
		{"no-module", ExitStatus{Code: 1}, backends.ClassNotFound},
		{"gated", ExitStatus{Code: 1}, backends.ClassGated},
		{"oom-serving", ExitStatus{Code: 1}, backends.ClassOutOfMemory},
		// Its wording is SGLang's alone.
		{"watchdog", ExitStatus{Code: 1}, backends.ClassExited},
	} {
		f := ClassifyAny(tailOf(t, c.log), c.exit)
		if f.Class != c.class {
			t.Errorf("%s: got %s, want %s", c.log, f.Class, c.class)
		}
		if strings.Contains(f.Advice, "SGLang") || strings.Contains(f.Advice, "--") {
			t.Errorf("%s: advice %q is for SGLang", c.log, f.Advice)
		}
	}
}

// Every phase that can be made shorter has a remedy, and weights have one for each kind of storage.
func TestRemedies(t *testing.T) {
	phases := []backends.Phase{backends.PhaseLaunch, backends.PhaseDownload, backends.PhaseWeights, backends.PhaseKVCache, backends.PhaseGraphs, backends.PhaseWarmup}
	for _, phase := range phases {
		if Remedy(phase, 0) == "" {
			t.Errorf("nothing helps with %s", phase)
		}
	}
	for rate, want := range map[float64]string{0: "stream the weights", 90e6: "faster storage (NVMe", 1e9: "faster storage, or", 3e9: "the storage is fast"} {
		if got := Remedy(backends.PhaseWeights, rate); !strings.Contains(got, want) {
			t.Errorf("weights at %.0f MB/s: %q", rate/1e6, got)
		}
	}
	if got := Remedy(backends.PhaseQueued, 0); got != "" {
		t.Errorf("waiting for GPUs is no phase of the engine's: %q", got)
	}
}
