"""From records to HTML: the templates, and how values are written in them.

Invariant: whatever jobs are called, hold or log, it comes out as text. Jinja escapes markup, and what could move a
terminal's cursor, hide or turn text around is shown by its code instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from tenure.model.text import visible

STATIC = resources.files("tenure.dashboard") / "static"
MAX_JSON_CHARS = 100_000
"""Of a payload or result that a page shows; the whole is a download."""
SIGNS = {
    "waiting": "○",
    "ready": "●",
    "executing": "▶",
    "restarting": "↻",
    "completed": "✓",
    "failed": "✗",
    "canceled": "⊘",
    "running": "▶",
    "lost": "⚡",
    "timed_out": "⏱",
    "rescheduled": "↻",
    "released": "↩",
    "parked": "⏸",
}


def shown(value: object) -> str:
    """Return text in which every character is seen: escape codes, and what turns text around, by their numbers."""
    return visible(str(value))


def pretty(value: object) -> str:
    """Return JSON for people, cut where it is long."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False, default=str)
    if len(text) > MAX_JSON_CHARS:
        text = f"{text[:MAX_JSON_CHARS]}\n… {len(text) - MAX_JSON_CHARS:,} more characters: download it"
    return shown(text)


def count(number: int | None, *, at_least: bool = False) -> str:
    """Return a number with separators; a plus where there is more."""
    return "–" if number is None else f"{number:,}{'+' if at_least else ''}"


def span(seconds: float | None) -> str:
    """Return a length of time in its two greatest units."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, length, below, smaller in (("d", 86_400, 3_600, "h"), ("h", 3_600, 60, "min"), ("min", 60, 1, "s")):
        if whole >= length:
            rest = whole % length // below
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def size(number: int) -> str:
    """Return a number of bytes."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def at(instant: datetime | None, now: datetime) -> Markup | str:
    """Return a time as an element: how long ago it is, or how far ahead, with the whole of it beside."""
    if instant is None:
        return "–"
    instant = instant.astimezone(UTC)
    away_s = (now - instant).total_seconds()
    words = f"{span(away_s)} ago" if away_s >= 0 else f"in {span(-away_s)}"
    if abs(away_s) > 2 * 86_400:
        words = f"{instant:%Y-%m-%d %H:%M}"
    whole = f"{instant:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(instant.isoformat(), whole, words)


def state(name: object) -> Markup:
    """Return a state as a badge: a sign and the word, so that no color stands alone."""
    word = str(name)
    return Markup('<span class="state {}"><span aria-hidden="true">{}</span> {}</span>').format(
        word, SIGNS.get(word, "·"), word.replace("_", " ")
    )


def lease(id: int) -> str:
    """Return the id of a lease as etcd writes it: 16 hexadecimal digits, also of one that was signed on its way."""
    return f"{id & 0xFFFF_FFFF_FFFF_FFFF:016x}"


@cache
def static_url(name: str) -> str:
    """Return the path of a static file, which changes with the file."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:16]
    return f"/ui/static/{name}?v={digest}"


@cache
def environment() -> jinja2.Environment:
    """Return the templates."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tenure.dashboard", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(shown=shown, pretty=pretty, count=count, span=span, size=size, at=at, state=state, lease=lease)
    made.globals.update(static_url=static_url)
    # Texts are made visible wherever they come out, not only where somebody thought of it.
    made.finalize = _finalize
    return made


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a template filled in."""
    return environment().get_template(template).render(context)


def block(template: str, name: str, context: Mapping[str, Any]) -> str:
    """Return one block of a template, such as what a live page replaces."""
    found = environment().get_template(template)
    return "".join(found.blocks[name](found.new_context(dict(context))))


__all__ = [
    "at",
    "block",
    "count",
    "escape",
    "lease",
    "pretty",
    "render",
    "shown",
    "size",
    "span",
    "state",
    "static_url",
]
