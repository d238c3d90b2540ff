#!/usr/bin/env python3
"""Reads SGLang's server options out of its packages and writes ../options.json.

    table.py WHEEL...              each named sglang-VERSION-*.whl, as `pip download --no-deps sglang==VERSION` leaves it
    table.py VERSION=FOLDER...     the same unpacked; the result goes to standard output

Nothing of a package is run: the files are parsed and the few kinds of expression that declare options are
evaluated here. Three ways of declaring are known, which the releases 0.5.2 to 0.5.23 use one after the other:
add_argument calls in ServerArgs.add_cli_args; fields of ServerArgs annotated A[type, Arg(...)]; and such fields
in the classes of arg_groups/fields. What cannot be evaluated ends the program: a table with a hole in it would
refuse options that exist. oracle.py holds the result against the real parser.
"""
import ast
import json
import pathlib
import re
import sys
import zipfile

ROOT = "sglang/srt/server_args.py"


class Unresolved(Exception):
    pass


class ClassValue:
    """A class of the package: its body, and the module that its names are looked up in."""

    def __init__(self, node, module):
        self.node, self.module = node, module

    def attribute(self, name):
        for statement in self.node.body:
            if isinstance(statement, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in statement.targets):
                return self.module.value(statement.value, self)
            if isinstance(statement, ast.AnnAssign) and statement.target.id == name and statement.value is not None:
                return self.module.value(statement.value, self)
        raise Unresolved(f"{self.node.name}.{name}")

    def members(self):
        """The names that an Enum assigns."""
        return [s.targets[0].id for s in self.node.body if isinstance(s, ast.Assign)]


class Keys(list):
    """The keys of a dictionary whose values do not matter."""


class Module:
    def __init__(self, package, path):
        self.package, self.path = package, path
        self.tree = ast.parse(package.read(path))
        self.names = {}
        self.collect(self.tree.body)

    def collect(self, body):
        for statement in body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    # 0.5.23 wraps its class in place: ServerArgs = defstruct("ServerArgs", ...)
                    if isinstance(target, ast.Name) and not isinstance(self.names.get(target.id), ast.ClassDef):
                        self.names[target.id] = statement.value
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                self.names[statement.target.id] = statement.value
            elif isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
                self.names[statement.name] = statement
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                for alias in statement.names:
                    self.names[alias.asname or alias.name] = (statement.module, alias.name)

    def name(self, name, scope=None):
        if isinstance(scope, dict) and name in scope:
            if isinstance(scope[name], Unresolved):
                raise scope[name]
            return scope[name]
        if isinstance(scope, ClassValue):
            try:
                return scope.attribute(name)
            except Unresolved:
                pass
        if name not in self.names:
            raise Unresolved(f"{self.path}: {name}")
        found = self.names[name]
        if isinstance(found, tuple):
            return self.package.module(found[0]).name(found[1])
        if isinstance(found, ast.ClassDef):
            return ClassValue(found, self)
        if isinstance(found, ast.FunctionDef):
            return found
        return self.value(found)

    def value(self, node, scope=None):
        """Evaluates an expression; scope holds local names or is the class that the expression stands in."""
        ev = lambda n: self.value(n, scope)
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple() | ast.Set():
                out = []
                for item in node.elts:
                    out += ev(item.value) if isinstance(item, ast.Starred) else [ev(item)]
                return sorted(out) if isinstance(node, ast.Set) else out
            case ast.Dict():
                out = Keys()
                for key, value in zip(node.keys, node.values):
                    out += ev(value) if key is None else [ev(key)]
                return out
            case ast.Name():
                return self.name(node.id, scope)
            case ast.UnaryOp(op=ast.USub()):
                return -ev(node.operand)
            case ast.BinOp(op=ast.Add()):
                return ev(node.left) + ev(node.right)
            case ast.BinOp(op=ast.Mult()):
                return ev(node.left) * ev(node.right)
            case ast.BinOp(op=ast.Pow()):
                return ev(node.left) ** ev(node.right)
            case ast.BinOp(op=ast.LShift()):
                return ev(node.left) << ev(node.right)
            case ast.JoinedStr():
                return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
            case ast.Attribute():
                owner = ev(node.value)
                if isinstance(owner, ClassValue):
                    return owner.attribute(node.attr)
            case ast.Call(func=ast.Attribute(attr="keys"), args=[]):
                return ev(node.func.value)
            case ast.Call(func=ast.Name(id="list" | "sorted" | "set" | "frozenset" | "tuple"), args=[argument]):
                value = ev(argument)
                return value.members() if isinstance(value, ClassValue) else list(value)
            case ast.Call(func=ast.Name(id="list" | "tuple" | "set" | "frozenset" | "dict"), args=[]):
                return []
            case ast.ListComp(elt=ast.Call(func=ast.Attribute(value=ast.Attribute(attr="name"), attr="lower"), args=[])):
                members = ev(node.generators[0].iter)
                return [m.lower() for m in (members.members() if isinstance(members, ClassValue) else members)]
            case ast.Call(func=ast.Name(id="_declared_default"), args=[ast.Constant(value=field)]):
                return self.package.defaults.get(field)
            case ast.Call(func=ast.Name(), args=[], keywords=[]):
                return self.call(self.name(node.func.id, scope))
        raise Unresolved(f"{self.path}:{node.lineno}: {ast.unparse(node)}")

    def call(self, function):
        """What a function without parameters returns at its end."""
        if not isinstance(function, ast.FunctionDef) or not isinstance(function.body[-1], ast.Return):
            raise Unresolved(f"{self.path}: a call of {ast.unparse(function)}")
        local = {}
        for statement in function.body:
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    local[alias.asname or alias.name] = self.package.module(statement.module).name(alias.name)
        return self.value(function.body[-1].value, local)


