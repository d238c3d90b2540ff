package sglangsim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Faults are the misbehaviours that a server can be asked for. The zero value of each field but HangAfter is off.
type Faults struct {
	Fail       string        // a mode of startFailures
	FailAfter  time.Duration // 0: when the phase comes in which it happens
	FailStarts int           // 0: every start fails; otherwise the first ones, counted in FailFile
	FailFile   string
	ModelCheck bool

	CrashAfter   time.Duration
	CrashTokens  int
	HangAfter    time.Duration // negative: never
	Sleep        string        // one of sleepFaults; empty: none
	SleepDelay   time.Duration
	Wake         string // one of wakeFaults; empty: none
	WakeDelay    time.Duration
	Health503    int
	HeadersDelay time.Duration
	CutTokens    int
	Cut          string // rst, fin or clean; empty is fin
	ErrorTokens  int
	ResetReuse   int
	Every        int // stream faults and HeadersDelay hit each such request; 0 is taken as 1
}

// startFailure is one way in which a start ends early.
type startFailure struct {
	mode  string
	help  string
	until string // how the first line begins that is not printed any more; empty: none is
	text  string
	// sched: the exception is the scheduler's, so that main is told by SIGQUIT and the process ends by SIGKILL.
	sched bool
	code  int // exit code otherwise; -1: SIGKILL without a word
	hang  bool
}

// weightsFraction is the share of an H200's memory that SmolLM2-135M's weights take: --mem-fraction-static below it leaves nothing for the cache.
const weightsFraction = 0.003

// failWarmup is the failure that comes after the port was bound.
const failWarmup = "warmup"

// startFailures is the table behind --sim-fail. The texts are those that SGLang 0.5.15 prints (not-found, kv-memory and
// sigquit seen on the real thing, the others from its sources or, for messages of libraries, from public reports).
var startFailures = sync.OnceValue(func() []startFailure {
	return []startFailure{
		{mode: "exit", help: "exits with 1 at once, after an unspecific traceback", code: 1, text: "RuntimeError: simulated failure of the start"},
		{mode: "hang", help: "prints nothing more, never binds, never ends", hang: true},
		{mode: "killed", help: "dies by SIGKILL without a word (with --sim-fail-after: as late as wanted)", until: "KV Cache", code: -1},
		{mode: "oom", help: "CUDA out of memory while loading the weights", until: "Load weight end", sched: true, text: "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 139.80 GiB of which 86.19 MiB is free. Including non-PyTorch memory, this process has 139.71 GiB memory in use. Of the allocated memory 138.90 GiB is allocated by PyTorch, and 112.35 MiB is reserved by PyTorch but unallocated."},
		{mode: "kv-memory", help: "no memory left for the KV cache", until: "KV Cache", sched: true, text: "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static={fraction}. Raise --mem-fraction-static above 0.003 (weights and reserved memory use about 0.3% of the GPU), use a GPU with more memory, or use a quantized model."},
		{mode: "kv-memory-old", help: "the same as older releases say it", until: "KV Cache", sched: true, text: "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: self.server_args.mem_fraction_static=0.8"},
		{mode: "graph-memory", help: "no memory left for CUDA graphs", until: "Capture target decode CUDA graph end", sched: true, text: "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 64.00 MiB.\nPossible solutions:\n1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)\n2. set --cuda-graph-max-bs to a smaller value (e.g., 16)\n3. disable torch compile by not using --enable-torch-compile\n4. disable CUDA graph by --disable-cuda-graph. (Not recommended. Huge performance loss)\nOpen an issue on GitHub https://github.com/sgl-project/sglang/issues/new/choose"},
		{mode: "gated", help: "a gated repository without a token that may read it", until: "Using default", code: 1, text: "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/{model}.\n401 Client Error. (Request ID: Root=1-6923d9f1)\n\nCannot access gated repo for url https://huggingface.co/{model}/resolve/main/config.json.\nAccess to model {model} is restricted. You must have access to it and be authenticated to access it. Please log in."},
		{mode: "not-found", help: "a local folder that does not exist", until: "Using default", code: 1, text: "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{model}'. Use `repo_type` argument if needed."},
		{mode: "no-repo", help: "a repository that does not exist", until: "Using default", code: 1, text: "OSError: {model} is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf this is a private repository, make sure to pass a token having permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`"},
		{mode: "no-weights", help: "a repository without weight files", until: "\n", sched: true, text: "RuntimeError: Cannot find any model weights with `{model}`"},
		{mode: "unsupported", help: "an architecture that SGLang does not know", until: "\n", sched: true, text: "ValueError: Model architectures ['SimForCausalLM'] are not supported for now. Supported architectures: dict_keys(['LlamaForCausalLM', 'Qwen3ForCausalLM'])"},
		{mode: "no-gpu", help: "no accelerator", code: 1, text: "RuntimeError: No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS) is available."},
		{mode: "driver", help: "a driver too old for the CUDA runtime", until: "Init torch distributed begin", sched: true, text: "RuntimeError: CUDA driver version is insufficient for CUDA runtime version"},
		{mode: "nccl", help: "NCCL cannot connect the ranks", until: "Init torch distributed ends", sched: true, text: "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.3"},
		{mode: "disk-full", help: "no space left on the device", until: "Init torch", code: 1, text: "OSError: [Errno 28] No space left on device"},
		{mode: "host-oom", help: "the kernel kills the scheduler for memory", until: "Load weight end", code: 1, text: "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If exit code is -9 (SIGKILL), a common cause is the OS OOM killer. Run `dmesg -T | grep -i oom` to check."},
		{mode: failWarmup, help: "the warm-up request fails after the port was bound"},
	}
})

