"""Logs of the long-running commands: JSON lines where nobody looks, coloured text on a terminal. Always on stderr.

Invariant: one record is one line (as text, but for tracebacks, which are indented), and nothing that a client sent
reaches a terminal as a control character. No variables are shown with a traceback: they may hold secrets. What is left
out besides is said in ``cli.log_filters``.
Libraries that log through ``logging`` (the pool, uvicorn, gRPC) come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import partial
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tenure.cli.log_filters import RateLimit, Redaction, logger_of, summarize
from tenure.cli.output import line
from tenure.model.text import visible

_STDERR = sys.__stderr__ or sys.stderr
"""The process's own: a replacement may be closed while threads still log."""
LogFormat = Literal["auto", "json", "text"]


def configure(level: str, log_format: LogFormat, secrets: Iterable[str] = ()) -> None:
    """Set up structlog and ``logging`` for this process; call once, before anything is logged.

    ``secrets`` are never written, nor what looks like one.
    """
    rate_limit, redaction = RateLimit(summarize), Redaction(secrets)
    is_text = log_format == "text" or (log_format == "auto" and _STDERR.isatty())
    stamped: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shown: list[Processor] = (
        [structlog.processors.format_exc_info, _escaped, _renderer(colors=_STDERR.isatty()), redaction]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(), redaction]
    )
    structlog.configure(
        processors=[*stamped[:2], rate_limit, *stamped[2:], *shown],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=partial(logger_of, _STDERR),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_STDERR)
    handler.addFilter(lambda record: rate_limit.passes(_event_of(record), record.levelname.lower()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
        )
    )
    logging.basicConfig(
        level=max(logging.getLevelNamesMapping()[level], logging.WARNING), handlers=[handler], force=True
    )


def _event_of(record: logging.LogRecord) -> str:
    """Return what lines of a library are counted by: an object is not asked what it says, which might fail."""
    return record.msg[:200] if isinstance(record.msg, str) else type(record.msg).__qualname__


def _renderer(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _escaped(logger: WrappedLogger, method: str, record: EventDict) -> EventDict:
    """Escape what the renderer would show as it is: the event, and tracebacks with the texts of errors."""
    record["event"] = line(record.get("event", ""))
    for name in ("exception", "stack"):
        if text := record.get(name):
            record[name] = "\n".join(f"    {one}" for one in visible(str(text)).split("\n"))
    return record
