# A package as releases up to 0.5.12 declare their options, and of every form that the generator must read.
from __future__ import annotations

import argparse
import dataclasses
import json
from typing import List, Optional

from sglang.srt.parser.parsers import Parser

BASE = ["auto", "one"]
MORE = [*BASE, "two"]
COLOURS = {"red", "green"}
SIZE = 1 << 4
if argparse:
    EXTRA = ["three"]


@dataclasses.dataclass
class ServerArgs:
    model_path: str
    size: int = SIZE
    ratio: float = 0.5
    names: Optional[List[str]] = None
    made: dict = dataclasses.field(default_factory=dict)

    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--model-path", "--model", type=str, required=True, help="The model.")
        parser.add_argument("--size", type=int, default=ServerArgs.size, help="How large. " f"Default {SIZE}.")
        parser.add_argument("--ratio", nargs="?", const=0.1, type=float, default=ServerArgs.ratio)
        parser.add_argument("--names", nargs="*", default=ServerArgs.names)
        parser.add_argument("--mode", choices=MORE, default="auto")
        parser.add_argument("--colour", choices=COLOURS)
        parser.add_argument("--overrides", type=json.loads, help="[Deprecated] JSON.")
        chosen = list(Parser.ByName.keys())
        unused = argparse.ArgumentParser().parse_args()
        parser.add_argument("--parser", choices=["auto"] + chosen)
        parser.add_argument("--switch", action="store_true")
        parser.add_argument("--both", action=argparse.BooleanOptionalAction, default=True)
        parser.add_argument("--gone", action=DeprecatedAction, help="Use --mode.")


class DeprecatedAction(argparse.Action):
    def __init__(self, option_strings, dest, nargs=0, **kwargs):
        super().__init__(option_strings, dest, nargs=nargs, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        raise ValueError(self.help)
