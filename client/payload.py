"""Payloads to JSON text and back. Called by ``client.convert``; knows nothing of jobs or the wire.

Invariant: what is returned is UTF-8 clean JSON without NaN; what cannot be written names its path.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tenure.model.errors import FieldViolation, InvalidInput


def to_json(value: Any, *, path: str = "payload") -> str:
    """Write a value as compact JSON text; pydantic models and dataclasses are written as objects.

    Raises:
        InvalidInput: some part cannot be written; the violation's field is its path (``payload.items[3]``).
    """
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        place, problem = _culprit(value, path) or (path, str(exc))
        raise InvalidInput([FieldViolation(place, problem)]) from exc
    return text


def from_json(text: str) -> Any:
    """Read JSON text; the empty text is None."""
    return json.loads(text) if text else None


def _plain(value: Any) -> Any:
    # By method, not by class: a client without models never imports pydantic.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _culprit(value: Any, path: str) -> tuple[str, str] | None:
    """Find the first part that JSON refuses, depth first without recursion (the depth may be what is wrong)."""
    stack: list[tuple[Any, str, int]] = [(value, path, 0)]
    while stack:
        item, place, depth = stack.pop()
        if depth > 500:
            return place[:200] + "…", "is nested too deeply, or contains itself"
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, str | int | float | bool | None):
                    return place, f"has a key of type {type(key).__name__}; JSON keys are text"
            stack.extend((child, f"{place}.{key}", depth + 1) for key, child in reversed(list(item.items())))
        elif isinstance(item, list | tuple):
            stack.extend((child, f"{place}[{i}]", depth + 1) for i, child in reversed(list(enumerate(item))))
        else:
            try:
                json.dumps(item, allow_nan=False, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return place, "contains a lone surrogate, which is no Unicode text"
            except ValueError:
                return place, f"{item!r} is not JSON"
            except TypeError:
                try:
                    stack.append((_plain(item), place, depth + 1))
                except TypeError as exc:
                    return place, f"{exc}; use text, numbers, lists, mappings or a pydantic model"
    return None
