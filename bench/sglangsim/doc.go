// Package sglangsim is a simulated SGLang server: no model and no GPU, but the behaviour of SGLang 0.5.15 in everything
// that a gateway in front of it can notice. It takes SGLang's command line, goes through the phases of a start with
// their output, binds its port as late as the real one does, answers the OpenAI and native routes with SGLang's shapes of
// answers, streams and errors, and ends by the same signals. Command sglang-sim is its program; New and Serve run it inside of a test.
//
// What it leaves out: the timing of the prefix cache, LoRA, speculative decoding, multi-node and disaggregated serving, TLS, HTTP/2,
// gRPC, the Anthropic and Ollama routes, pictures and sound, log probabilities (always null), and "Decode batch" lines.
//
// # Answers
//
// An answer depends on the prompt, the seed and the index of the choice alone. If the user's last message (or a completion's
// prompt) holds "echo: TEXT", the answer is TEXT, so that a test can tell whose answer it got. Otherwise it is a sequence of
// English words: as many as the request's limit, else --sim-output-tokens. A request with tools gets a tool call if tool_choice asks for
// one, or if the user's last message mentions a word of the function's name, "tool" or "function". response_format
// json_object and json_schema get a document that fits. A chunk holds one token, or several when the machine falls behind.
//
// # Being watched
//
// GET /sim/stats answers Stats as JSON, without a key. It does not exist in the real server.
//
// # Flags
//
// SGLang's own options are parsed as argparse does: --k v, --k=v, unique prefixes, SGLang's messages and exit code 2 for the rest.
// The program's arguments may begin with serve, launch_server or -m sglang.launch_server. Options that change what a
// client sees have effect; the others are accepted. The environment variables SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION,
// SGLANG_TIMEOUT_KEEP_ALIVE and SGLANG_HEALTH_CHECK_TIMEOUT are read. The simulator's own flags, whose details --help has:
//
// Start: --sim-start (exec to ready; a real start is about 64s), and in the place of a phase's share --sim-import, --sim-dist,
// --sim-weights, --sim-kv, --sim-graphs, --sim-warmup; --sim-shards (files in the weights' bar).
//
// Speed: --sim-ttft, --sim-prefill-rate, --sim-cache-tokens, --sim-itl, --sim-itl-per-running, --sim-output-tokens; --sim-embeddings (serve them
// beside generation).
//
// Times of SGLang's that tests may want shorter: --sim-health-delay (1s), --sim-health-timeout (20s), --sim-keep-alive (5s),
// --sim-disconnect-delay (2.1s), --sim-drain-poll (5s), --sim-exit-delay (2.5s), --sim-crash-delay (5s).
//
// Process: --sim-pid1 (SIGTERM is ignored while loading), --sim-children (processes that outlive this one), --sim-gpu-dir
// (a folder where each process says which GPUs it is on).
//
// Failures of a start: --sim-fail MODE with --sim-fail-after, --sim-fail-starts and --sim-fail-file; --sim-model-check. The modes are
// exit, hang, killed, oom, kv-memory, kv-memory-old, graph-memory, gated, not-found, no-repo, no-weights, unsupported, no-gpu, driver,
// nccl, disk-full, host-oom and warmup. A taken port fails by itself, after the load.
//
// Faults of a running server: --sim-crash-after, --sim-crash-tokens, --sim-hang-after, --sim-health-503, --sim-headers-delay,
// --sim-sleep-fault, --sim-sleep-delay, --sim-wake-fault, --sim-wake-delay, --sim-cut-tokens with --sim-cut, --sim-error-tokens, --sim-reset-reuse, and --sim-fault-every to hit some requests only.
package sglangsim
