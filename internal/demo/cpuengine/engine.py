"""Serves one GGUF model with llama.cpp's OpenAI-compatible HTTP server until SIGTERM or SIGINT."""

import argparse
import os
import pathlib
import signal
import sys
import time

STOP = (signal.SIGTERM, signal.SIGINT)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True, help="model name in answers and in /v1/models")
    parser.add_argument("--ctx", type=int, default=4096, help="tokens of context, shared by all requests")
    parser.add_argument("--parallel", type=int, default=4, help="requests answered at once")
    parser.add_argument("--api-key", default="", help="empty: none is asked for")
    return parser.parse_args()


def serve(args):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.hostnames = [args.host]
    params.port = args.port
    params.model_alias = {args.alias}
    params.n_ctx = args.ctx
    params.n_parallel = args.parallel
    params.kv_unified = True  # one long request may use the whole context
    params.cache_ram_mib = 0  # the default keeps up to 8 GiB of old prompts
    params.sse_ping_interval = -1  # its pings break some clients, and the gateway sends its own
    params.ui = False
    # Its threads spin at barriers: with one on every core, any other busy process makes answers ten times slower.
    params.cpuparams.n_threads = max(1, len(os.sched_getaffinity(0)) // 2)
    params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    # Embeddings and chat from one model: without pooling the embeddings route refuses to work.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # The model's own template knows no tools; this one shows it calls of the functions on offer.
    params.chat_template = pathlib.Path(__file__).with_name("chat.jinja").read_text()
    if args.api_key:
        params.api_keys = [args.api_key]
    return xllamacpp.Server(params)  # returns once the model is loaded and /health says 200


def main():
    began = time.monotonic()
    args = arguments()
    # Loading holds the interpreter, so a Python handler could not run meanwhile: the default action ends the
    # process at once. Python's own handler for SIGINT must go for that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = serve(args)  # kept: the server stops when it is collected
    except RuntimeError as err:
        sys.exit(f"engine did not start: {err}")
    # Any thread of the server may receive the signal; the pipe wakes this one.
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in STOP:
        signal.signal(number, lambda *_: None)
    print(f"engine is up on {server.listening_address} after {time.monotonic() - began:.2f} s", flush=True)
    os.read(woken, 1)
    # Not sys.exit: destructors of the C++ server wait for open streams, and the kernel frees the memory anyway.
    os._exit(0)


main()
