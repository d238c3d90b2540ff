package sglangsim

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Options is everything a simulated server can be told. Start from Defaults: a zero duration or number is taken as
// it is (no wait, no limit, fault off), not as a default.
type Options struct {
	// SGLang's own settings; see the option of the same name.
	ModelPath          string
	ServedModelName    string // empty: ModelPath
	Host               string
	Port               int
	APIKey             string // empty: open to everybody
	AdminAPIKey        string
	TPSize             int
	ContextLength      int // tokens
	MaxTotalTokens     int // tokens in the KV pool; only reported
	MaxRunningRequests int // requests that generate at once; the rest wait in order of arrival
	MaxQueuedRequests  int // 0: no limit
	StreamInterval     int // tokens in a chunk; 0 is taken as 1
	RandomSeed         int64
	WatchdogTimeout    time.Duration // a hung server that has work dies after this; 0: never
	LoadFormat         string
	WeightVersion      string
	IsEmbedding        bool // embeddings instead of generation
	EmbedAndGenerate   bool // both, which no real server does
	MemorySaver        bool
	WeightsBackup      bool
	SkipWarmup         bool
	CacheReport        bool // --enable-cache-report
	UsageByDefault     bool // --stream-response-default-include-usage
	AutoTruncate       bool
	Metrics            bool
	AccessLog          bool

	Start  Profile
	Shards int // files in the weights' progress bar

	// TTFT is what the first token costs beside queue and prefill; PrefillRate is in prompt tokens a second, 0 is
	// infinite. A token takes ITL plus ITLPerRunning for each other running request.
	TTFT        time.Duration
	PrefillRate float64
	ITL         time.Duration
	// CacheTokens is how many tokens of prompts and answers the prefix cache holds; with it, prefill takes turns. 0: no cache, and each request
	// is prefilled as if it were alone.
	CacheTokens   int
	ITLPerRunning time.Duration
	OutputTokens  int // length of an answer whose request sets no limit

	InstantHealth bool          // SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0
	HealthDelay   time.Duration // time that a good generating probe takes (1 s in SGLang)
	HealthTimeout time.Duration // after which a probe of a hung, paused or sleeping server gives up (20 s)
	KeepAlive     time.Duration // idle connections are closed after this (5 s)
	// DisconnectDelay is how long generation goes on after the client left: 2.1 s were measured with SGLang 0.5.15.
	DisconnectDelay time.Duration
	DrainPoll       time.Duration // pace of the watcher that ends a drained process (5 s)
	ExitDelay       time.Duration // from the watcher's decision to the end (2.5 s)
	CrashDelay      time.Duration // from a misused sleep to the end of the process (5 s)
	PID1            bool          // SIGTERM is ignored until the server serves, as for PID 1 of a container
	Children        int           // child processes that outlive this one
	GPUDir          string        // the program leaves word there of the GPUs it is on; see claimGPUs

	Faults Faults

	// Occupied hears what of its memory the server occupies after each sleep and wake. It may be nil.
	Occupied func(kv, weights bool)

	// Args is the whole command line by attribute name, for the server_args line; it may be nil.
	Args   map[string][]string
	Stdout io.Writer // access lines; nil: dropped
	Stderr io.Writer // everything else; nil: dropped
	// Kill ends the process the way SIGKILL does and does not return. nil: Serve closes every connection and
	// returns ErrDied.
	Kill func()
	// Observe sees each request and its body before it is answered, on the request's goroutine. It may be nil.
	Observe func(r *http.Request, body []byte)
}

// Profile is how long each phase of a start takes.
type Profile struct {
	Import, Dist, Weights, KV, Graphs, Warmup time.Duration
}

// Total is the time from the start of the process to ready.
func (p Profile) Total() time.Duration {
	return p.Import + p.Dist + p.Weights + p.KV + p.Graphs + p.Warmup
}

// realProfile is a start of SGLang 0.5.15 on an H200 with warm kernel caches: the marks of testdata/start.log, in
// milliseconds. Imports dominate since the model was tiny.
func realProfile() Profile {
	return Profile{
		Import: 48460 * time.Millisecond, Dist: 2860 * time.Millisecond, Weights: 2080 * time.Millisecond,
		KV: 110 * time.Millisecond, Graphs: 9320 * time.Millisecond, Warmup: 1210 * time.Millisecond,
	}
}

// scaled is the real profile stretched to a total of d.
func scaledProfile(d time.Duration) Profile {
	real := realProfile()
	scale := func(part time.Duration) time.Duration {
		return time.Duration(float64(part) * float64(d) / float64(real.Total()))
	}
	return Profile{scale(real.Import), scale(real.Dist), scale(real.Weights), scale(real.KV), scale(real.Graphs), scale(real.Warmup)}
}

