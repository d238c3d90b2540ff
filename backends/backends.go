// Package backends says what a replica is: the plain values that describe how to run one (Spec),
// how to reach one (Endpoint) and why one failed (Failure). Drivers live below it, one folder each:
// process/ starts engines on this machine, static/ watches servers that somebody else runs, sglang/
// knows SGLang's flags, output and failures, transport/ is the client half of a replica's HTTP.
//
// The values here are immutable once handed over and safe to share between goroutines.
package backends

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Engine names the kind of server that a replica runs.
type Engine string

const (
	// EngineSGLang gets SGLang's flags, probes, log phases, rid and abort.
	EngineSGLang Engine = "sglang"
	// EngineOpenAI is any OpenAI-compatible server: nothing is assumed but its routes and a probe path.
	EngineOpenAI Engine = "openai"
)

// Driver names what starts and stops replicas.
type Driver string

const (
	DriverProcess Driver = "process"
	DriverStatic  Driver = "static"
)

// Secret is read from File at each start and given to the engine as environment variable Env.
// Its value is masked wherever a spec is shown.
type Secret struct {
	Name string
	Env  string
	File string
}

// Spec is everything that makes a replica of one model. Two specs with the same Hash run
// interchangeable replicas, so a reload that leaves the hash alone restarts nothing.
type Spec struct {
	// Model is the resource name (lowercase letters, digits, '-'); ModelID what clients send.
	Model   string
	ModelID string
	// ServedName is the name told to the engine. It holds no ':' (SGLang reads one as a LoRA adapter).
	ServedName string
	Engine     Engine
	Driver     Driver

	// Command is the program and its leading arguments. For EngineSGLang the driver appends
	// --model-path, --served-model-name, --host, --port, --api-key and then ExtraArgs. For EngineOpenAI the
	// placeholders {host}, {port}, {api_key}, {model_path} and {served_name} are replaced in Command and ExtraArgs.
	Command   []string
	ExtraArgs []string
	// ModelPath is a local folder or a Hugging Face repository id; the engine gets it as it is, unless Weights say where its files come from.
	ModelPath string
	// Weights are what the store provides; the zero value: nothing, and ModelPath is the engine's own business.
	Weights Weights `json:",omitzero"`
	// Stream makes the engine read its weights from ModelPath, an object store's folder, without a copy on disk. EngineSGLang only; Weights
	// then name the other files of the same place.
	Stream bool `json:",omitempty"`
	// Shard is how these weights, or those in the folder ModelPath, are cut up before an engine loads them; the zero value: not at all.
	// EngineSGLang and DriverProcess only.
	Shard   Shard `json:",omitzero"`
	Env     map[string]string
	Secrets []Secret
	Dir     string // working folder; empty: the gateway's own
	// Probe is the readiness path, such as /health.
	Probe string
	// URLs are the base addresses of DriverStatic's replicas, without a trailing slash.
	URLs []string
	// StaticAPIKey goes as a bearer token to DriverStatic's replicas; empty: none.
	StaticAPIKey string

	// Devices are what each replica needs of the machine's GPUs; the zero value: nothing that anybody keeps account of.
	Devices Devices `json:",omitzero"`

	// Sleep is what replicas give back when they are put to sleep; empty: they never are. EngineSGLang and DriverProcess only.
	Sleep Sleep `json:",omitempty"`

	// CacheReport makes answers tell how much of the prompt the engine had cached, for whoever chooses among several replicas.
	// EngineSGLang and DriverProcess only.
	CacheReport bool `json:",omitempty"`

	// StartTimeout bounds a start without progress; each line of new progress re-arms it. 0 means 20 minutes.
	StartTimeout time.Duration
}

// Weights name a model of the store, and where the store has it from.
type Weights struct {
	// Name is that of an artefact; empty: that of Origin.
	Name string `json:",omitempty"`
	// Origin is a hub's model, a folder or an address; empty: whatever the store has under Name.
	Origin   string   `json:",omitempty"`
	Revision string   `json:",omitempty"` // empty: the origin's default
	Include  []string `json:",omitempty"` // patterns of the files that are needed; empty: all
	Exclude  []string `json:",omitempty"`
	// IfPresent: the store provides what it has, and fetches nothing; else the engine gets ModelPath.
	IfPresent bool `json:",omitempty"`
}

// Label is a word for people: the name, or else the origin.
func (w Weights) Label() string {
	if w.Name != "" {
		return w.Name
	}
	return w.Origin
}

// Shard is how many parts weights are cut into, with the engine's own code.
type Shard struct {
	TP int // tensor parallel ranks, each of which gets its own files
	// TrustRemoteCode: the engine may run code that comes with the model while it cuts.
	TrustRemoteCode bool `json:",omitempty"`
}

// Sleep is how much of its GPU memory an engine gives back while it sleeps.
type Sleep string

const (
	SleepKV      Sleep = "kv"      // the KV cache; weights stay on the device
	SleepWeights Sleep = "weights" // the weights, too; a copy stays in the machine's memory
)