class Package:
    """The files of one release."""

    def __init__(self, read, names):
        self.read, self.files = read, set(names)
        self.modules, self.defaults = {}, {}

    @staticmethod
    def wheel(path):
        archive = zipfile.ZipFile(path)
        return Package(lambda name: archive.read(name).decode(), archive.namelist())

    @staticmethod
    def folder(path):
        path = pathlib.Path(path)
        names = [str(p.relative_to(path)) for p in path.rglob("*.py")]
        return Package(lambda name: (path / name).read_text(), names)

    def module(self, dotted):
        base = dotted.replace(".", "/")
        path = base + ".py" if base + ".py" in self.files else base + "/__init__.py"
        if path not in self.files:
            raise Unresolved(f"the package has no module {dotted}")
        if path not in self.modules:
            self.modules[path] = Module(self, path)
        return self.modules[path]

    def options(self):
        main = self.module("sglang.srt.server_args")
        server_args = main.name("ServerArgs")
        records = [server_args]
        if "_INPUT_NAMESPACES" in main.names:
            records += main.name("_INPUT_NAMESPACES")
        for record in records:
            for field in annotated(record):
                if field.value is not None:
                    self.defaults[field.target.id] = default_of(record.module, field.value, record)
        out = []
        for record in records:
            for field in annotated(record):
                option = field_option(record, field)
                if option:
                    out.append(option)
        function = next(n for n in server_args.node.body if isinstance(n, ast.FunctionDef) and n.name == "add_cli_args")
        out += argument_options(self, main, function)
        return out

    def deprecated_action_stops(self):
        """Whether DeprecatedAction raises whatever it is told, as it did until 0.5.7. Later ones only warn, unless
        an error_message says otherwise."""
        for path in ("sglang/srt/arg_groups/argparse_actions.py", ROOT):
            action = self.module(path[:-3].replace("/", ".")).names.get("DeprecatedAction") if path in self.files else None
            if isinstance(action, ast.ClassDef):
                call = next(n for n in action.body if isinstance(n, ast.FunctionDef) and n.name == "__call__")
                return isinstance(call.body[0], ast.Raise)
        raise Unresolved("DeprecatedAction")


