"""What is left out of the logs: secrets, and the hundredth line in ten seconds that says the same.

An outage has every part say so again and again; what counts is the first lines, and how many there were. Both filters
work on whatever thread logs. Invariants: what is an entry of the audit log, and what handlers write, is left out never;
no secret that this process was configured with is written, whatever text it comes in.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO
from urllib.parse import unquote

import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from structlog.typing import EventDict, WrappedLogger

from tenure.model.logs import HANDLERS_LOGGER

BURST = 100
"""Lines of one event and level in a window."""
WINDOW_S = 10.0
MOST_EVENTS = 1_000
"""Of a window, that are counted: libraries make a text of each."""
ALWAYS = frozenset({"audit_not_written", "audit_left_out"})
"""The log has these entries in the place of Postgres."""
HIDDEN = "***"
LEAST_CHARS = 6
"""Of a secret that is looked for as it is: a shorter one would make holes in everything."""

Summarize = Callable[[str, str, int], None]
"""Told of an event, its level, and how many lines of it were left out."""


class HandlersLogger(structlog.WriteLogger):
    """What writes the lines of ``ctx.log``: by it they are known, whatever fields they and others have."""


def logger_of(file: TextIO, *names: object) -> structlog.WriteLogger:
    """Return what writes the lines of a logger of structlog of this name."""
    return HandlersLogger(file) if names[:1] == (HANDLERS_LOGGER,) else structlog.WriteLogger(file)


class RateLimit:
    """Lets so many lines of an event pass in a window, and has the others counted."""

    def __init__(self, summarize: Summarize, *, burst: int = BURST, window_s: float = WINDOW_S) -> None:
        self._summarize = summarize
        self._burst = burst
        self._window_s = window_s
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], int] = {}
        self._until = 0.0
        self._timer: threading.Timer | None = None

    def passes(self, event: str, level: str) -> bool:
        """Say whether a line is to be written."""
        now = time.monotonic()
        with self._lock:
            left_out = self._next_window(now) if now >= self._until else ()
            key = (event, level)
            seen = self._seen.get(key, 0) + 1
            if seen == 1 and len(self._seen) >= MOST_EVENTS:
                return True
            self._seen[key] = seen
            if seen == self._burst + 1 and self._timer is None:
                self._timer = threading.Timer(max(0.01, self._until - now), self._end_window)
                self._timer.daemon = True
                self._timer.start()
        self._tell(left_out)
        return seen <= self._burst

    def _next_window(self, now: float) -> tuple[tuple[str, str, int], ...]:
        left_out = tuple((*key, seen - self._burst) for key, seen in self._seen.items() if seen > self._burst)
        self._seen.clear()
        self._until = now + self._window_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return left_out

    def _end_window(self) -> None:
        with self._lock:
            left_out = self._next_window(time.monotonic())
        self._tell(left_out)

    def _tell(self, left_out: Iterable[tuple[str, str, int]]) -> None:
        for event, level, lines in left_out:
            self._summarize(event, level, lines)

    def __call__(self, logger: WrappedLogger, method: str, record: EventDict) -> EventDict:
        """Drop a record of structlog that there were enough of."""
        event = str(record.get("event", ""))
        is_own = not isinstance(logger, HandlersLogger) and "more_like_this" not in record
        if is_own and event not in ALWAYS and not self.passes(event, str(record.get("level", method))):
            raise structlog.DropEvent
        return record


def summarize(event: str, level: str, lines: int) -> None:
    """Write a line in the place of those that were left out."""
    getattr(structlog.get_logger(), level, structlog.get_logger().warning)(event, more_like_this=lines)


_BEGIN = r"(?:\b|(?<=\\[nrt]))"
"""Of a word; in JSON a line ends with the characters of an escape, of which the last could be its first."""
_SHAPES = (
    (re.compile(r"(\b\w+://[^\s:/@'\"]*:)[^\s/'\"]+@"), rf"\1{HIDDEN}@"),
    (re.compile(rf"(?i)({_BEGIN}password\s*=\s*)(?:'[^']*'|[^\s'\"\\,;&]+)"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_BEGIN}bearer\s+)[\w.~+/=-]{{8,}}"), rf"\1{HIDDEN}"),
    (re.compile(rf"{_BEGIN}tnr_[0-9a-f]{{32}}_[\w-]{{20,}}"), f"tnr_{HIDDEN}"),
    (re.compile(rf"{_BEGIN}eyJ[\w-]{{8,500}}\.[\w-]{{8,}}\.[\w-]*"), HIDDEN),
    (re.compile(rf"(?i)({_BEGIN}X-Amz-(?:Signature|Security-Token)=)[\w%.~+/-]+"), rf"\1{HIDDEN}"),
)
"""What secrets look like: passwords in addresses and settings, bearer tokens, tenure's own, JWTs, signed URLs.

Each is looked for in time that grows with the line, no faster: they hold up every lease keeper of a worker meanwhile.
"""


class Redaction:
    """Takes secrets out of a line that is ready to be written: those it was told of, and what looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        wanted = {form for secret in secrets if len(secret) >= LEAST_CHARS for form in _forms(secret)}
        self._known = re.compile("|".join(map(re.escape, sorted(wanted, key=len, reverse=True)))) if wanted else None

    def __call__(self, logger: WrappedLogger, method: str, line: Any) -> Any:
        """Return the line without them."""
        if not isinstance(line, str):
            return line
        if self._known is not None:
            line = self._known.sub(HIDDEN, line)
        for shape, instead in _SHAPES:
            line = shape.sub(instead, line)
        return line


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written: as it is, in JSON, in Python."""
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}


def secrets_of(settings: BaseSettings) -> list[str]:
    """Return the secrets of a process' settings; of a DSN its password, and not what is no secret."""
    found: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if not isinstance(value, SecretStr):
            continue
        text = value.get_secret_value()
        in_dsn = re.findall(r"://[^:/@\s]*:([^@\s]+)@|\bpassword\s*=\s*'?([^\s']+)", text)
        parts = [part for pair in in_dsn for part in pair if part]
        found += [*parts, *map(unquote, parts)] if name == "postgres_dsn" else [text]
    return found
