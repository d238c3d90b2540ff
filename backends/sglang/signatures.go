package sglang

import (
	"regexp"
	"slices"
	"strings"

	"pilotlight/backends"
)

// signature recognises one cause of failure in an engine's last lines.
type signature struct {
	// One line must hold all of all, or one of either, or match pattern: whichever is given. Lines come in
	// lower case.
	all     []string
	either  []string
	pattern *regexp.Regexp
	any     bool // holds for engines that are not SGLang as well

	class     backends.Class
	message   string
	advice    string
	permanent bool
	// detail refines the failure with figures and names from the output.
	detail func(f *backends.Failure, e evidence)
}

// find returns the index of the first line that matches, or -1.
func (s *signature) find(lower []string) int { return slices.IndexFunc(lower, s.match) }

func (s *signature) match(line string) bool {
	holds := func(text string) bool { return strings.Contains(line, text) }
	switch {
	case s.pattern != nil:
		return s.pattern.MatchString(line)
	case len(s.all) > 0:
		return !slices.ContainsFunc(s.all, func(text string) bool { return !holds(text) })
	default:
		return slices.ContainsFunc(s.either, holds)
	}
}

const (
	seeHub  = "check the repository's name and revision, and that a token is given if it is private"
	seeArgs = "check the model's extra_args against the installed version's --help"
)

