"""Generate docs/EVENTS.md: every line that processes log by themselves, by name, from the calls in the code.

``--check`` compares instead of writing and exits 1 when the committed file is stale.
"""

from __future__ import annotations

import ast
import pathlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "EVENTS.md"
FOLDERS = ("coordinator", "dashboard", "worker", "store", "probes", "client", "model")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")

HEAD = """# Logs of tenure itself

<!-- DO NOT EDIT: scripts/generate_events.py makes this file from the calls in the code. -->

Coordinators, workers and runners log to stderr: JSON lines where nobody looks, coloured text on a terminal
(`TENURE_LOG_FORMAT`), from `TENURE_LOG_LEVEL` on. What handlers log is another thing: [LOGS.md](LOGS.md).

- `event` names what happened, and does not change between releases without a line in the changelog. What varies is in
  the other fields: `error` or `reason` why, `next_step` or `hint` what to do.
- Every line has `level`, `timestamp` (UTC), and whose it is: `coordinator` or `worker`.
- A line about an attempt has `job`, `fence`, and `attempt` where it is known; on coordinators `worker` besides.
- **Levels.** `debug`: nothing to do, ever. `info`: what happens in health, and what heals by itself. `warning`:
  something did not come through and is tried again; look if it goes on. `error`: something is lost or wrong, and needs
  somebody.
- **Once is enough.** Of one event and level a hundred lines are written in ten seconds; then one line with the same
  `event` says in `more_like_this` how many there were besides. Entries of the audit log that Postgres did not take, and
  what handlers write, are never left out.
- **No secrets.** Passwords and tokens of the settings are replaced by `***` in whatever text they come, and so is what
  looks like one: passwords in addresses, bearer tokens, JWTs, signatures of URLs.

## Events
"""


class Event(NamedTuple):
    """A call that logs."""

    name: str
    level: str
    fields: tuple[str, ...]
    file: str


def calls() -> Iterator[Event]:
    """Yield the calls of module-level loggers with a literal event."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (found := _event(node, str(path.relative_to(ROOT)))) is not None:
                    yield found


def _event(node: ast.AST, file: str) -> Event | None:
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(name)), *_]
        ) if level in LEVELS:
            fields = tuple(word.arg for word in node.keywords if word.arg and word.arg != "exc_info")
            spread = any(word.arg is None and ast.unparse(word.value).endswith(".named") for word in node.keywords)
            return Event(
                name, "error" if level == "exception" else level, (*_NAMED, *fields) if spread else fields, file
            )
    return None


_NAMED = ("job", "attempt", "fence")


def document() -> str:
    """Return the document."""
    events: dict[str, list[Event]] = defaultdict(list)
    for one in calls():
        events[one.name].append(one)
    parts = [HEAD, "\n| Event | Level | Fields | Logged by |\n| --- | --- | --- | --- |\n"]
    for name, found in sorted(events.items()):
        levels = ", ".join(sorted({one.level for one in found}))
        fields = ", ".join(f"`{field}`" for field in dict.fromkeys(field for one in found for field in one.fields))
        files = ", ".join(f"`{file}`" for file in dict.fromkeys(one.file for one in found))
        parts.append(f"| `{name}` | {levels} | {fields} | {files} |\n")
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the file, or compare it with ``--check``; return the exit code."""
    text = document()
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_events.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
