"""Lines of logs: what one is, how long it may be, and how it is kept. Pure; used by workers and coordinators alike.

A line is kept as a JSON object, one per line of text, from the moment a coordinator takes it: in Postgres as in the
object store. Invariant: whatever a handler writes becomes a line of bounded size that JSON, UTF-8 and Postgres can
hold; nothing that it writes can make two lines of one, or spoil the others of its batch. What a line says is data:
whoever shows it on a terminal escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from tenure.model.bounds import DEFAULT_BOUNDS

HANDLERS_LOGGER = "tenure.handler"
"""The logger of structlog that shows what handlers write by ``ctx.log`` in the worker's own log."""
MAX_NAME_CHARS = 255
"""Of the name of a logger, and of a place in the code."""
_MARK_BYTES = 64
"""Room for the note that something was cut."""
_DEEPEST = 32
_MOST_PARTS = 2_000


class Level(IntEnum):
    """How grave a line is, in order."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    CRITICAL = 5

    @property
    def word(self) -> str:
        """The level as it is kept and shown."""
        return self.name.lower()


LEVELS = {level.word: level for level in Level}


def level_of(number: int) -> Level:
    """Return the level for a number of Python's ``logging``; one in between counts as the lower one."""
    return Level(min(max(number // 10, Level.DEBUG), Level.CRITICAL))


class LogLine(NamedTuple):
    """A line as it is sent. ``fields`` is the text of a JSON object, empty for none."""

    at: datetime
    level: Level
    message: str
    fields: str = ""
    logger: str = ""
    code: str = ""
    """Where in the code: ``module:line``."""

    @property
    def size(self) -> int:
        """How many bytes it takes, about."""
        return size_of(self.message) + size_of(self.fields) + len(self.logger) + len(self.code) + 16


class StoredLine(msgspec.Struct, omit_defaults=True):
    """A line as it is kept."""

    seq: int
    at: datetime
    level: str
    message: str
    logger: str = ""
    code: str = ""
    fields: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(StoredLine)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def size_of(text: str) -> int:
    """Return how many bytes a clean text takes."""
    return len(text) if text.isascii() else len(text.encode())


def clean(text: str) -> str:
    """Replace what UTF-8 or Postgres cannot hold: lone surrogates and NUL."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def cut(text: str, most: int) -> str:
    """Return a clean text that takes no more bytes than this; one that was longer says by how much."""
    data = text.encode()
    if len(data) <= most:
        return text
    kept = data[: max(0, most - _MARK_BYTES)].decode("utf-8", "ignore")
    return f"{kept} [cut: {len(data) - len(kept.encode())} more bytes]"


def bounded(line: LogLine) -> LogLine:
    """Return a line that is clean and within its bound. Of long fields the beginning is kept, as text."""
    message, logger, code = clean(line.message), _name(line.logger), _name(line.code)
    fields = _checked(line.fields)
    most = DEFAULT_BOUNDS.log_line_bytes
    own, others = size_of(message), size_of(fields)
    if own + others > most:
        message = cut(message, max(most - others, most // 2))
        room = most - size_of(message)
        if others > room:
            # As text within JSON each quote takes two bytes.
            fields = _as_text("cut", cut(fields, max(_MARK_BYTES, room // 2 - _MARK_BYTES)))
    return LogLine(line.at, line.level, message, fields, logger, code)


def fields_text(fields: Mapping[str, Any]) -> str:
    """Return the text of a JSON object; what JSON cannot hold is told as Python shows it. Never raises."""
    if not fields:
        return ""
    try:
        return _ENCODER.encode(dict(fields)).decode() if _is_plain(fields) else _ENCODER.encode(_shown(fields)).decode()
    except Exception:  # whatever a handler's own objects do
        try:
            return _ENCODER.encode(_shown(fields)).decode()
        except Exception:  # nested too deeply, or an object that cannot even be named
            return '{"fields":"these cannot be told"}'


def stored(lines: Iterable[LogLine], first_seq: int) -> str:
    """Return lines as they are kept, numbered from ``first_seq``: each a JSON object and a line end."""
    parts = []
    for seq, one in enumerate(lines, start=first_seq):
        line = bounded(one)
        fields = msgspec.Raw(line.fields.encode()) if line.fields else msgspec.UNSET
        parts.append(
            _ENCODER.encode(
                StoredLine(seq, line.at.astimezone(UTC), line.level.word, line.message, line.logger, line.code, fields)
            )
        )
    parts.append(b"")
    return b"\n".join(parts).decode()


def read(text: str | bytes) -> Iterator[StoredLine]:
    """Yield lines as they were kept."""
    for part in text.split("\n") if isinstance(text, str) else text.split(b"\n"):  # not splitlines: it knows more ends
        if part:
            yield _DECODER.decode(part)


def is_at_least(line: StoredLine, least: Level) -> bool:
    """Say whether a line is as grave as that."""
    return LEVELS.get(line.level, Level.CRITICAL) >= least


def _name(text: str) -> str:
    return clean(text[:MAX_NAME_CHARS])


def _checked(text: str) -> str:
    """Return the text of a JSON object without line ends; what is none becomes a field that holds it as text."""
    if not text:
        return ""
    text = clean(text)
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _as_text("unreadable", cut(text, DEFAULT_BOUNDS.log_line_bytes))
    # Between the parts of JSON alone: within a text they are escaped.
    return text.replace("\n", " ").replace("\r", " ")


def _as_text(name: str, text: str) -> str:
    return _ENCODER.encode({name: text}).decode()


_PLAIN = (int, bool, type(None))


def _is_plain(fields: Mapping[str, Any]) -> bool:
    return all(
        type(name) is str and name.isascii() and ((type(value) is str and value.isascii()) or type(value) in _PLAIN)
        for name, value in fields.items()
    )


def _shown(value: Any, depth: int = 0, left: list[int] | None = None) -> Any:
    """Return a value as JSON can hold it: so deep, and of so many parts, whatever refers to what."""
    left = [_MOST_PARTS] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        return "…"
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int | None):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # infinite, or none
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            members = list(islice(value.items(), left[0] + 1))
            return {clean(_said(str, name)): _shown(one, depth + 1, left) for name, one in members}
        if isinstance(value, list | tuple | set | frozenset):
            return [_shown(one, depth + 1, left) for one in list(islice(value, left[0] + 1))]
    if isinstance(value, datetime):
        return value.isoformat()
    return clean(_said(str if isinstance(value, Exception) else repr, value))


def _said(how: Callable[[Any], str], value: Any) -> str:
    try:
        return how(value)
    except Exception as exc:
        return f"({type(value).__name__}: cannot be shown, {type(exc).__name__})"
