#!/usr/bin/env python3
"""Holds ../options.json against SGLang's own argument parser, and writes what that parser makes of random lines.

    oracle.py FOLDER       FOLDER/VERSION holds the unpacked wheel of each release; package msgspec is needed

The real ServerArgs.add_cli_args runs with everything it imports stubbed that is not about options, so that
neither torch nor a GPU is needed. Each release runs in an interpreter of its own. The lines go to
../testdata/lines-VERSION.json: arguments, and either the options that were given with their values or the
error. The Go parser is tested against them.
"""
import argparse
import ast
import importlib.abc
import importlib.machinery
import json
import os
import pathlib
import random
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
LINES = 250

# REAL are the modules whose own code runs: they declare options or the names that options choose from.
REAL = re.compile(
    r"sglang\.srt\.(server_args|arg_groups\.(arg_utils|argparse_actions|choices|field_order|fields(\.\w+)?)"
    r"|parser\.reasoning_parser(_names)?|function_call\.(function_call_parser|parser_names)|model_executor\.cuda_graph_config)"
    r"|sglang\.(jit_kernel\.kv_canary|kernels\.ops\.kv_canary)\.consts")
# VALUES are what options need of sglang.srt.utils; the rest of that module needs torch.
VALUES = ("human_readable_int", "json_list_type", "nullable_str", "SUPPORTED_LORA_TARGET_MODULES", "LORA_TARGET_ALL_MODULES")


