import msgspec

MODES = frozenset({"fast", "exact"})


class Model(msgspec.Struct):
    _NS_PATH = "model"
    made = Derived(fn="somewhere")
    model_path: A[str, Arg(help="The model.", aliases=["--model"])]
    overrides: A[Optional[dict], Arg(help="JSON.", type_parser=json.loads)] = None
    colour: A[str, Arg(help="Hue.", no_cli=True)] = "red"
    quantization: A[Optional[str], Arg(help="How.", choices=["a", "b"], action="store_true")] = None


class NotListed(msgspec.Struct):
    elsewhere: A[str, "Not an input."] = ""
