"""The calls about logs, for the services that offer them: what is asked, checked, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import Any

from tenure.coordinator.finish import Verdict
from tenure.coordinator.logs import Appended, LogBatch, LogWriter
from tenure.coordinator.read_logs import LogReader, Wanted
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, PermissionDenied
from tenure.model.ids import parse_id
from tenure.model.logs import Level
from tenure.v1 import job_service_pb2, log_wire
from tenure.v1 import worker_service_pb2 as pb

MAX_TAIL = 100_000
_SLACK_BYTES = 8 * 1024
"""For the token of a batch and what else is no line."""
_VERDICTS = {
    Verdict.RECORDED: pb.VERDICT_RECORDED,
    Verdict.REPEATED: pb.VERDICT_REPEATED,
    Verdict.LOST: pb.VERDICT_LOST,
    Verdict.INVALID: pb.VERDICT_INVALID,
    Verdict.LOCKED: pb.VERDICT_LOCKED,
}
_MAX_SEQ = 1 << 53


async def append_logs(
    writer: LogWriter, request: pb.AppendLogsRequest, require_token: Callable[[Any], None], clock: Clock
) -> pb.AppendLogsResponse:
    """Write batches; one that cannot be read, or shows no right to write it, is answered so, and fails no other.

    Raises:
        InvalidInput: too many, or too much. PermissionDenied: there is no batch whose token is right.
    """
    if len(request.batches) > DEFAULT_BOUNDS.log_call_batches:
        most = DEFAULT_BOUNDS.log_call_batches
        raise InvalidInput([FieldViolation("batches", f"{len(request.batches)} members, at most {most} in a call")])
    if (size := request.ByteSize()) > DEFAULT_BOUNDS.log_call_bytes + _SLACK_BYTES * (1 + len(request.batches)):
        most = DEFAULT_BOUNDS.log_call_bytes
        raise InvalidInput([FieldViolation("batches", f"are {size} bytes, at most {most} in a call")])
    now = clock.wall()
    read: list[LogBatch | Appended] = []
    seen: set[tuple[str, int]] = set()
    denied: PermissionDenied | None = None
    has_right = False
    for message in request.batches:
        try:
            require_token(message)
            has_right = True
            if (message.job_id, message.fence) in seen:
                raise InvalidInput([FieldViolation("job_id", "is of an attempt that has a batch in this call")])
            seen.add((message.job_id, message.fence))
            read.append(_batch(message, now))
        except PermissionDenied as exc:
            denied = exc
            read.append(Appended(Verdict.INVALID, exc.message))
        except InvalidInput as exc:
            read.append(Appended(Verdict.INVALID, exc.message))
    if denied is not None and not has_right:
        raise denied
    answers = iter(await writer.append([one for one in read if isinstance(one, LogBatch)]))
    return pb.AppendLogsResponse(
        batches=[_appended_to_pb(next(answers) if isinstance(one, LogBatch) else one) for one in read]
    )


def _batch(message: pb.LogBatch, now: datetime) -> LogBatch:
    job_id = parse_id(message.job_id, "job_id")
    if not 1 <= message.first_seq < _MAX_SEQ:
        raise InvalidInput([FieldViolation("first_seq", "lines are numbered from 1")])
    most = DEFAULT_BOUNDS.log_batch_lines
    if not 1 <= len(message.lines) <= most:
        raise InvalidInput([FieldViolation("lines", f"must be 1 to {most}")])
    if (size := message.ByteSize()) > DEFAULT_BOUNDS.log_batch_bytes + _SLACK_BYTES:
        bound = DEFAULT_BOUNDS.log_batch_bytes
        raise InvalidInput([FieldViolation("lines", f"are {size} bytes, at most {bound} in a batch")])
    lines = [log_wire.line_from_pb(line, now) for line in message.lines]
    return LogBatch(job_id, message.fence, message.first_seq, lines)


def _appended_to_pb(answer: Appended) -> pb.AppendedLogs:
    return pb.AppendedLogs(
        verdict=_VERDICTS[answer.verdict], message=answer.message, last_seq=answer.last_seq, is_full=answer.is_full
    )


def wanted_logs(request: job_service_pb2.ReadLogsRequest) -> Wanted:
    """Check what a reader asks for.

    Raises:
        InvalidInput: with every violation.
    """
    violations = []
    for name in ("attempt", "after_attempt", "after_seq", "tail", "limit"):
        if getattr(request, name) < 0:
            violations.append(FieldViolation(name, "must not be negative"))
    if request.tail > MAX_TAIL:
        violations.append(FieldViolation("tail", f"must be at most {MAX_TAIL}"))
    if request.tail and (request.after_attempt or request.after_seq):
        violations.append(FieldViolation("tail", "goes on from nowhere: leave it out with after_attempt and after_seq"))
    if request.min_level not in (0, *Level):
        violations.append(FieldViolation("min_level", f"{request.min_level} is none"))
    if violations:
        raise InvalidInput(violations)
    return Wanted(
        parse_id(request.job_id, "job_id"),
        attempt=request.attempt or None,
        after=(request.after_attempt, request.after_seq),
        level=Level(request.min_level or Level.DEBUG),
        follow=request.follow,
        tail=request.tail or None,
        limit=request.limit or None,
    )


async def read_logs(reader: LogReader, wanted: Wanted) -> AsyncGenerator[job_service_pb2.ReadLogsResponse, None]:
    """Stream lines, a page at a time."""
    async for page in reader.read(wanted):
        yield job_service_pb2.ReadLogsResponse(
            entries=_entries(page.attempt, page.lines), after_attempt=page.attempt, after_seq=page.last_seq
        )


def _entries(attempt: int, lines: Sequence[Any]) -> list[job_service_pb2.LogEntry]:
    return [job_service_pb2.LogEntry(attempt=attempt, seq=line.seq, line=log_wire.stored_to_pb(line)) for line in lines]
