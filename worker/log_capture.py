"""What handlers write, turned into lines of their attempt's log: by ``ctx.log``, and by Python's ``logging``.

Which attempt a record of ``logging`` belongs to is told by a context variable that the engines set around a handler;
tasks and ``asyncio.to_thread`` take it along, threads that a handler makes by itself do not, unless they run in a
copy of its context. In the process of a process handler everything belongs to the one attempt. Invariant: to write a
line never blocks and never raises. What the worker's own log shows stays as it was: lines are kept besides.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import structlog

from tenure.model.logs import LEVELS, Level, LogLine, fields_text, level_of
from tenure.probes import tracing

Write = Callable[[LogLine], None]
"""Takes a line, from any thread; never blocks, never raises."""

writes_to: ContextVar[Write | None] = ContextVar("tenure_attempt_log", default=None)
"""Where what is logged here belongs; set by the engines around a handler."""

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_OWN = ("structlog", __name__)
QUIET = ("asyncio", "httpcore", "httpx")
"""Libraries of which warnings are kept, and no more: httpx logs each request with its URL, which may hold secrets."""


def handler_logger(write: Write, shown: Any, least: Level) -> Any:
    """Return a structlog logger: its lines are written to an attempt's log, from a level on, and given to ``shown``."""

    def process(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        level = LEVELS.get(method, Level.INFO)
        if level >= least:
            write(_line_of(level, dict(event)))
        with suppress(Exception):  # it is kept: that it cannot be shown must not end the handler
            getattr(shown, method)(**event)
        raise structlog.DropEvent

    return structlog.wrap_logger(
        None,
        processors=[process],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()


def _line_of(level: Level, event: dict[str, Any]) -> LogLine:
    message = _text(event.pop("event", ""))
    exception = _exception(event.pop("exc_info", None))
    if exception:
        event["exception"] = exception
    event.update(tracing.ids())
    return LogLine(datetime.now(UTC), level, message, fields_text(event), "", _code())


def _code() -> str:
    """Return where in a handler's code this was called from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_OWN):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}" if frame is not None else ""


class AttemptHandler(logging.Handler):
    """Writes what is logged by a handler to its attempt's log; what nobody's handler logs is left alone."""

    def __init__(self, level: int, everything_to: Write | None = None) -> None:
        super().__init__(level)
        self._everything_to = everything_to

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, without the lock that handlers share: the log has its own."""
        if (write := self._everything_to or writes_to.get()) is not None:
            try:
                write(line_of(record))
            except Exception:  # a record that cannot even be read: as logging does with those
                self.handleError(record)
        return True


def line_of(record: logging.LogRecord) -> LogLine:
    """Return the line that a record stands for."""
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[:1] != "_"}
    if isinstance(record.msg, dict):  # of structlog, on its way through logging
        event = dict(record.msg)
        message = _text(event.pop("event", ""))
        fields = {**event, **fields}
    else:
        try:
            message = record.getMessage()
        except Exception as exc:  # its arguments do not fit
            message = f"{_text(record.msg)} (its arguments do not fit: {exc})"
    exception = _exception(record.exc_info) or record.exc_text
    if exception:
        fields["exception"] = exception
    if record.stack_info:
        fields["stack"] = record.stack_info
    fields.update(tracing.ids())
    return LogLine(
        datetime.fromtimestamp(record.created, UTC),
        level_of(record.levelno),
        message,
        fields_text(fields),
        _text(record.name),
        f"{record.module}:{record.lineno}",
    )


@contextmanager
def capturing(level: int, everything_to: Write | None = None) -> Iterator[None]:
    """Have ``logging`` write to attempts' logs. What its handlers show, they show; and no more than before.

    Within another one this changes nothing: a record is written once.
    """
    with _lock:
        _users.append(None)
        if len(_users) == 1:
            _undo.append(_install(level, everything_to))
    try:
        yield
    finally:
        with _lock:
            _users.pop()
            if not _users:
                _undo.pop()()


_lock = threading.Lock()
_users: list[None] = []
_undo: list[Callable[[], None]] = []


def _install(level: int, everything_to: Write | None) -> Callable[[], None]:
    """Add the handler to the root logger; return what takes it back."""
    root = logging.getLogger()
    before = root.level
    others = list(root.handlers)
    passes = _shown_before(before)
    added: list[logging.Handler] = [AttemptHandler(level, everything_to)]
    if not others and logging.lastResort is not None:  # with a handler it would not be asked
        added.append(logging.lastResort)
    quiet = [library for name in QUIET if (library := logging.getLogger(name)).level == logging.NOTSET]
    for one in others:
        one.addFilter(passes)
    for library in quiet:
        library.setLevel(logging.WARNING)
    for one in added:
        root.addHandler(one)
    root.setLevel(min(before, level) if before else level)

    def undo() -> None:
        root.setLevel(before)
        for one in added:
            root.removeHandler(one)
        for library in quiet:
            library.setLevel(logging.NOTSET)
        for one in others:
            one.removeFilter(passes)

    return undo


def _shown_before(root_level: int) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that lets pass what came to the root's handlers before its level was lowered."""

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno >= root_level:
            return True
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and logger.parent is not None:
            if logger.level:
                return True
            logger = logger.parent
        return False

    return passes


def _exception(told: Any) -> str:
    """Return the traceback that ``exc_info`` stands for, empty if none."""
    if told is True:
        told = sys.exc_info()
    if isinstance(told, BaseException):
        told = (type(told), told, told.__traceback__)
    if not isinstance(told, tuple) or len(told) != 3 or told[1] is None:
        return ""
    try:
        return "".join(traceback.format_exception(*told)).rstrip("\n")
    except Exception as exc:  # an exception whose __str__ raises
        return f"{type(told[1]).__name__} (cannot be shown: {type(exc).__name__})"


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    try:
        return str(value)
    except Exception as exc:
        return f"({type(value).__name__}: cannot be shown, {type(exc).__name__})"
