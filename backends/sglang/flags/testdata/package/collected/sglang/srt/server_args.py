# A package as 0.5.23 declares its options: in classes of a folder, put together when the module is loaded.
import msgspec

from sglang.srt.arg_groups.fields.model import Model

COLOURS = {"red", "green"}


def _modes():
    from sglang.srt.arg_groups.fields.model import MODES

    return list(MODES)


class ServerArgs:
    @staticmethod
    def add_cli_args(parser):
        add_cli_args_from_dataclass(parser, ServerArgs)
        colours = set(COLOURS)
        if parser:
            colours.add("blue")
        parser.add_argument("--colour", choices=colours, default=_declared_default("colour"))
        modes = _modes()
        parser.add_argument("--mode", choices=["auto"] + modes)


_INPUT_NAMESPACES = [Model]
ServerArgs = msgspec.defstruct("ServerArgs", [])
