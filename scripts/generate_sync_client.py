"""Generate client/sync_client.py from the public methods of AsyncClient: same signatures, one-line bodies.

They are those of the class itself and of the classes in client/calls that it inherits from, in that order. Imports are
taken over from where the signatures stand. ``--check`` compares instead of writing and exits 1 when the committed file
is stale.
"""

from __future__ import annotations

import ast
import builtins
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "client" / "async_client.py"
TARGET = ROOT / "client" / "sync_client.py"

HEAD = '''"""The blocking client. DO NOT EDIT: scripts/generate_sync_client.py makes it from ``AsyncClient``.

Each method hands the one of the same name there to the event loop of ``client.portal`` and waits.
"""

from __future__ import annotations

'''
OWN_IMPORTS = {
    "builtins": "import builtins",
    "Iterator": "from collections.abc import Iterator",
    "AsyncClient": "from tenure.client.async_client import AsyncClient",
    "Portal": "from tenure.client.portal import Portal",
}
Method = ast.FunctionDef | ast.AsyncFunctionDef
CLASS = '''class Client:
    """A blocking client of the coordinators. Use it as ``with`` or call ``close``; safe for many threads.

    Make one in each process: a fork does not take it along.
{rest}"""
'''
INIT_BODY = """
        self._client = AsyncClient({arguments})
        self._portal = Portal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        \"\"\"Close the connections. May be called twice.\"\"\"
        self._portal.close(self._client.close)
"""


def main() -> int:
    """Write the file, or compare it."""
    text = _formatted(_generate())
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and TARGET.read_text() == text:
            return 0
        print("client/sync_client.py is stale: run scripts/generate_sync_client.py", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


def _generate() -> str:
    modules = [ast.parse(SOURCE.read_text())]
    own = _class(modules[0], "AsyncClient")
    lines = _imports(modules[0])
    bases = [ast.unparse(base) for base in own.bases]
    modules += [ast.parse(_path(lines[base]).read_text()) for base in bases]
    classes = [own, *(_class(tree, base) for tree, base in zip(modules[1:], bases, strict=True))]
    methods = [method for cls in classes for method in _methods(cls)]
    _name_builtins(methods)
    code = "\n".join([CLASS.format(rest=_rest_of_docstring(own)), *map(_method, methods)])
    return HEAD + "\n".join(_needed(code, modules)) + "\n\n\n" + code


def _needed(code: str, modules: list[ast.Module]) -> list[str]:
    """Return the lines that import what the code names."""
    names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    found = {name: line for name, line in OWN_IMPORTS.items() if name in names}
    for tree in modules:
        for name, line in _imports(tree).items():
            if name in names:
                assert found.setdefault(name, line) == line, f"{name} is two things"
    return list(found.values())


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    [cls] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return cls


def _rest_of_docstring(cls: ast.ClassDef) -> str:
    """Return what follows the first line, with the example as it is for the blocking client."""
    _, _, rest = (ast.get_docstring(cls, clean=False) or "").partition("\n")
    return rest.replace(f"async with {cls.name}", "with Client").replace("await ", "")


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the line that imports each name."""
    return {
        alias.asname or alias.name: ast.unparse(type(node)(**{**vars(node), "names": [alias]}))
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _path(line: str) -> pathlib.Path:
    """Return the file of the module that an import takes a class from."""
    module = line.split()[1]
    return ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _methods(cls: ast.ClassDef) -> list[Method]:
    functions = [node for node in cls.body if isinstance(node, Method) and node.name != "close"]
    return [one for one in functions if one.name == "__init__" or not one.name.startswith("_")]


def _name_builtins(methods: list[Method]) -> None:
    """Write ``builtins.list`` for a type whose name a method of the one class has."""
    taken = {method.name for method in methods}
    for part in (part for method in methods for part in (method.args, method.returns) if part is not None):
        for node in ast.walk(part):
            if isinstance(node, ast.Name) and node.id in taken and hasattr(builtins, node.id):
                node.id = f"builtins.{node.id}"


def _method(node: Method) -> str:
    if node.name == "__init__":
        return _head(node, "None") + INIT_BODY.format(arguments=_arguments(node)).lstrip("\n")
    assert isinstance(node, ast.AsyncFunctionDef) and node.returns is not None, (
        f"{node.name}: not async, or no return type"
    )
    returns = ast.unparse(node.returns)
    streams = returns.startswith("AsyncIterator[")
    verb = "iterate" if streams else "call"
    head = _head(node, returns.removeprefix("Async") if streams else returns)
    return f"{head}        return self._portal.{verb}(self._client.{node.name}({_arguments(node)}))\n"


def _head(node: Method, returns: str) -> str:
    docstring = ast.get_docstring(node, clean=False)
    assert docstring, f"{node.name} has no docstring"
    return f'    def {node.name}({ast.unparse(node.args)}) -> {returns}:\n        """{docstring}"""\n'


def _arguments(node: Method) -> str:
    positional = [argument.arg for argument in node.args.args[1:]]
    return ", ".join([*positional, *(f"{a.arg}={a.arg}" for a in node.args.kwonlyargs)])


def _formatted(text: str) -> str:
    ruff = pathlib.Path(sys.executable).parent / "ruff"
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format"]):
        line = [str(ruff), *command, "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(line, input=text, capture_output=True, text=True, check=True, timeout=60).stdout
    return text


if __name__ == "__main__":
    sys.exit(main())
