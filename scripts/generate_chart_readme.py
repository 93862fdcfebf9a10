"""Generate deploy/helm/tenure/README.md from the chart's values.yaml and values.schema.json.

``--check`` compares instead of writing and exits 1 when the committed file is stale. A comment ``# -- …`` before a
value is its meaning. Invariant: every value has one, or lies below one that has.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "tenure"
TARGET = CHART / "README.md"

HEAD = """# Values of the chart

<!-- DO NOT EDIT: scripts/generate_chart_readme.py makes this file from values.yaml and values.schema.json. -->

How to install, upgrade and operate with the chart: [docs/HELM.md](../../../docs/HELM.md). Example values are in
[ci/](ci). A value that is unknown or malformed is refused, and so are values that contradict each other.
"""

SETTINGS = """
## Settings

Every setting of [docs/CONFIGURATION.md](../../../docs/CONFIGURATION.md) can be given. Those that have no value of their
own above go into a block `settings`, under their name without `TENURE_` and in camel case. What is left out keeps the
process' own default.

| Value | Variable |
| --- | --- |
"""

_KEY = re.compile(r"^( *)([A-Za-z0-9_./-]+):(.*)$")
_MEANING = re.compile(r"^ *# -- (.*)$")
_MORE = re.compile(r"^ *# (.*)$")
SHARED = ("etcdPrefix", "etcdTimeoutS", "logLevel", "logFormat")


def main(arguments: list[str]) -> int:
    """Write the file, or compare it with ``--check``; return the exit code."""
    text = readme()
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_chart_readme.py")
        return 1
    return 0


def readme() -> str:
    """Return the document.

    Raises:
        LookupError: a value without a meaning.
    """
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values, told = yaml.safe_load(text), dict(meanings(text))
    if silent := [path for path in leaves(values) if not any(path == to or path.startswith(f"{to}.") for to in told)]:
        raise LookupError(f"values.yaml says nothing of {', '.join(silent)}")
    sections: dict[str, list[str]] = {}
    for path, meaning in told.items():
        line = f"| `{path}` | {_default(_at(values, path))} | {meaning.replace('|', chr(92) + '|')} |\n"
        sections.setdefault(path.split(".")[0] if "." in path else "Release", []).append(line)
    parts = [
        f"\n## {section}\n\n| Value | Default | Meaning |\n| --- | --- | --- |\n{''.join(lines)}"
        for section, lines in sections.items()
    ]
    return "".join([HEAD, *parts, SETTINGS, *_settings()])


def meanings(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each value that has a meaning, with it."""
    path: list[tuple[int, str]] = []
    meaning = ""
    for line in text.splitlines():
        if begun := _MEANING.match(line):
            meaning = begun[1]
        elif meaning and (more := _MORE.match(line)):
            meaning += f" {more[1]}"
        elif key := _KEY.match(line):
            depth = len(key[1])
            path = [one for one in path if one[0] < depth] + [(depth, key[2])]
            if meaning:
                yield ".".join(name for _, name in path), meaning
            meaning = ""


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value that is no map, or an empty one."""
    if not isinstance(value, dict) or not value:
        yield path
        return
    for key, below in value.items():
        yield from leaves(below, f"{path}.{key}" if path else key)


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def _default(value: Any) -> str:
    if value in ("", None):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _settings() -> Iterator[str]:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    blocks = {
        "settings": ("TENURE_", schema["properties"]["settings"]),
        "coordinator.settings": ("TENURE_", schema["properties"]["coordinator"]["properties"]["settings"]),
        "workerDefaults.settings": ("TENURE_WORKER_", schema["definitions"]["worker"]["properties"]["settings"]),
        "runnerDefaults.settings": ("TENURE_WORKER_", schema["definitions"]["runner"]["properties"]["settings"]),
    }
    for block, (prefix, known) in blocks.items():
        for key in known["properties"]:
            snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).upper()
            yield f"| `{block}.{key}` | `{'TENURE_' if key in SHARED else prefix}{snake}` |\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
