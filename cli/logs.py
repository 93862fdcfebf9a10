"""Logs of the long-running commands: JSON lines where nobody looks, coloured text on a terminal. Always on stderr.

Libraries that log through ``logging`` (the pool, uvicorn, gRPC) come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

_STDERR = sys.__stderr__ or sys.stderr
"""The process's own: a replacement may be closed while threads still log."""
LogFormat = Literal["auto", "json", "text"]


def configure(level: str, log_format: LogFormat) -> None:
    """Set up structlog and ``logging`` for this process; call once, before anything is logged."""
    is_text = log_format == "text" or (log_format == "auto" and _STDERR.isatty())
    stamped: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shown: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=_STDERR.isatty())]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*stamped, *shown],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(_STDERR),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_STDERR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
        )
    )
    logging.basicConfig(
        level=max(logging.getLevelNamesMapping()[level], logging.WARNING), handlers=[handler], force=True
    )
