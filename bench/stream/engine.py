"""A small engine that loads weights as SGLang does, with the real streaming loader or from disk, into memory, and then answers.

It takes SGLang's options, binds when the weights are in, and answers a chat with how many bytes they have and their checksum. It needs torch and
runai-model-streamer[s3].
"""

import argparse
import hashlib
import http.server
import json
import os
import time
import zlib

started = time.monotonic()
parser = argparse.ArgumentParser()
for name in ("--model-path", "--served-model-name", "--host", "--port", "--api-key", "--load-format"):
    parser.add_argument(name)
args, _ = parser.parse_known_args()

import torch  # noqa: E402  as an engine, which pays for the import before it loads
from runai_model_streamer import SafetensorsStreamer, list_safetensors  # noqa: E402

imported = time.monotonic()


def config():
    """Reads config.json where SGLang has it: in the model's folder, or in its own cache of what it streams."""
    folder = args.model_path
    if "://" in folder:
        base = os.environ.get("SGLANG_CACHE_DIR", os.path.expanduser("~/.cache/sglang"))
        folder = os.path.join(base, "model_streamer", hashlib.sha256(args.model_path.encode()).hexdigest()[:16])
        if not os.path.exists(os.path.join(folder, ".runai_complete")):
            raise SystemExit("the files beside the weights are not in " + folder)
    with open(os.path.join(folder, "config.json")) as file:
        return json.load(file)


def tensors():
    """Yields (name, tensor) as SGLang's loaders do."""
    if args.load_format == "runai_streamer":
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(list_safetensors(args.model_path))
            yield from streamer.get_tensors()
        return
    from safetensors import safe_open

    for file in sorted(os.listdir(args.model_path)):
        if file.endswith(".safetensors"):
            with safe_open(os.path.join(args.model_path, file), framework="pt") as opened:
                for name in opened.keys():
                    yield name, opened.get_tensor(name)


config()
weights, total, checksum = {}, 0, 0
for name, tensor in tensors():
    weights[name] = tensor.clone()  # what a device would be given
for name in sorted(weights):
    total += weights[name].numel() * weights[name].element_size()
    checksum = zlib.crc32(weights[name].view(torch.uint8).numpy(), checksum)
loaded = time.monotonic()
said = json.dumps({"bytes": total, "crc32": checksum, "import_seconds": imported - started, "load_seconds": loaded - imported})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = {"role": "assistant", "content": said}
        self.answer({
            "id": "1", "object": "chat.completion", "created": 1, "model": args.served_model_name,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        })


http.server.ThreadingHTTPServer((args.host, int(args.port)), Handler).serve_forever()
