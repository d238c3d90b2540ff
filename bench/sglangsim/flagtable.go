package sglangsim

import (
	"strings"
	"sync"
)

// valueKind says what an option of the command line takes.
type valueKind byte

const (
	kindString valueKind = 's'
	kindInt    valueKind = 'i'
	kindFloat  valueKind = 'f'
	kindHuman  valueKind = 'h' // an integer such as 8192, 32k, 1M or 64Ki
	kindBool   valueKind = 'b' // argparse's store_true: no value
	kindNegate valueKind = 'n' // store_true with a --no- form
	kindList   valueKind = 'l' // one or more values
	kindChoice valueKind = 'c' // one of a list
)

// flagSpec is one option: its names in the order in which argparse lists them, and what it takes.
type flagSpec struct {
	names   []string // with leading dashes; the first is canonical
	dest    string   // name of the attribute, such as model_path
	kind    valueKind
	choices []string
	initial string // Python's repr of the default in server_args; empty: None, or False for booleans
}

// display is how argparse names the option in its messages.
func (f *flagSpec) display() string { return strings.Join(f.names, "/") }

// sglangFlags lists SGLang's options (release 0.5.15 and the main branch of August 2026) as far as a launcher, an
// abbreviation or a log reader can meet them. One entry a word: names separated by '|', then ':' and the kind, then
// '=' and the default as server_args prints it. A choice has its values between '<' and '>'.
const sglangFlags = `
model-path|model:s tokenizer-path:s tokenizer-mode:c<auto,slow>='auto' tokenizer-backend:c<huggingface,fastokens>='huggingface'
tokenizer-worker-num:i=1 detokenizer-worker-num:i=1 skip-tokenizer-init:b
load-format:c<auto,pt,safetensors,npcache,dummy,sharded_state,presharded,gguf,bitsandbytes,mistral,layered,flash_rl,remote,remote_instance,fastsafetensors,private,runai_streamer>='auto'
model-loader-extra-config:s='{}' trust-remote-code:b context-length:h is-embedding:b enable-multimodal:b revision:s
model-impl:c<auto,sglang,transformers,mindspore>='auto' json-model-override-args:s='{}'
dtype:c<auto,half,float16,bfloat16,float,float32>='auto' quantization:s quantization-param-path:s
kv-cache-dtype:c<auto,fp8_e5m2,fp8_e4m3,mxfp8,bf16,bfloat16,nvfp4,fp4_mx_block16,fp4_e2m1>='auto' enable-fp32-lm-head:b
host:s='127.0.0.1' port:i=30000 fastapi-root-path:s='' grpc-port:i smg-grpc-mode:b skip-server-warmup:b warmups:s
served-model-name:s weight-version:s='default' chat-template:s hf-chat-template-name:s completion-template:s
default-chat-template-kwargs:s download-dir:s model-checksum:s delete-ckpt-after-loading:b
mem-fraction-static:f max-running-requests:i max-queued-requests:i max-total-tokens:h chunked-prefill-size:i
max-prefill-tokens:h=16384 prefill-max-requests:i
schedule-policy:c<lpm,random,fcfs,dfs-weight,lof,priority,routing-key>='fcfs' schedule-conservativeness:f=1.0 page-size:i
radix-eviction-policy:c<lru,lfu,slru,priority>='lru' disable-radix-cache:b disable-chunked-prefix-cache:b
disable-overlap-schedule:b enable-mixed-chunk:b retraction-policy:c<length,priority>='length' swa-full-tokens-ratio:f=0.8
num-continuous-decode-steps:i=1 scheduler-recv-interval:i=1
enable-priority-scheduling:b disable-priority-preemption:b default-priority-value:i abort-on-priority-when-disabled:b
schedule-low-priority-values-first:b priority-scheduling-preemption-threshold:i=10
device:s tp-size|tensor-parallel-size:i=1 pp-size|pipeline-parallel-size:i=1 pp-max-micro-batch-size:i pp-async-batch-depth:i=0
dp-size|data-parallel-size:i=1 ep-size|expert-parallel-size|ep:i=1 dcp-size|decode-context-parallel-size:i=1
attn-cp-size|attention-context-parallel-size:i=1 moe-dp-size|moe-data-parallel-size:i=1 moe-dense-tp-size:i
enable-dp-attention:b enable-dp-lm-head:b
load-balance-method:c<auto,round_robin,follow_bootstrap_room,total_requests,total_tokens>='auto'
base-gpu-id:i=0 gpu-id-step:i=1 nccl-port:i dist-timeout:i disable-custom-all-reduce:b enable-p2p-check:b numa-node:l
nnodes:i=1 node-rank:i=0 dist-init-addr|nccl-init-addr:s
api-key:s admin-api-key:s ssl-keyfile:s ssl-certfile:s ssl-ca-certs:s ssl-keyfile-password:s enable-ssl-refresh:b
enable-http2:b http2-max-concurrent-streams:i=200 file-storage-path:s='sglang_storage' tool-server:s
sampling-defaults:c<openai,model>='model' preferred-sampling-params:s allow-auto-truncate:b
stream-interval:i=1 batch-notify-size:i=16 stream-response-default-include-usage:b incremental-streaming-output:b
enable-streaming-session:b reasoning-parser:s tool-call-parser:s grammar-backend:c<xgrammar,outlines,llguidance,none>='xgrammar'
enable-strict-thinking:b strip-thinking-cache:b
log-level:s='info' log-level-http:s log-requests:b log-requests-level:i=2 log-requests-format:c<text,json>='text' log-requests-target:l
uvicorn-access-log-exclude-prefixes:l crash-dump-folder:s enable-metrics:b enable-metrics-for-all-schedulers:b
load-snapshot-publish-interval:i=15 decode-log-interval:i=40 extra-metric-labels:s
tokenizer-metrics-custom-labels-header:s='x-custom-labels' tokenizer-metrics-allowed-custom-labels:l
bucket-time-to-first-token:l bucket-inter-token-latency:l bucket-e2e-request-latency:l enable-cache-report:b
enable-request-time-stats-logging:b kv-events-config:s enable-trace:b otlp-traces-endpoint:s='localhost:4317'
watchdog-timeout:f=300 soft-watchdog-timeout:f sleep-on-idle:b random-seed:i
cuda-graph-config:s cuda-graph-backend-decode:c<full,breakable,tc_piecewise,disabled>
cuda-graph-backend-prefill:c<full,breakable,tc_piecewise,disabled> cuda-graph-max-bs-decode:i cuda-graph-max-bs-prefill:i
cuda-graph-bs-decode:l cuda-graph-bs-prefill:l disable-decode-cuda-graph:b disable-prefill-cuda-graph:b
disable-cuda-graph-padding:b debug-cuda-graph:b disable-cuda-graph:b cuda-graph-max-bs:i cuda-graph-bs:l
enable-torch-compile:b torch-compile-max-bs:i=32 disable-flashinfer-autotune:b
enable-lora:b lora-paths:l max-loras-per-batch:i=8 max-loaded-loras:i max-lora-rank:i lora-target-modules:l lora-backend:s='csgmv'
lora-eviction-policy:c<lru,fifo>='lru' lora-strict-loading:n experts-shared-outer-loras:n dllm-fdfo:n dcp-replicate-q-proj:n
enable-tp-lm-head-all-to-all:n
attention-backend:s decode-attention-backend:s prefill-attention-backend:s sampling-backend:s mm-attention-backend:s
speculative-algorithm:s speculative-draft-model-path|speculative-draft-model:s speculative-num-steps:i speculative-eagle-topk:i
speculative-num-draft-tokens:i speculative-draft-load-format:s speculative-adaptive:b
enable-hierarchical-cache:b hicache-ratio:f=2.0 hicache-size:i=0 hicache-write-policy:s='write_through' hicache-storage-backend:s
hicache-host-memory-mode:c<cache,buffer_only> enable-lmcache:b enable-flexkv:b cpu-offload-gb:i=0
hisparse-config|hierarchical-sparse-attention-extra-config:s smg-http-sidecar-port|grpc-http-sidecar-port:i
disaggregation-mode:c<null,prefill,decode>='null' disaggregation-transfer-backend:c<mooncake,nixl,ascend,fake,mori,mooncake_tcp>='mooncake'
disaggregation-bootstrap-port:i=8998 disaggregation-ib-device:s disaggregation-decode-enable-radix-cache:b
disaggregation-decode-polling-interval:i num-reserved-decode-tokens:i=512 encoder-only:b language-only:b encoder-urls:l
encoder-bootstrap-port:i=8997
enable-memory-saver:b enable-weights-cpu-backup:b enable-draft-weights-cpu-backup:b startup-weight-load-mode:c<serial,overlap>
weight-loader-disable-mmap:b weight-loader-prefetch-checkpoints:b weight-loader-prefetch-num-threads:i=4
weight-loader-drop-cache-after-load:b custom-weight-loader:l checkpoint-engine-wait-weights-before-ready:b
remote-instance-weight-loader-seed-instance-ip:s remote-instance-weight-loader-seed-instance-service-port:i
remote-instance-weight-loader-send-weights-group-ports:s remote-instance-weight-loader-backend:c<nccl,transfer_engine,modelexpress>
remote-instance-weight-loader-start-seed-via-transfer-engine:b engine-info-bootstrap-port:i=6789
weight-cache-mode:c<off,daemon,client>='off' weight-cache-socket:s weight-cache-timeout:i=1800
allowed-media-domains:l media-url-max-file-size-mb:i=64 limit-mm-data-per-request:s mm-process-config:s
config:s
`

// knownFlags is sglangFlags, parsed once.
var knownFlags = sync.OnceValue(func() []*flagSpec {
	var table []*flagSpec
	for _, word := range strings.Fields(sglangFlags) {
		names, rest, _ := strings.Cut(word, ":")
		f := &flagSpec{kind: valueKind(rest[0])}
		rest = rest[1:]
		if inner, ok := strings.CutPrefix(rest, "<"); ok {
			list, after, _ := strings.Cut(inner, ">")
			f.choices, rest = strings.Split(list, ","), after
		}
		f.initial = strings.TrimPrefix(rest, "=")
		for _, name := range strings.Split(names, "|") {
			f.names = append(f.names, "--"+name)
			if f.kind == kindNegate {
				f.names = append(f.names, "--no-"+name)
			}
		}
		f.dest = strings.ReplaceAll(strings.TrimPrefix(f.names[0], "--"), "-", "_")
		table = append(table, f)
	}
	return table
})