def annotated(record):
    """The annotated fields of a class. One that is declared twice counts as Python counts it: the last time."""
    fields = [s for s in record.node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    return list({f.target.id: f for f in fields}.values())


def default_of(module, node, scope):
    """A default that is a plain value; None for what is made when the server starts."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        for keyword in node.keywords:
            if keyword.arg == "default":
                return default_of(module, keyword.value, scope)
        if called.endswith("field"):
            return None
    try:
        value = module.value(node, scope)
    except Unresolved:
        return None
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else None


# TYPES are the parsers of values that can be checked without running them. Others take any text here: the
# engine checks it.
TYPES = {"str": "str", "int": "int", "float": "float", "human_readable_int": "size",
         "json.loads": "json", "json_list_type": "json", "parse_cuda_graph_config_arg": "json", "nullable_str": "str",
         "parse_cuda_graph_backend_arg": "str"}


def type_name(node):
    text = ast.unparse(node)
    if text not in TYPES:
        raise Unresolved(f"a type {text}")
    return TYPES[text]


def build(names, *, kind="str", nargs=None, choices=None, action="store", default=None, required=False, help_text="",
          new_flag="", stops=False):
    option = {"name": names[0]}
    if names[1:]:
        option["aliases"] = names[1:]
    if action in ("store_true", "none"):
        option["nargs"] = "0"
    else:
        if kind != "str":
            option["type"] = kind
        if nargs is not None:
            option["nargs"] = str(nargs)
    if action == "boolean":
        option.pop("type", None)
        option["nargs"] = "0"
        option["aliases"] = option.get("aliases", []) + ["--no-" + n[2:] for n in names]
    if choices:
        option["choices"] = sorted(set(choices), key=str)
    if default is not None and default is not False and default != []:
        option["default"] = default
    if required:
        option["required"] = True
    if new_flag or "deprecat" in help_text.lower()[:40]:
        option["deprecated"] = True
    if new_flag:
        option["instead"] = new_flag
    if stops:
        option["stops"] = True
    return option


def strip_optional(node):
    match node:
        case ast.Subscript(value=ast.Name(id="Optional")):
            return node.slice
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=elements)):
            rest = [e for e in elements if not (isinstance(e, ast.Constant) and e.value is None)]
            return rest[0] if len(rest) == 1 else node
        case ast.BinOp(op=ast.BitOr(), right=ast.Constant(value=None)):
            return node.left
    return node


def field_option(record, field):
    """The option of an annotated field, as arg_groups/arg_utils.py derives it; None for a field without one."""
    module, note = record.module, field.annotation
    if not (isinstance(note, ast.Subscript) and isinstance(note.value, ast.Name) and note.value.id in ("A", "Annotated")):
        return None
    kind, *metadata = note.slice.elts
    arg, help_text = {}, None
    for item in metadata:
        if isinstance(item, ast.Call) and ast.unparse(item.func) == "Arg":
            arg = {k.arg: k.value for k in item.keywords}
            help_text = text_of(module, arg.get("help"), record)
            break
        text = text_of(module, item, record)
        if text is not None:
            help_text = text
            break
    if help_text is None and not arg:
        return None
    ev = lambda key, other=None: module.value(arg[key], record) if key in arg else other
    if ev("no_cli", False):
        return None
    names = [ev("cli_name") or "--" + field.target.id.replace("_", "-")] + (ev("aliases") or [])
    common = {"default": default_of(module, field.value, record) if field.value is not None else None, "help_text": help_text or ""}
    if "action" in arg:
        extra = {}
        if "action_kwargs" in arg:
            extra = {k.value: v for k, v in zip(arg["action_kwargs"].keys, arg["action_kwargs"].values)}
        return action_option(module, record, names, arg["action"], extra, common)
    kind = strip_optional(kind)
    if isinstance(kind, ast.Name) and kind.id in module.names and isinstance(module.names[kind.id], ast.Subscript):
        kind = module.names[kind.id]
    choices = ev("choices")
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Literal":
        values = module.value(kind.slice, record)
        values = values if isinstance(values, list) else [values]
        scalar = type_name(arg["type_parser"]) if "type_parser" in arg else python_type(values[0])
        return build(names, kind=scalar, choices=choices or values, **common)
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) in ("List", "list") and "type_parser" not in arg:
        element = ast.unparse(kind.slice)
        return build(names, kind=element if element in ("int", "float") else "str", nargs=ev("nargs") or "+", choices=choices, **common)
    if ast.unparse(kind) == "bool" and "type_parser" not in arg:
        return build(names, action="store_true", **common)
    scalar = ast.unparse(kind)
    scalar = type_name(arg["type_parser"]) if "type_parser" in arg else scalar if scalar in ("int", "float") else "str"
    required = ev("required") is True or ("required" not in arg and field.value is None)
    return build(names, kind=scalar, nargs=ev("nargs"), choices=choices, required=required, **common)


def python_type(value):
    return {int: "int", float: "float"}.get(type(value), "str")


def text_of(module, node, scope):
    if node is None:
        return None
    if isinstance(node, ast.BinOp):
        left, right = text_of(module, node.left, scope), text_of(module, node.right, scope)
        return None if left is None and right is None else (left or "") + (right or "")
    if isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str):
        return module.value(node, scope)
    return None


def action_option(module, scope, names, action, arg, common):
    """An option with an action of its own; arg holds what the action is told."""
    action = action.value if isinstance(action, ast.Constant) else ast.unparse(action)
    ev = lambda key, other=None: module.value(arg[key], scope) if key in arg else other
    match action.rsplit(".", 1)[-1]:
        case "store_true" | "store_false":
            return build(names, action="store_true", **common)
        case "BooleanOptionalAction":
            return build(names, action="boolean", **common)
        case "LoRAPathAction":
            return build(names, nargs=ev("nargs"), **common)
        case "DeprecatedStoreTrueAction":
            return build(names, action="none", **common, new_flag=ev("new_flag", ""))
        case "DeprecatedStoreConstAction":
            if ev("nargs", 0) == 0:
                return build(names, action="none", **common, new_flag=ev("new_flag", ""))
            return build(names, choices=ev("choices"), **common, new_flag=ev("new_flag", ""))
        case "DeprecatedAliasStoreAction":
            kind = type_name(arg["type"]) if "type" in arg else "str"
            return build(names, kind=kind, nargs=ev("nargs"), choices=ev("choices"), **common, new_flag=ev("new_flag", ""))
        case "DeprecatedAction":
            common = {**common, "help_text": "deprecated"}
            stops = "error_message" in arg or module.package.deprecated_action_stops()
            return build(names, action="none", **common, stops=stops)
    raise Unresolved(f"an action {action}")


def argument_options(package, module, function):
    """The options of add_argument calls, which may use variables assigned before them in the function."""
    out, local = [], {}
    for statement in function.body:
        if isinstance(statement, ast.Assign):
            try:
                local[statement.targets[0].id] = module.value(statement.value, local)
            except Unresolved as error:
                local[statement.targets[0].id] = error  # ends the program if an option uses it
            continue
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"):
            continue
        names = [module.value(a, local) for a in call.args]
        arg = {k.arg: k.value for k in call.keywords}
        default = default_of(module, arg["default"], local) if "default" in arg else None
        common = {"default": default, "help_text": text_of(module, arg.get("help"), local) or ""}
        if "action" in arg:
            out.append(action_option(module, local, names, arg["action"], arg, common))
            continue
        ev = lambda key, other=None: module.value(arg[key], local) if key in arg else other
        out.append(build(names, kind=type_name(arg["type"]) if "type" in arg else "str", nargs=ev("nargs"), choices=ev("choices"),
                         required=ev("required", False), **common))
    return out


def merge(tables):
    """One list for all releases: each distinct declaration once, with the releases that have it."""
    versions = sorted(tables, key=lambda v: [int(n) for n in v.split(".")])
    seen = {}
    for version in versions:
        for option in tables[version]:
            seen.setdefault((option["name"], json.dumps(option, sort_keys=True)), []).append(version)
    order = ("name", "aliases", "in")
    lines = []
    for (_, text), where in sorted(seen.items()):
        option = {**json.loads(text), "in": where}
        lines.append(json.dumps({k: option[k] for k in sorted(option, key=lambda k: (order.index(k) if k in order else len(order), k))}))
    return '{"versions": %s, "options": [\n%s\n]}\n' % (json.dumps(versions), ",\n".join(lines))


def check_unique(version, options):
    names = [n for o in options for n in [o["name"], *o.get("aliases", [])]]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SystemExit(f"{version}: declared twice: {twice}")


def main(sources):
    tables = {}
    for source in sources:
        version, _, folder = source.rpartition("=")
        if not version:
            version = re.match(r"sglang-([0-9.]+)-", pathlib.Path(source).name).group(1)
        tables[version] = (Package.folder(folder) if "=" in source else Package.wheel(source)).options()
        check_unique(version, tables[version])
        print(f"{version}: {len(tables[version])} options", file=sys.stderr)
    if "=" in sources[0]:
        print(merge(tables), end="")
    else:
        (pathlib.Path(__file__).parent.parent / "options.json").write_text(merge(tables))


if __name__ == "__main__":
    main(sys.argv[1:])
