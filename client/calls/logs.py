"""Reading what the attempts of a job wrote to their logs, and following it, over reconnects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from tenure.client.fields import time_of
from tenure.client.link import Link
from tenure.client.records import LogLine
from tenure.client.resume import Resumption
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.logs import LEVELS, Level
from tenure.v1 import job_service_pb2 as pb


class LogCalls:
    """Read logs."""

    _link: Link

    async def logs(
        self,
        job_id: str,
        *,
        follow: bool = False,
        attempt: int | None = None,
        level: str | None = None,
        tail: int | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[LogLine]:
        """Yield the lines of a job's logs, attempt by attempt; with ``follow`` as they are written, until it has ended.

        ``level`` leaves out what is less grave: "debug", "info", "warning", "error", "critical". ``tail`` begins so
        many lines before the end (at most 100,000), ``limit`` stops after so many. Resumes after a lost connection
        where it was. What handlers wrote is data: escape it before it comes to a terminal.

        Raises:
            NotFound: there is no such job. InvalidInput: not an id, or no such level.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        if level is not None and level not in LEVELS:
            raise InvalidInput([FieldViolation("level", f"must be one of {', '.join(LEVELS)}")])
        for name, number in (("attempt", attempt), ("tail", tail), ("limit", limit)):
            if number is not None and not 1 <= number < 1 << 31:
                raise InvalidInput([FieldViolation(name, "must be at least 1")])
        left = limit
        request = pb.ReadLogsRequest(
            job_id=job_id,
            attempt=attempt or 0,
            min_level=int(LEVELS[level]) if level else 0,  # type: ignore[arg-type]  # the numbers are the same
            follow=follow,
            tail=tail or 0,
            limit=limit or 0,
        )
        resumption = Resumption(self._link)
        while True:
            async with resumption.stream(lambda to: to.jobs.ReadLogs, request) as messages:
                async for message in messages:
                    for entry in message.entries:
                        yield _line(entry)
                    request.tail = 0
                    request.after_attempt, request.after_seq = message.after_attempt, message.after_seq
                    if left is not None:
                        left -= len(message.entries)
                        if left <= 0:
                            return
                        request.limit = left
                return


def _line(entry: pb.LogEntry) -> LogLine:
    line = entry.line
    return LogLine(
        attempt=entry.attempt,
        seq=entry.seq,
        at=time_of(line, "at"),
        level=_WORDS.get(line.level, str(line.level)),
        message=line.message,
        fields=json.loads(line.fields) if line.fields else {},
        logger=line.logger,
        code=line.code,
    )


_WORDS: dict[int, str] = {int(level): level.word for level in Level}
