"""Engine with spawned ranks that load a model and write their parts of it, and fail as SGLang's do.

SGLANG_SIM_SHARD says how: oom, unsupported, disk (rank 0 finds the disk full), quiet (only rank 1 does, which nobody is told), hang, killed.
"""
import glob
import json
import multiprocessing
import os
import signal
import sys
import time

from sglang import safetensors


def say(text):
    print(time.strftime("[%Y-%m-%d %H:%M:%S] ") + text, file=sys.stderr, flush=True)


def load(folder):
    """Where each tensor of a folder lies: name to (file, header's entry, where the data begins)."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        tensors, data = safetensors.header(path)
        found.update({name: (path, entry, data) for name, entry in tensors.items()})
    return found


def write(tensors, rank, tp, path, pattern, max_size):
    pattern = pattern or "model-rank-{rank}-part-{part}.safetensors"
    part, size, parts = 0, 0, {}

    def flush():
        safetensors.save(os.path.join(path, pattern.format(rank=rank, part=part)), parts)

    for name, (file, entry, data) in tensors.items():
        shape, begin, end = safetensors.part_of(entry, rank, tp)
        if parts and max_size is not None and size + end - begin > max_size:
            flush()
            part, size, parts = part + 1, 0, {}
        with open(file, "rb") as f:
            f.seek(data + begin)
            parts[name] = (entry["dtype"], shape, f.read(end - begin))
        size += end - begin
    if parts:
        flush()


def scheduler(rank, tp, folder, fail, requests, answers):
    say(f"TP{rank}] Init torch distributed begin.")
    with open(os.path.join(folder, "config.json")) as f:
        kinds = json.load(f).get("architectures", [])
    if fail == "unsupported":
        say(f"ValueError: Model architectures {kinds} are not supported for now. Supported architectures: dict_keys(['LlamaForCausalLM'])")
    if fail == "oom":
        say("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 10.00 GiB is free.")
    if fail in ("unsupported", "oom"):
        os.kill(os.getppid(), signal.SIGQUIT)
        time.sleep(60)
    say(f"TP{rank}] Load weight begin. avail mem=78.40 GB")
    tensors = load(folder)
    if not tensors:
        say(f"RuntimeError: Cannot find any model weights with `{folder}`")
        os.kill(os.getppid(), signal.SIGQUIT)
        time.sleep(60)
    say(f"TP{rank}] Load weight end. elapsed=0.01 s")
    answers.put(("ready", rank, None))
    path, pattern, max_size = requests.get()
    problem = None
    try:
        if fail == "hang":
            time.sleep(3600)
        if fail == "killed":
            write(dict(list(tensors.items())[:1]), rank, tp, path, pattern, max_size)
            os.killpg(0, signal.SIGKILL)
        if fail == "disk" and rank == 0 or fail == "quiet" and rank == 1:
            raise OSError("Error while serializing: I/O error: No space left on device (os error 28)")
        write(tensors, rank, tp, path, pattern, max_size)
    except OSError as error:
        problem = str(error)
        say(f"TP{rank}] Failed to call rpc save_sharded_model: {problem}")
    answers.put(("saved", rank, problem))
    requests.get()


class Engine:
    def __init__(self, **kwargs):
        args = kwargs.pop("server_args")
        if kwargs:
            raise TypeError(f"unexpected arguments {list(kwargs)}")
        if args.load_format != "auto":
            raise ValueError(f"load_format {args.load_format}: these weights are not cut up yet")
        say(f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}")
        say(f"server_args=ServerArgs(model_path='{args.model_path}', tp_size={args.tp_size})")
        signal.signal(signal.SIGQUIT, self._child_failed)
        spawn = multiprocessing.get_context("spawn")
        self.answers = spawn.Queue()
        self.ranks = []
        for rank in range(args.tp_size):
            requests = spawn.Queue()
            process = spawn.Process(
                target=scheduler, args=(rank, args.tp_size, args.model_path, os.environ.get("SGLANG_SIM_SHARD"), requests, self.answers)
            )
            process.start()
            self.ranks.append((process, requests))
        for _ in self.ranks:
            self.answers.get()

    def _child_failed(self, signum, frame):
        say("Received sigquit from a child process. It usually means the child failed.")
        os.killpg(0, signal.SIGKILL)

    def save_sharded_model(self, **kwargs):
        # As weight_updater.py reads them: all three must be there.
        request = kwargs["path"], kwargs["pattern"], kwargs["max_size"]
        for _, requests in self.ranks:
            requests.put(request)
        answers = {rank: problem for _, rank, problem in (self.answers.get() for _ in self.ranks)}
        assert answers[0] is None, answers[0]  # the others' answers reach nobody

    def shutdown(self):
        for process, _ in self.ranks:
            process.kill()
            process.join()