// Devices are a number of GPUs of one kind.
type Devices struct {
	Kind  string // Flyte's spelling; empty: any
	Count int
	Share int `json:",omitempty"` // thousandths of the only one; 0: whole ones
}

// Placement is what one replica was given of the machine: GPUs, and files of the store. The zero value says nothing, and the engine sees what
// the gateway sees.
type Placement struct {
	// Devices are their names for CUDA_VISIBLE_DEVICES.
	Devices []string
	// Share of the only device in thousandths; 0: whole devices.
	Share int
	// MemoryFraction is SGLang's --mem-fraction-static; 0: not given, for whole devices.
	MemoryFraction float64

	// ModelPath is the folder that takes the place of Spec.ModelPath; empty: none does.
	ModelPath string
	// Args stand behind Spec.ExtraArgs: what that folder needs. EngineSGLang only.
	Args []string
	// Env are variables that hold where neither the gateway's environment nor the spec has them.
	Env map[string]string
	// Files are inherited by the engine, which does nothing with them: what they stand for lasts as long as its process.
	Files []*os.File
}

// Hash identifies the spec: equal hashes mean that a running replica need not be replaced.
func (s *Spec) Hash() string {
	same := *s
	same.CacheReport = false // more replicas do not replace those that there are
	same.StartTimeout = 0    // how long somebody waits for it does not make another replica
	if same.Weights.IfPresent {
		same.Weights = Weights{} // the engine finds the same files by itself
	}
	b, err := json.Marshal(same) // maps are marshalled in key order
	if err != nil {
		panic("BUG: a spec holds only plain values: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Endpoint is how to reach one ready replica.
type Endpoint struct {
	Addr       string // host:port
	TLS        bool
	PathPrefix string // put before every path, for static URLs such as http://host/llm; usually empty
	APIKey     string // sent as bearer token; empty: none
	Engine     Engine
	ServedName string
	// Concurrency is the engine's own limit of requests at once; 0: not known.
	Concurrency int
}

// Phase is a stretch of a start, as told to waiting clients.
type Phase string

const (
	PhaseQueued   Phase = "queued"   // waits for devices
	PhaseLaunch   Phase = "launch"   // process started, imports
	PhaseDownload Phase = "download" // weights on their way to this machine
	PhaseShard    Phase = "shard"    // weights are cut up, once
	PhaseWeights  Phase = "weights"  // weights on their way to the device
	PhaseKVCache  Phase = "kv_cache"
	PhaseGraphs   Phase = "cuda_graphs"
	PhaseWarmup   Phase = "warmup"
)

// Progress is how far a start has come.
type Progress struct {
	Phase Phase
	// Share of the phase that is over, 0 to 1; 0 also means not known.
	Share float64
	// Percent of the whole start, 0 to 99, under a guess of how long phases are: whoever has seen this model start before knows better.
	Percent float64
	// ReadBytes is what the engine's processes have read since they began; 0 also means not known.
	ReadBytes int64
}

// Class names the cause of a failed start or a death, for metrics, logs and clients.
type Class string

const (
	ClassOutOfMemory   Class = "out_of_memory"
	ClassModelNotFound Class = "model_not_found_upstream"
	ClassGated         Class = "model_gated"
	ClassUnsupported   Class = "unsupported_model"
	ClassBadFlag       Class = "invalid_launch_argument"
	ClassPortTaken     Class = "port_taken"
	ClassDriver        Class = "device_error"
	ClassDiskFull      Class = "disk_full"
	ClassKilled        Class = "killed"
	ClassHang          Class = "start_hang"
	ClassExited        Class = "engine_exited"
	ClassNotFound      Class = "command_not_found"
	ClassUnreachable   Class = "unreachable"
	ClassStopped       Class = "stopped"
	// ClassBusy is GPUs that others have for good.
	ClassBusy Class = "gpus_busy"
	// ClassSecret is a secret's file that cannot be read; ClassLaunch is a machine that cannot start a
	// process or keep its records.
	ClassSecret Class = "secret_unavailable"
	ClassLaunch Class = "launch_error"
)

// Failure is why a replica did not start, or died. Message and Advice go to clients, so they hold no
// addresses, paths, tokens or output; Lines are for the log.
type Failure struct {
	Class     Class
	Message   string // one sentence, such as "the engine ran out of GPU memory while loading the weights"
	Advice    string // what an operator should change; may be empty
	Permanent bool   // trying again without a change cannot help
	Lines     []string
	Err       error // for errors.Is; may be nil
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return fmt.Sprintf("%s: %s: %v", f.Class, f.Message, f.Err)
	}
	return fmt.Sprintf("%s: %s", f.Class, f.Message)
}

func (f *Failure) Unwrap() error { return f.Err }

// IsPermanent lets packages that may not import this one ask the question through an interface.
func (f *Failure) IsPermanent() bool { return f.Permanent }
