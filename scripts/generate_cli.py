"""Generate docs/CLI.md, the reference of the command line, from the commands themselves.

``--check`` compares instead of writing and exits 1 when the committed file is stale. Every word comes from the
commands' own help, so that ``--help`` and the page cannot differ.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from tenure.cli.main import EPILOG, app
from tenure.cli.up import up_command

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "CLI.md"

HEAD = """# The command line

<!-- DO NOT EDIT: scripts/generate_cli.py makes this file from the commands in cli/. -->

Every command of `tenure`, with its options. `tenure COMMAND --help` shows the same. New here? Begin with the
[tutorial](TUTORIAL.md).

## In one manner everywhere

- **`-o`** chooses the form: `table` for people; `wide`, the same with every column, whole; `json` and `yaml` for
  programs; `name`, the ids or names alone, one a line, for `xargs`. What was asked for goes to stdout, notes to stderr.
- **Tables fit the terminal**: texts are shortened first, then columns left out, and a note says which. Ids are never
  cut. Without a terminal nothing is shortened.
- **`--watch`** goes on: on a terminal the table is drawn anew, elsewhere each record is told when it is found, has
  changed, or is gone (with `-o json` as `{"event": ..., "object": ...}`, one a line). `--every` says how often.
- **Errors** are one line on stderr, with the next step to take below it; `--debug` shows the traceback.
- **Shell completion**: `tenure --install-completion` sets it up for bash, zsh, fish or PowerShell. Tab then knows
  commands and options, and asks the coordinator for namespaces, kinds, pools, jobs, schedules, workflows and limits,
  for a second at most.
- **Where**: `-c HOST:PORT` or `TENURE_COORDINATOR`. All variables are in [CONFIGURATION.md](CONFIGURATION.md).
"""


def main(arguments: list[str]) -> int:
    """Write the file, or compare it with ``--check``; return the exit code."""
    text = reference()
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_cli.py")
        return 1
    return 0


def reference() -> str:
    """Return the document."""
    # Options of this process's environment are no defaults.
    for name in [name for name in os.environ if name.startswith("TENURE_")]:
        del os.environ[name]
    up = typer.Typer(add_completion=False)
    up.command()(up_command)
    root = typer.main.get_command(app)
    found = sorted(_commands(root, "tenure"))
    found = [(name, typer.main.get_command(up) if name == "tenure up" else command) for name, command in found]
    parts = [HEAD, "\n## Exit codes\n\n", _exit_codes(), "\n## Commands\n\n"]
    parts += [f"- [`{name}`](#{_anchor(name)}): {_first(command)}\n" for name, command in found]
    parts += [text for name, command in found for text in _section(name, command)]
    return "".join(parts)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, below in children.items():
        yield from _commands(below, f"{name} {child}")


def _exit_codes() -> str:
    rows = re.findall(r"^  (\d+)\s+(.+)$", EPILOG, re.MULTILINE)
    return "| Code | Meaning |\n| --- | --- |\n" + "".join(f"| {code} | {words} |\n" for code, words in rows)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _first(command: Any) -> str:
    return _plain((command.help or "").split("\n\n")[0])


def _section(name: str, command: Any) -> Iterator[str]:
    with command.make_context(name, [], resilient_parsing=True) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"\n### {name}\n\n"
        for paragraph in (command.help or "").split("\n\n"):
            yield f"{_plain(paragraph)}\n\n"
        yield f"```text\n{name} {usage}\n```\n"
        rows = [row for row in (_row(parameter, context) for parameter in command.params) if row]
        if rows:
            yield "\n| | |\n| --- | --- |\n"
            yield from rows


def _row(parameter: Any, context: Any) -> str:
    if parameter.name in ("install_completion", "show_completion", "help"):
        return ""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    head, text = record
    return f"| `{_cell(head)}` | {_cell(text).replace('<', '&lt;')} |\n"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|") if text else ""


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\b", "")).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