class Anything(type):
    """A class that can be called, subclassed, subscripted and asked for anything, as stubs must be."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (), {})
        setattr(cls, name, made)
        return made

    def __getitem__(cls, _):
        return cls

    def __call__(cls, *args, **kwargs):
        # A decorator gives back what it decorates; everything else is false, so that switches are off.
        return args[0] if len(args) == 1 and isinstance(args[0], type) and not kwargs else Nothing()

    def __or__(cls, other):
        return cls

    __ror__ = __or__

    def __iter__(cls):
        return iter(())

    def __bool__(cls):
        return False


class Nothing:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()

    def __call__(self, *args, **kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) else Nothing()

    def __bool__(self):
        return False

    def __iter__(self):
        return iter(())

    def __lt__(self, other):
        return False

    __gt__ = __le__ = __ge__ = __lt__


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, root):
        self.root = root

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top != "sglang":
            if top in sys.stdlib_module_names or top == "msgspec":
                return None
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        if REAL.fullmatch(name):
            file = self.root.joinpath(*name.split("."))
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            locations = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(name, file, submodule_search_locations=locations)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        if name in ("sglang.srt.utils", "sglang.srt.utils.common"):
            self.values(module)

        def attribute(attr):
            if attr.startswith("__"):
                raise AttributeError(attr)
            made = Anything(attr, (), {"__module__": name})
            setattr(module, attr, made)
            return made

        module.__getattr__ = attribute

    def values(self, module):
        for path in ("sglang/srt/utils/common.py", "sglang/srt/utils/__init__.py", "sglang/srt/utils.py"):
            file = self.root / path
            if not file.is_file():
                continue
            tree = ast.parse(file.read_text())
            tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in VALUES
                         or isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and n.targets[0].id in VALUES]
            import decimal
            module.__dict__.update(json=json, orjson=json, argparse=argparse, re=re, Decimal=decimal.Decimal)
            exec(compile(tree, str(file), "exec"), module.__dict__)
            if tree.body:
                return


def fresh():
    """A parser as SGLang makes it, for one line: the parser is changed by being watched."""
    from sglang.srt.server_args import ServerArgs
    parser = argparse.ArgumentParser(prog="sglang serve")
    ServerArgs.add_cli_args(parser)
    return parser


def dump(parser):
    """What argparse was told, in the words of the table."""
    out = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        none = action.nargs == 0
        kind = {int: "int", float: "float"}.get(action.type, "str")
        if not none and action.type is not None:
            kind = {"human_readable_int": "size", "loads": "json", "json_list_type": "json",
                    "parse_cuda_graph_config_arg": "json"}.get(getattr(action.type, "__name__", ""), kind)
        out[action.option_strings[0]] = {
            "names": sorted(action.option_strings), "nargs": "0" if none else action.nargs or "", "type": "" if none else kind,
            "choices": sorted(map(str, action.choices)) if action.choices and not none else [], "required": action.required}
    return out


def expected(version):
    out = {}
    for o in json.loads((HERE.parent / "options.json").read_text())["options"]:
        if version in o["in"]:
            nargs = o.get("nargs", "")
            out[o["name"]] = {"names": sorted([o["name"], *o.get("aliases", [])]), "nargs": nargs,
                              "type": "" if nargs == "0" else o.get("type", "str"),
                              "choices": sorted(map(str, o.get("choices", []))), "required": o.get("required", False)}
    return out


class Failed(Exception):
    pass


def words(rng, action):
    """Values for an option, mostly fitting ones."""
    if action.choices and rng.random() < 0.8:
        return str(rng.choice(sorted(action.choices, key=str)))
    kind = getattr(action.type, "__name__", "str")
    if rng.random() < 0.6:
        return {"int": "8", "float": "0.8", "human_readable_int": "32k"}.get(kind, "[1]" if kind.endswith(("loads", "list_type")) else "a")
    pools = {
        "int": ["0", "1", "-1", " 3 ", "1_000", "+4", "2.0", "x", "", "1e3", "-x", "0x10", "1__0", "_1"],
        "float": ["1", "-0.5", "1e-3", ".5", "inf", "nan", "x", "", "-inf", "1_0.5", "1_e3", "-1e-3", "Infinity", "0x1p3"],
        "human_readable_int": ["8192", "32k", "1M", "64Ki", "1.5k", "1.5Ki", "-1", "32K", "x"],
        "loads": ['{"a": 1}', "[1, 2]", "{", "null", "1"],
        "json_list_type": ["[1, 2]", "[", "{}"],
        "parse_cuda_graph_config_arg": ['{"decode": {}}', "[", "{}"],
    }
    return rng.choice(pools.get(kind, ["a", "two words", "--", "-5", "-x", "", "--x y", "/models/m", "a=b", "none", "-1.5", "é"]))


def line(rng, parser):
    actions = [a for a in parser._actions if not isinstance(a, argparse._HelpAction) and a.dest != "model_path"]
    out = ["--model-path", "m"] if rng.random() < 0.97 else []
    for _ in range(rng.randint(1, 4)):
        action = rng.choice(actions)
        name = rng.choice(action.option_strings)
        cut = rng.random()
        if cut < 0.15:
            name = name[:rng.randint(4, len(name))]
        elif cut < 0.18:
            name += rng.choice("sx-")
        many = action.nargs in ("+", "*", "?") or action.nargs == 0 and rng.random() < 0.05
        count = rng.randint(0, 3) if many else 0 if action.nargs == 0 else rng.choices([1, 0, 2], [90, 5, 5])[0]
        values = [words(rng, action) for _ in range(count)]
        # Python loses the value of --name=-- and lets it pass; the Go parser refuses it.
        if values and values[0] != "--" and rng.random() < 0.35:
            out.append(name + "=" + values[0])
            out += values[1:]
        else:
            out += [name, *values]
    return out


def judge(parser, args):
    """The options that argparse found, in order, with their values; or its error."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        original = type(action).__call__

        def record(self, parser, namespace, values, option_string=None, original=original):
            try:
                original(self, parser, namespace, values, option_string)
            except (ValueError, AssertionError) as error:  # the server dies of it
                raise Failed(str(error).split("\n")[0][:40])
            found.append([self.option_strings[0], values if isinstance(values, list) else [values] if self.nargs != 0 else []])

        action.__class__ = type(type(action).__name__, (type(action),), {"__call__": record})
    parser.error = lambda message: (_ for _ in ()).throw(Failed(message))
    try:
        parser.parse_args(args)
    except Failed as error:
        return {"args": args, "error": str(error)[:120]}
    except SystemExit:
        return {"args": args, "error": "exit"}
    return {"args": args, "options": [[name, [None if v is None else str(v) for v in values]] for name, values in found]}


def one(root, version):
    sys.meta_path.insert(0, Stubs(root))
    table, truth = expected(version), dump(fresh())
    if table != truth:
        for name in sorted(table.keys() | truth.keys()):
            if table.get(name) != truth.get(name):
                print(f"{version} {name}:\n  table  {table.get(name)}\n  parser {truth.get(name)}")
        raise SystemExit(1)
    rng, results = random.Random(version), []
    sys.stderr = open(os.devnull, "w")  # the warnings about deprecated options
    for _ in range(LINES):
        parser = fresh()
        results.append(judge(parser, line(rng, parser)))
    sys.stderr = sys.__stderr__
    target = HERE.parent / "testdata" / f"lines-{version}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
    good = sum("options" in r for r in results)
    print(f"{version}: {len(truth)} options agree; {len(results)} lines, {good} of them accepted")


def main(folder):
    for path in sorted(pathlib.Path(folder).iterdir()):
        if (path / "sglang" / "srt" / "server_args.py").is_file():
            subprocess.run([sys.executable, __file__, "--one", str(path), path.name], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(pathlib.Path(sys.argv[2]), sys.argv[3])
    else:
        main(sys.argv[1])