// signatures are in order of how much they explain: causes before their consequences, the special before
// the general. What is permanent follows SGLang's own behaviour: a refused argument, a missing, gated or
// unsupported model and a model that does not fit its GPUs stay as they are until somebody changes
// something; ports, networks, host memory and collective communication may be better next time.
var signatures = []signature{
	// Arguments. argparse prints usage and one line "<prog>: error: …".
	{
		either: []string{"error: unrecognized arguments", "error: ambiguous option", ": invalid choice:", "error: the following arguments are required", ": expected one argument", "error: argument --"},
		any:    true, class: backends.ClassBadFlag, permanent: true,
		message: "the engine refused a launch argument", advice: seeArgs, detail: namedFlags,
	},
	{
		all: []string{"served", "name", "colon"}, class: backends.ClassBadFlag, permanent: true,
		message: "the engine refused the served name because of a colon", advice: "leave --served-model-name to the gateway",
	},
	{
		either: []string{"is greater than the derived context_length", "is greater than the derived context length"}, class: backends.ClassBadFlag, permanent: true,
		message: "the context length that was asked for is longer than the model's own",
		advice:  "lower --context-length, or set SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1 in env_vars", detail: longestContext,
	},
	{
		either: []string{"requires you to execute", "set the option `trust_remote_code=true`", "pass the argument `trust_remote_code=true`", "contains custom code which must be executed"}, class: backends.ClassBadFlag, permanent: true,
		message: "the model brings code of its own, which the engine may not run",
		advice:  "add --trust-remote-code to extra_args if you trust the repository",
	},
	{
		all: []string{"tp_size must be divisible by number of nodes"}, class: backends.ClassBadFlag, permanent: true,
		message: "the number of GPUs does not divide by the number of nodes", advice: "change --tp-size or --nnodes",
	},
	{
		either: []string{"is not divisible by", "must be divisible by", "weight quantization block_n", "total_num_heads % tp_size", "total_num_heads % self.tp_size"}, class: backends.ClassBadFlag, permanent: true,
		message: "the model cannot be cut into that many parts",
		advice:  "choose a --tp-size that divides the model's attention heads; for a mixture of experts try --ep-size", detail: indivisible,
	},
	// What the installation lacks.
	{
		either: []string{"flashinfer_python is installed with version", "sglang-kernel is installed with version", "sgl-kernel is installed with version", "sgl_kernel is installed with version"},
		class:  backends.ClassExited, permanent: true,
		message: "the engine's own packages do not fit together", advice: "reinstall SGLang with its kernels and flashinfer in the versions that it asks for",
	},
	// Space. A full /dev/shm says "no space" as well and is not a full disk.
	{
		all: []string{"shared memory", "no space left on device"}, any: true, class: backends.ClassDriver,
		message: "the shared memory of this machine or container is full", advice: "make the shared memory larger (shm size of the container)",
	},
	{
		either: []string{"no space left on device", "[errno 28]", "disk quota exceeded"}, any: true, class: backends.ClassDiskFull,
		message: "a disk that the engine writes to is full", advice: "free disk space for the model cache, the state folder and the temporary folder",
		detail: missingSpace,
	},
	// The port. SGLang binds it only after the whole load.
	{
		either: []string{"address already in use", "[errno 98]"}, any: true, class: backends.ClassPortTaken,
		message: "another program took the engine's port", advice: "none is needed: the next start takes another port",
	},
	{
		pattern: regexp.MustCompile(`port[ =:0-9]* is already in use`), any: true, class: backends.ClassPortTaken,
		message: "another program took a port that the engine needs",
		advice:  "remove ports from the model's extra_args, or give each model its own (--nccl-port, --dist-init-addr, --engine-info-bootstrap-port)",
	},
	{
		pattern: regexp.MustCompile(`\bport[ =:0-9]+ is not available`), class: backends.ClassPortTaken,
		message: "another program took a port that the engine needs",
		advice:  "remove ports from the model's extra_args, or give each model its own (--nccl-port, --dist-init-addr, --engine-info-bootstrap-port)",
	},
	// Devices.
	{
		either: []string{"no accelerator (cuda, xpu", "no cuda gpus are available", "found no nvidia driver"}, class: backends.ClassDriver, permanent: true,
		message: "the engine sees no GPU", advice: "check the GPU's driver, and that this machine or container has a GPU",
	},
	{
		either: []string{"invalid device ordinal"}, class: backends.ClassBadFlag, permanent: true,
		message: "the model asks for more GPUs than the engine sees", advice: "lower --tp-size, or check CUDA_VISIBLE_DEVICES", detail: tooManyGPUs,
	},
	{
		either: []string{"cuda driver version is insufficient", "no kernel image is available", "nvidia driver on your system is too old"}, any: true,
		class: backends.ClassDriver, permanent: true,
		message: "the engine's build does not fit the GPU or its driver", advice: "update the driver, or install a build for this GPU", detail: oldDriver,
	},
	{
		either: []string{"driver/library version mismatch"}, any: true, class: backends.ClassDriver, permanent: true,
		message: "the GPU's driver was updated and the old one is still loaded", advice: "reboot the machine, or reload the driver's kernel modules",
	},
	{
		either: []string{"system not yet initialized", "cudaerrorsystemnotready"}, any: true, class: backends.ClassDriver,
		message: "the GPUs' fabric is not up", advice: "start the nvidia-fabricmanager service, in the driver's own version",
	},
	{
		either: []string{"uncorrectable ecc error", "cudaerroreccuncorrectable", "gpu has fallen off the bus"}, any: true, class: backends.ClassDriver,
		message: "a GPU is broken", advice: "see dmesg for Xid messages, reset the GPU or take it out of devices",
	},
	// GPU memory, from the most exact report to the general one.
	{
		all: []string{"leave no gpu memory for the kv cache"}, class: backends.ClassOutOfMemory, permanent: true,
		message: "the weights leave no GPU memory for the cache", advice: "raise --mem-fraction-static, lower --context-length, or use more GPUs", detail: suggestedFraction,
	},
	{
		all: []string{"not enough memory", "--mem-fraction-static"}, class: backends.ClassOutOfMemory, permanent: true,
		message: "the weights leave no GPU memory for the cache",
		advice:  "raise --mem-fraction-static (0.9), lower --context-length, use more GPUs, or an 8-bit cache (--kv-cache-dtype fp8_e5m2)",
		detail:  suggestedFraction,
	},
	{
		all: []string{"memory capacity is unbalanced"}, class: backends.ClassOutOfMemory,
		message: "other programs hold memory of some of the GPUs", advice: "free the GPUs, or choose others with devices", detail: heldByOthers,
	},
	{
		all: []string{"capture cuda graph failed"}, class: backends.ClassOutOfMemory, permanent: true,
		message: "the engine ran out of GPU memory while capturing CUDA graphs", detail: smallerGraphs,
	},
	{
		either: []string{"cuda out of memory", "hip out of memory", "torch.outofmemoryerror", "cuda error: out of memory"}, any: true,
		class: backends.ClassOutOfMemory, permanent: true,
		message: "the engine ran out of GPU memory", detail: memoryPhase,
	},
	// Getting the model.
	{
		either: []string{"gated repo", "gatedrepoerror"}, any: true, class: backends.ClassGated, permanent: true,
		message: "the model's repository is gated",
		advice:  "accept its licence with the account whose token is given, and give the token as HF_TOKEN",
	},
	{
		either: []string{"401 client error", "403 client error", "localtokennotfounderror", "invalid user token", "invalid credentials in authorization header"}, any: true,
		class: backends.ClassGated, permanent: true,
		message: "the model's repository refused access", advice: "give a token that may read it as HF_TOKEN",
	},
	{
		either: []string{"unable to locate credentials", "nocredentialserror", "invalidaccesskeyid", "signaturedoesnotmatch", "aws_error_unauthorized"}, any: true,
		class: backends.ClassGated, permanent: true,
		message: "the object store refused access", advice: "give credentials that may read the model as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	},
	{
		either: []string{"outgoing traffic has been disabled", "offline mode is enabled"}, any: true, class: backends.ClassModelNotFound, permanent: true,
		message: "the model is not in the cache, and the engine may not fetch it", advice: "fetch the model once without HF_HUB_OFFLINE, or give model_path",
	},
	{
		either: []string{"error while deserializing header", "headertoolarge", "invalidheaderdeserialization", "incomplete metadata, file not fully covered"}, any: true,
		class: backends.ClassModelNotFound, permanent: true,
		message: "a file of weights is damaged or incomplete", advice: "remove it and fetch the model again; a pointer of git LFS in its place has a few hundred bytes",
	},
	{
		all: []string{"file access error"}, class: backends.ClassUnreachable,
		message: "the weights could not be streamed from the object store",
		advice:  "set RUNAI_STREAMER_LOG_LEVEL=DEBUG and RUNAI_STREAMER_LOG_TO_STDERR=1 in env_vars to see why",
	},
	{
		either: []string{"couldn't connect to", "max retries exceeded", "429 client error", "500 server error", "502 server error", "503 server error", "504 server error", "read timed out", "temporary failure in name resolution"}, any: true,
		class:   backends.ClassUnreachable,
		message: "the place that the model is fetched from could not be reached", advice: "check the machine's network and proxy settings",
	},
	{
		either: []string{"repo id must be in the form", "is not a local folder and is not a valid model identifier", "repositorynotfounderror", "repository not found", "404 client error", "entry not found", "does not appear to have a file named config.json", "revision not found", "nosuchbucket", "nosuchkey"}, any: true,
		class: backends.ClassModelNotFound, permanent: true,
		message: "the model was not found", advice: seeHub,
	},
	{
		all: []string{"cannot find any model weights with"}, class: backends.ClassModelNotFound, permanent: true,
		message: "the model has no weight files of the expected kind", advice: "complete the download, or set --load-format",
	},
	{
		either: []string{"could not find checkpoint files", "only pre-sharded checkpoints are currently supported"}, class: backends.ClassModelNotFound, permanent: true,
		message: "the sharded weight files are missing", advice: "shard the model again with the same --tp-size",
	},
	{
		all: []string{"missing keys", "in loaded state"}, class: backends.ClassModelNotFound, permanent: true,
		message: "the sharded weight files do not fit the model", advice: "shard the model again with the same --tp-size",
	},
	{
		all: []string{"model architectures", "are not supported"}, class: backends.ClassUnsupported, permanent: true,
		message: "this version of the engine does not support the model's architecture", advice: "use a newer SGLang, or try --model-impl transformers",
		detail: namedArchitecture,
	},
	{
		all: []string{"failed to be inspected"}, class: backends.ClassUnsupported, permanent: true,
		message: "this version of the engine does not support the model's architecture", advice: "use a newer SGLang, or try --model-impl transformers",
	},
	// Consequences: they say that something died, and causes above are better explanations.
	{
		all: []string{"scheduler died during initialization", "exit code: -9"}, class: backends.ClassKilled,
		message: "a part of the engine was killed while it loaded, most likely because the machine ran out of memory",
		advice:  "give the model more memory, or run fewer models beside it",
	},
	{
		pattern: regexp.MustCompile(`scheduler died during initialization \(exit code: -\d+\)`), class: backends.ClassExited,
		message: "a part of the engine crashed while it loaded", advice: "see the last lines of its log, and dmesg", detail: diedOf,
	},
	{
		either: []string{"cannot allocate memory", "[errno 12]", "std::bad_alloc"}, any: true, class: backends.ClassOutOfMemory,
		message: "the machine ran out of memory", advice: "give the model more memory, or run fewer models beside it",
	},
	{
		either: []string{"nccl error", "ncclremoteerror", "ncclsystemerror", "ncclinternalerror", "ncclunhandledcudaerror", "distbackenderror", "diststoreerror", "watchdog caught collective operation timeout"}, class: backends.ClassDriver,
		message: "the GPUs could not talk to one another",
		advice:  "enlarge the shared memory, check the network interfaces, and set NCCL_DEBUG=INFO in env_vars to see more",
	},
	{
		all: []string{"scheduler watchdog timeout"}, class: backends.ClassHang,
		message: "the engine hung and ended itself", advice: "if it compiles kernels for minutes, raise --watchdog-timeout", detail: watchdog,
	},
	{
		all: []string{"cuda error"}, any: true, class: backends.ClassDriver,
		message: "a GPU failed under the engine", advice: "see the last lines of its log, and the GPU's health",
	},
	{
		either: []string{"initialization failed. warmup error", "initialization failed. warm up error"}, class: backends.ClassExited,
		message: "the engine's first request of its own failed", advice: "check proxy settings; a slow first request needs a larger SGLANG_WARMUP_TIMEOUT",
	},
	{
		either: []string{"could not find nvcc", "nvcc: not found", "nvcc: command not found", "ninja is required to load", "no such file or directory: 'ninja'"},
		class:  backends.ClassNotFound, permanent: true,
		message: "a compiler that the engine needs for its kernels is not installed", advice: "install the CUDA toolkit (nvcc) and ninja beside the engine",
	},
	// Late, and only as a line of its own: healthy engines mention optional modules that they do without.
	{
		pattern: regexp.MustCompile(`^(modulenotfounderror|\S*python[0-9.]*): (no module named|error while finding module)`), any: true,
		class: backends.ClassNotFound, permanent: true,
		message: "a Python module that the engine needs is not installed",
		advice:  "install it into the Python that the model's command names", detail: namedModule,
	},
}