// Defaults is a server that starts at once and answers fast, and whose other times are SGLang's.
func Defaults() Options {
	return Options{
		ModelPath: "sim/model", Host: "127.0.0.1", Port: 30000, TPSize: 1,
		ContextLength: 8192, MaxTotalTokens: 1929502, MaxRunningRequests: 4096, StreamInterval: 1,
		WatchdogTimeout: 300 * time.Second, LoadFormat: "auto", WeightVersion: "default", AccessLog: true, Shards: 1,
		TTFT: 5 * time.Millisecond, ITL: time.Millisecond, OutputTokens: 16,
		HealthDelay: time.Second, HealthTimeout: 20 * time.Second, KeepAlive: 5 * time.Second,
		DisconnectDelay: 2100 * time.Millisecond, DrainPoll: 5 * time.Second, ExitDelay: 2500 * time.Millisecond,
		CrashDelay: 5 * time.Second,
		Faults:     Faults{HangAfter: -1, Every: 1},
	}
}

// validate reports settings that SGLang itself refuses with a traceback.
func (o *Options) validate() error {
	if strings.Contains(o.ServedModelName, ":") {
		return fmt.Errorf("AssertionError: served_model_name cannot contain a colon (':') character. The colon is reserved for the 'model:adapter' syntax used in LoRA adapter specification. Invalid value: '%s'", o.ServedModelName)
	}
	if o.MaxRunningRequests < 1 {
		return fmt.Errorf("AssertionError: max_running_requests must be at least 1, got %d", o.MaxRunningRequests)
	}
	return nil
}

// servedName is the name in /v1/models.
func (o *Options) servedName() string {
	if o.ServedModelName != "" {
		return o.ServedModelName
	}
	return o.ModelPath
}

// ParseArgs reads a command line without the program's name. getenv supplies the environment variables that SGLang
// reads (SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION, SGLANG_TIMEOUT_KEEP_ALIVE, SGLANG_HEALTH_CHECK_TIMEOUT); nil means none.
func ParseArgs(args []string, getenv func(string) string) (Options, error) {
	p, err := parseArgs(args)
	if err != nil {
		return Options{}, err
	}
	o := Defaults()
	o.Args = p.values
	text := func(dest string, to *string) {
		if v, ok := p.last(dest); ok {
			*to = v
		}
	}
	text("model_path", &o.ModelPath)
	text("served_model_name", &o.ServedModelName)
	text("host", &o.Host)
	text("api_key", &o.APIKey)
	text("admin_api_key", &o.AdminAPIKey)
	text("load_format", &o.LoadFormat)
	text("weight_version", &o.WeightVersion)
	for dest, to := range map[string]*int{
		"port": &o.Port, "tp_size": &o.TPSize, "context_length": &o.ContextLength, "max_total_tokens": &o.MaxTotalTokens,
		"max_running_requests": &o.MaxRunningRequests, "max_queued_requests": &o.MaxQueuedRequests, "stream_interval": &o.StreamInterval,
	} {
		if v, ok := p.last(dest); ok {
			if *to, err = strconv.Atoi(v); err != nil {
				return Options{}, fmt.Errorf("argument %s: %w", dest, err)
			}
		}
	}
	if v, ok := p.last("random_seed"); ok {
		if o.RandomSeed, err = strconv.ParseInt(v, 10, 64); err != nil {
			return Options{}, fmt.Errorf("argument random_seed: %w", err)
		}
	}
	if v, ok := p.last("watchdog_timeout"); ok {
		if o.WatchdogTimeout, err = time.ParseDuration(v + "s"); err != nil {
			return Options{}, fmt.Errorf("argument watchdog_timeout: %w", err)
		}
	}
	o.IsEmbedding = p.bool("is_embedding")
	o.MemorySaver = p.bool("enable_memory_saver")
	o.WeightsBackup = p.bool("enable_weights_cpu_backup")
	o.SkipWarmup = p.bool("skip_server_warmup")
	o.UsageByDefault = p.bool("stream_response_default_include_usage")
	o.CacheReport = p.bool("enable_cache_report")
	o.AutoTruncate = p.bool("allow_auto_truncate")
	o.Metrics = p.bool("enable_metrics")
	for _, dest := range []string{"log_level", "log_level_http"} {
		if v, ok := p.last(dest); ok {
			o.AccessLog = v == "info" || v == "debug" || v == "trace"
		}
	}
	if getenv != nil {
		if err := o.readEnv(getenv); err != nil {
			return Options{}, err
		}
	}
	if err := p.applySim(&o); err != nil {
		return Options{}, err
	}
	return o, nil
}

func (o *Options) readEnv(getenv func(string) string) error {
	switch strings.ToLower(getenv("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION")) {
	case "0", "false", "no", "off", "n", "f":
		o.InstantHealth = true
	}
	for name, to := range map[string]*time.Duration{
		"SGLANG_TIMEOUT_KEEP_ALIVE": &o.KeepAlive, "SGLANG_HEALTH_CHECK_TIMEOUT": &o.HealthTimeout,
	} {
		if v := getenv(name); v != "" {
			seconds, err := strconv.Atoi(v)
			if err != nil {
				return fmt.Errorf("environment variable %s: invalid integer value: '%s'", name, v)
			}
			*to = time.Duration(seconds) * time.Second
		}
	}
	return nil
}
