# A package as releases from 0.5.14 on declare their options: in the annotations of one class.
from __future__ import annotations

import dataclasses
from typing import Annotated as A
from typing import List, Literal, Optional, Union

from sglang.srt.arg_groups.argparse_actions import DeprecatedAction, DeprecatedAliasStoreAction, DeprecatedStoreTrueAction

CHOICES = ("x", "y")


class Backend:
    FULL = "full"
    NONE = "none"
    ALL = (FULL, NONE)


@dataclasses.dataclass
class ServerArgs:
    model_path: A[str, Arg(help="The model.", aliases=["--model"])]
    size: A[int, "How large."] = 16
    length: A[Optional[int], Arg(help="Tokens.", type_parser=human_readable_int)] = None
    ratio: A[Union[float, None], "A share."] = 0.5
    names: A[Optional[List[str]], "Several."] = None
    numbers: A[list[int], Arg(help="Several.", nargs="*")] = dataclasses.field(default_factory=list)
    mode: A[Literal["auto", "one"], "How." " In two parts."] = "auto"
    backend: A[str | None, Arg(help="By what.", choices=Backend.ALL)] = None
    choice: A[str, Arg(help="", choices=CHOICES)] = "x"
    switch: A[bool, "On."] = False
    renamed: A[bool, Arg(help="Deprecated. On.", cli_name="--re-named")] = False
    both: A[bool, Arg(help="Either.", action=argparse.BooleanOptionalAction)] = True
    hidden: A[str, Arg(help="Not here.", no_cli=True)] = ""
    plain: int = 3
    size: A[int, "How large, declared again."] = 32

    @staticmethod
    def add_cli_args(parser):
        add_cli_args_from_dataclass(parser, ServerArgs)
        parser.add_argument("--old-switch", action=DeprecatedStoreTrueAction, dest="switch", new_flag="--switch")
        parser.add_argument("--old-size", action=DeprecatedAliasStoreAction, dest="size", type=int, new_flag="--size")
        parser.add_argument("--ignored", action=DeprecatedAction)
        parser.add_argument("--ended", action=DeprecatedAction, error_message="Use --switch.")
