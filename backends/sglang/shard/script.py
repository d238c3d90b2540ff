"""Loads a model with SGLang as its server would and has every tensor parallel rank write its weights: SGLang's sharded_state.

    script.py OUT MAX_BYTES SGLANG_OPTION…

OUT is an empty folder, MAX_BYTES the most that one file shall hold. What it has done it says on descriptor 3, one JSON object a line; whatever
SGLang prints goes to standard output and error. It lives no longer than whoever holds the other end of its standard input.

What it calls, as of SGLang 0.5.15:
    sglang/srt/server_args.py        ServerArgs.add_cli_args(parser), prepare_server_args(argv) (line 7127)
    sglang/srt/entrypoints/engine.py Engine(server_args=…) (line 204), save_sharded_model(path=, pattern=, max_size=) (line 1251), shutdown() (line 910)
    sglang/srt/managers/scheduler_components/weight_updater.py save_sharded_model reads all three of them (line 312)
Only rank 0 answers save_sharded_model (scheduler.py, line 1682): that the other ranks have written is for the caller to see from the files.
"""
import argparse
import json
import os
import signal
import sys
import threading
import traceback
from importlib import metadata


def end_with_parent():
    """The group is ours alone, so nothing of SGLang outlives us with the GPUs' memory."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def quick(option_names):
    """Options that leave out what only answering requests needs, in the spelling of this release."""
    wanted = [
        ["--skip-server-warmup"],
        ["--cuda-graph-backend-decode", "disabled"],
        ["--cuda-graph-backend-prefill", "disabled"],
        ["--load-format", "auto"],
        # A rank that writes for minutes does not answer meanwhile, and is not stuck.
        ["--watchdog-timeout", "86400"],
    ]
    if "--cuda-graph-backend-decode" not in option_names:  # before 0.5.14
        wanted.append(["--disable-cuda-graph"])
    return [word for words in wanted if words[0] in option_names for word in words]


def main():
    out, max_bytes, options = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(3, False)
    threading.Thread(target=end_with_parent, daemon=True).start()

    def tell(step, **more):
        os.write(3, (json.dumps({"step": step, **more}) + "\n").encode())

    tell("begun", version=metadata.version("sglang"))
    from sglang.srt.entrypoints.engine import Engine
    from sglang.srt.server_args import ServerArgs, prepare_server_args

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    names = {name for action in parser._actions for name in action.option_strings}
    tell("loading")
    engine = Engine(server_args=prepare_server_args(options + quick(names)))
    tell("writing")
    engine.save_sharded_model(path=out, pattern=None, max_size=max_bytes)
    tell("written")
    engine.shutdown()
    tell("ended")


if __name__ == "__main__":  # SGLang's processes are spawned, and read this file again
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # at once: the usual end waits for processes that may not end by themselves
