"""Every ``tenure`` command that a page names exists, with the options that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tenure.cli.main import app
from tenure.cli.up import up_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "dashboard" / "templates").glob("*.html")),
]
TREE: Any = typer.main.get_command(app)
_alone = typer.Typer()
_alone.command()(up_command)
UP: Any = typer.main.get_command(_alone)
OWN_PARSER = {"health"}
"""Answered before the others are imported; its options are its own."""
_SPAN = re.compile(r"`(tenure [^`\n]+)`|\$\((tenure [^)]+)\)|<code>(tenure [^<\n]+)</code>")
_BLOCK = re.compile(r"^```(?:sh|console|shell)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^(?:\$ )?(tenure .+)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])(--?[a-z][\w-]*)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
ROOT_OPTIONS = {"--help", "-h", "--debug", "--version", "--install-completion", "--show-completion"}


def _named(text: str) -> Iterator[str]:
    lines = [line for block in _BLOCK.findall(text) for line in _LINE.findall(block)]
    for command in [*lines, *(part for found in _SPAN.findall(text) for part in found if part)]:
        # A pipe, a comment or the next command is none of it.
        yield re.split(r"\s+[|&;#>]|\\$|…", _QUOTED.sub("X", command))[0]


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def _problem(named: str) -> str | None:
    command: Any = TREE
    words = named.split()[1:]
    path = ["tenure"]
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        child = command.commands.get(words[0].strip(".,:"))
        if child is None:
            is_placeholder = not re.fullmatch(r"[a-z][a-z-]*", words[0])
            return None if is_placeholder else f"{named}: {' '.join(path)} has no {words[0]}"
        command, path = child, [*path, words.pop(0)]
    if path[-1] in OWN_PARSER:
        return None
    if path[-1] == "up":
        command = UP
    unknown = set(_OPTION.findall(" ".join(words))) - _options(command) - ROOT_OPTIONS
    return f"{named}: {' '.join(path)} has no {', '.join(sorted(unknown))}" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page: str) -> None:
    problems = [_problem(named) for named in _named((ROOT / page).read_text(encoding="utf-8"))]
    assert [problem for problem in problems if problem] == []


def test_what_does_not_exist_is_found() -> None:
    text = (
        "see `tenure jobs lst`, `tenure jobs list --colour`, <code>tenure retention put --keep 30d</code> and\n"
        "```sh\ntenure jobs get $(tenure nothing) | jq\n```\n"
    )
    problems = [problem for problem in map(_problem, _named(text)) if problem]
    assert len(problems) == 4