func failModes() []string {
	var modes []string
	for _, f := range startFailures() {
		modes = append(modes, f.mode)
	}
	return modes
}

// failure decides whether this start fails, and how. It counts the start when FailStarts asks for it.
func (o *Options) failure() (*startFailure, error) {
	mode := o.Faults.Fail
	if o.Faults.FailStarts > 0 {
		n, err := countStart(o.Faults.FailFile)
		if err != nil {
			return nil, fmt.Errorf("counting starts in %s: %w", o.Faults.FailFile, err)
		}
		if n > o.Faults.FailStarts {
			mode = ""
		} else if mode == "" {
			mode = "exit"
		}
	}
	if mode == "" && o.Faults.ModelCheck && o.LoadFormat != "dummy" && strings.ContainsRune("/.", rune((o.ModelPath + " ")[0])) {
		if _, err := os.Stat(o.ModelPath); errors.Is(err, fs.ErrNotExist) {
			mode = "not-found"
		}
	}
	fraction := "0.0001"
	if given := o.Args["mem_fraction_static"]; mode == "" && len(given) > 0 {
		if v, err := strconv.ParseFloat(given[len(given)-1], 64); err == nil && v < weightsFraction {
			mode, fraction = "kv-memory", given[len(given)-1]
		}
	}
	for _, f := range startFailures() {
		if f.mode == mode {
			f.text = strings.NewReplacer("{model}", o.ModelPath, "{fraction}", fraction).Replace(f.text)
			return &f, nil
		}
	}
	if mode != "" {
		return nil, fmt.Errorf("unknown failure %q", mode)
	}
	return nil, nil
}

// countStart adds one to the number in the file and returns it. Starts that race are counted one after the other.
func countStart(path string) (n int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return 0, err
	}
	buf := make([]byte, 32)
	size, err := f.ReadAt(buf, 0)
	if err != nil && size == 0 && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if text := strings.TrimSpace(string(buf[:size])); text != "" {
		if n, err = strconv.Atoi(text); err != nil {
			return 0, err
		}
	}
	n++
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(n)+"\n"), 0)
	return n, err
}

// streamFaults are the faults of one inference request.
type streamFaults struct {
	cutTokens, errorTokens int
	cut                    string
	headersDelay           time.Duration
}

// nextFaults draws the faults for the next inference request.
func (s *Server) nextFaults() streamFaults {
	f := &s.opts.Faults
	n := s.faultTurn.Add(1)
	if f.Every > 1 && n%int64(f.Every) != 0 {
		return streamFaults{}
	}
	return streamFaults{f.CutTokens, f.ErrorTokens, f.Cut, f.HeadersDelay}
}
