"""Records as YAML, for ``-o yaml``: what JSON can hold, in block style. Only writes; nothing here reads YAML.

Invariant: what is written reads back as the same value (YAML 1.1 and 1.2): a text that could be taken for anything
else is quoted, and a quoted text has no character that a terminal acts on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*\Z")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
"""What some reader of YAML takes for a truth or for nothing."""


def to_yaml(value: Any) -> str:
    """Return a value as YAML, one line feed at its end."""
    if isinstance(value, Mapping | list) and value:
        return "".join(f"{line}\n" for line in _lines(value))
    return f"{_scalar(value)}\n"


def _lines(value: Any) -> Iterator[str]:
    """Yield the lines of a map or list that is not empty."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            head = f"{_scalar(str(key))}:"
            if isinstance(item, Mapping | list) and item:
                yield head
                pad = "" if isinstance(item, list) else "  "
                yield from (f"{pad}{line}" for line in _lines(item))
            else:
                yield f"{head} {_scalar(item)}"
        return
    for item in value:
        if isinstance(item, Mapping | list) and item:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield f"- {_scalar(item)}"


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return value if _is_plain(value) else _quoted(value)
    return "[]" if isinstance(value, list) else "{}"


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if exponent and "." not in mantissa:
        mantissa += ".0"  # else YAML 1.1 takes it for a text
    return f"{mantissa}e{power if power.startswith('-') else '+' + power.lstrip('+')}" if exponent else text


def _is_plain(text: str) -> bool:
    return _PLAIN.match(text) is not None and text.lower() not in _WORDS


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in quoted)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
