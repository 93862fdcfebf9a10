"""Between the messages of log lines and ``tenure.model.logs``."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.model.logs import LEVELS, Level, LogLine, StoredLine
from tenure.v1 import job_pb2 as pb
from tenure.v1 import wire

_FIRST_S = int(datetime(1970, 1, 1, tzinfo=UTC).timestamp())
_LAST_S = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def line_to_pb(line: LogLine) -> pb.LogLine:
    """Convert a line that is to be written; its texts must be clean."""
    return pb.LogLine(
        at=wire.timestamp(line.at),
        level=int(line.level),  # type: ignore[arg-type]  # the numbers are the same
        message=line.message,
        fields=line.fields,
        logger=line.logger,
        code=line.code,
    )


def line_from_pb(message: pb.LogLine, now: datetime) -> LogLine:
    """Read a line; one without a time that a calendar knows has the present one."""
    level = Level(message.level) if message.level in _LEVELS else Level.INFO
    return LogLine(_time(message.at) or now, level, message.message, message.fields, message.logger, message.code)


def stored_to_pb(line: StoredLine) -> pb.LogLine:
    """Convert a line that was written."""
    return pb.LogLine(
        at=wire.timestamp(line.at),
        level=int(LEVELS.get(line.level, Level.INFO)),  # type: ignore[arg-type]
        message=line.message,
        fields=bytes(line.fields).decode() if isinstance(line.fields, msgspec.Raw) else "",
        logger=line.logger,
        code=line.code,
    )


_LEVELS = frozenset(int(level) for level in Level)


def _time(at: Timestamp) -> datetime | None:
    if not _FIRST_S < at.seconds < _LAST_S or not 0 <= at.nanos < 1_000_000_000:
        return None
    return at.ToDatetime(UTC)
