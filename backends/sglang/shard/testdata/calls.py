"""Reads the installed sglang without importing it (it would want torch), and holds against it what script.py calls. Prints what does not hold."""
import ast
import sys
from importlib import metadata
from pathlib import Path

root = Path(metadata.distribution("sglang").locate_file("sglang"))
problems = []


def module(path):
    return ast.parse((root / path).read_text())


def find(tree, kind, name):
    for node in ast.walk(tree):
        if isinstance(node, kind) and node.name == name:
            return node
    problems.append(f"there is no {name}")
    return ast.parse("def nothing(): pass").body[0]


def holds(condition, what):
    if not condition:
        problems.append(what)


def arguments(function):
    return [a.arg for a in function.args.args]


args = module("srt/server_args.py")
holds(arguments(find(find(args, ast.ClassDef, "ServerArgs"), ast.FunctionDef, "add_cli_args")) == ["parser"], "ServerArgs.add_cli_args(parser)")
holds(arguments(find(args, ast.FunctionDef, "prepare_server_args")) == ["argv"], "prepare_server_args(argv)")

engine = find(module("srt/entrypoints/engine.py"), ast.ClassDef, "Engine")
init = find(engine, ast.FunctionDef, "__init__")
holds(init.args.kwarg is not None and "'server_args' in kwargs" in ast.unparse(init), "Engine(server_args=…)")
holds(find(engine, ast.FunctionDef, "save_sharded_model").args.kwarg is not None, "Engine.save_sharded_model(**kwargs)")
holds(arguments(find(engine, ast.FunctionDef, "shutdown")) == ["self"], "Engine.shutdown()")

updater = module("srt/managers/scheduler_components/weight_updater.py")
reads = {
    node.slice.value
    for node in ast.walk(find(updater, ast.FunctionDef, "save_sharded_model"))
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
}
holds(reads == {"path", "pattern", "max_size"}, f"save_sharded_model reads path, pattern, max_size, not {reads}")

loader = find(module("srt/model_loader/loader.py"), ast.ClassDef, "ShardedStateLoader")
patterns = [ast.literal_eval(n.value) for n in loader.body if isinstance(n, ast.Assign) and n.targets[0].id == "DEFAULT_PATTERN"]
holds(patterns == ["model-rank-{rank}-part-{part}.safetensors"], f"the pattern of file names, not {patterns}")

print(metadata.version("sglang"))
print("\n".join(problems), end="")
sys.exit(len(problems) > 0)
