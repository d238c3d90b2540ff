"""Starts the simulated server that SGLANG_SIM names (a program and its own arguments, separated by spaces) as SGLang's own is started.

With --load-format sharded_state it first looks at the files as SGLang's ShardedStateLoader does, and fails as it does.
"""
import argparse
import glob
import os
import sys

from sglang import safetensors


def check_shards(folder, tp):
    names = None
    for rank in range(tp):
        pattern = os.path.join(folder, f"model-rank-{rank}-part-*.safetensors")
        files = glob.glob(pattern)
        if not files:
            sys.exit(f"ValueError: Could not find checkpoint files '{pattern}', only pre-sharded checkpoints are currently supported!")
        held = {name for path in files for name in safetensors.header(path)[0]}
        names = names or held
        if names - held:
            sys.exit(f"ValueError: Missing keys {tuple(sorted(names - held))} in loaded state!")


def main():
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model-path")
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--tp-size", "--tensor-parallel-size", "--tp", type=int, default=1)
    known, _ = parser.parse_known_args()
    if known.load_format == "sharded_state":
        check_shards(known.model_path, known.tp_size)
    program = os.environ["SGLANG_SIM"].split()
    os.execv(program[0], program + sys.argv[1:])


if __name__ == "__main__":
    main()
