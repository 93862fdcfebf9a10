"""Generate client/sync_client.py from the public methods of AsyncClient: same signatures, one-line bodies.

``--check`` compares instead of writing and exits 1 when the committed file is stale.
"""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "client" / "async_client.py"
TARGET = ROOT / "client" / "sync_client.py"

HEADER = '''"""The blocking client. DO NOT EDIT: scripts/generate_sync_client.py makes it from client/async_client.py.

Each method hands the one of the same name in ``AsyncClient`` to the event loop of ``client.portal`` and waits.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from tenure.client.async_client import AsyncClient
from tenure.client.kinds import KindSettings
from tenure.client.link import TLS
from tenure.client.portal import Portal
from tenure.client.records import (
    Attempt,
    CanceledJobs,
    Cluster,
    Explanation,
    HeldClaim,
    Job,
    Limit,
    Namespace,
    NewJob,
    Pause,
    Pool,
    RetriedJobs,
    Retry,
    SubmittedJobs,
    Worker,
)
from tenure.client.schedules import NewSchedule, Schedule, Tick, TickJob
from tenure.client.stream import StreamedJob
from tenure.client.workflows import Workflow, WorkflowChange
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.states import JobState
from tenure.model.unique import OnDuplicate


class Client:
    """A blocking client of the coordinators. Use it as ``with`` or call ``close``; safe for many threads."""
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
    tree = ast.parse(SOURCE.read_text())
    [cls] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "AsyncClient"]
    parts = [HEADER]
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            parts.append(_head(node, "None") + INIT_BODY.format(arguments=_arguments(node)).lstrip("\n"))
        elif isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_") and node.name != "close":
            parts.append(_delegation(node))
    return "\n".join(parts)


def _delegation(node: ast.AsyncFunctionDef) -> str:
    assert node.returns is not None, f"{node.name} has no return annotation"
    returns = ast.unparse(node.returns)
    streams = returns.startswith("AsyncIterator[")
    verb = "iterate" if streams else "call"
    head = _head(node, returns.removeprefix("Async") if streams else returns)
    return f"{head}        return self._portal.{verb}(self._client.{node.name}({_arguments(node)}))\n"


def _head(node: ast.FunctionDef | ast.AsyncFunctionDef, returns: str) -> str:
    docstring = ast.get_docstring(node, clean=False)
    assert docstring, f"{node.name} has no docstring"
    return f'    def {node.name}({ast.unparse(node.args)}) -> {returns}:\n        """{docstring}"""\n'


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    positional = [argument.arg for argument in node.args.args[1:]]
    return ", ".join([*positional, *(f"{a.arg}={a.arg}" for a in node.args.kwonlyargs)])


def _formatted(text: str) -> str:
    ruff = pathlib.Path(sys.executable).parent / "ruff"
    command = [str(ruff), "format", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


if __name__ == "__main__":
    sys.exit(main())
