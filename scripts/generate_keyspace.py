"""Write the schemas of docs/keyspace into docs/KEYSPACE.md, where people read them.

The files are the source: programs take them as they are. ``--check`` compares instead of writing and exits 1 when the
page is stale. ``tests/docs/test_keyspace.py`` holds them against the code and against what a deployment writes.
"""

from __future__ import annotations

import json
import pathlib
import sys
import textwrap
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "docs" / "keyspace"
TARGET = ROOT / "docs" / "KEYSPACE.md"
HEADING = "\n## Schemas\n"
ORDER = ("leader", "coordinators", "workers", "inbox-offers", "inbox-cancel", "claims", "slots", "holds", "done")
INTRO = """
JSON Schema (draft 2020-12) of every value. Each is a file, too, for programs: [`keyspace/`](keyspace). Fields that a
schema does not name may come with later releases.
<!-- What follows is made by scripts/generate_keyspace.py from docs/keyspace. -->
"""
WIDTH = 118


def main(arguments: list[str]) -> int:
    """Write the section, or compare it with ``--check``; return the exit code."""
    before = TARGET.read_text(encoding="utf-8")
    text = before.split(HEADING)[0] + HEADING + INTRO + "".join(section(name) for name in ORDER)
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if before != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_keyspace.py")
        return 1
    return 0


def section(name: str) -> str:
    """Return what is shown of one schema.

    Raises:
        LookupError: a file that is not in ``ORDER``.
    """
    if strange := {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()} - set(ORDER):
        raise LookupError(f"no place in the page for {', '.join(sorted(strange))}")
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    key, text = schema.pop("$comment"), schema.pop("description")
    for of_the_file in ("$schema", "$id", "title"):
        schema.pop(of_the_file)
    words = textwrap.fill(f"`{key}`. {text}", WIDTH, break_on_hyphens=False)
    return f"\n### {name.replace('-', ' ')}\n\n{words}\n\n```json\n{pretty(schema)}\n```\n"


def pretty(value: Any, indent: int = 0, room: int = 0) -> str:
    """Return JSON that a person can read: what fits in a line is on one."""
    line = json.dumps(value, ensure_ascii=False)
    nested = '"properties"' in line or (isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()))
    if not isinstance(value, dict) or not value or (not nested and indent + room + len(line) <= WIDTH):
        return line
    pad = " " * (indent + 2)
    lines = [f"{pad}{json.dumps(key)}: {pretty(item, indent + 2, len(key) + 5)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
