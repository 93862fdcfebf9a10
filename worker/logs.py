"""Lines of attempts' logs on their way to a coordinator: taken from any thread, sent in batches across attempts.

Owns what is not written yet. Invariants: to write a line never blocks; what waits is bounded, for each attempt and
for all of them, and what does not fit is dropped and counted, and a line says so; lines of an attempt are sent in
order, numbered, and a batch is sent again, unchanged, until it is answered. One that fails although others are answered
is dropped after ``ODD_TRIES``, and told of in its place; an outage, whatever it is answered with, costs no lines before
``MOST_TRIES``. An attempt that writes nothing costs nothing. The end of an attempt waits for its lines, but no longer
than ``FLUSH_S``.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import structlog

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.errors import (
    BoundExceeded,
    InvalidInput,
    OwnershipLost,
    PermissionDenied,
    TenureError,
    Unauthenticated,
    Unavailable,
)
from tenure.model.logs import Level, LogLine, bounded
from tenure.worker.link import Link, LogAnswer, LogBatch, Started, UnknownCall

log = structlog.get_logger(__name__)

ATTEMPT_BYTES = 1024 * 1024
"""That may wait of one attempt."""
ALL_BYTES = 32 * 1024 * 1024
"""That may wait in all."""
REST_S = 0.2
"""From one call to the next, so that more go together; not where an attempt has ended, or a call takes not all."""
FLUSH_S = 2.0
"""How long the report of an attempt waits for its lines; somebody who is away must not hold it."""
UPGRADE_S = 600.0
"""When coordinators have not known of logs for so long, no end waits for its lines any more; they are still tried."""
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 1.0
"""Shorter than that of reports: after an outage the lines are to arrive before the end of their attempt does."""
BATCH_LINES = DEFAULT_BOUNDS.log_batch_lines
BATCH_BYTES = DEFAULT_BOUNDS.log_batch_bytes * 3 // 4
CALL_BATCHES = DEFAULT_BOUNDS.log_call_batches
CALL_BYTES = DEFAULT_BOUNDS.log_call_bytes * 3 // 4
"""What coordinators take, with room for how it is written."""
ODD_TRIES = 20
"""Of a batch that fails alone, and nobody says why, while others are answered: about as many seconds."""
MOST_TRIES = 300
"""Of such a batch whether or not others are answered, since there may be no others: five minutes and more."""
_AT_FAULT = (InvalidInput, OwnershipLost)
"""Refusals of what was sent."""
_NOT_NOW = (Unavailable, BoundExceeded, Unauthenticated, PermissionDenied)
"""Whatever was sent: all of it is tried again. What is neither may be because of one batch: a coordinator fails over
it, or something on the way takes offence at a line."""


class AttemptLog:
    """The lines of one attempt that are not written yet; its fields are ``Logs``'."""

    __slots__ = (
        "batch",
        "batch_bytes",
        "bytes",
        "dropped",
        "is_closed",
        "is_paused",
        "lines",
        "next_seq",
        "odd_tries",
        "on_empty",
        "started",
        "timer",
        "tried_at",
        "tries",
    )

    def __init__(self, started: Started) -> None:
        self.started = started
        self.lines: deque[tuple[LogLine, int]] = deque()
        """With their sizes."""
        self.batch: LogBatch | None = None
        """What was sent and is not answered."""
        self.batch_bytes = 0
        self.bytes = 0
        """Of all of these."""
        self.next_seq = 1
        self.dropped = 0
        """Lines that did not fit, and that no line has told of."""
        self.is_closed = False
        self.tries = 0
        """How often its batch has failed alone; until it is answered it goes alone."""
        self.odd_tries = 0
        """How many of these came although others were answered since the one before."""
        self.tried_at = 0
        """How many calls had been answered when it failed last."""
        self.is_paused = False
        self.on_empty: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class HasLog(Protocol):
    """An attempt."""

    started: Started
    log: AttemptLog | None


class Logs:
    """The logs of a worker's attempts. Made on the control loop; ``run`` is the body of a task there."""

    def __init__(
        self, link: Link, clock: Clock, *, attempt_bytes: int = ATTEMPT_BYTES, all_bytes: int = ALL_BYTES
    ) -> None:
        self._link = link
        self._clock = clock
        self._attempt_bytes = attempt_bytes
        self._all_bytes = all_bytes
        self._lock = threading.RLock()
        """Held for moments, around what several threads change. A finalizer may log in the midst of it, hence no plain
        lock, and what is gone through is a copy."""
        self._bytes = 0
        self._waiting: dict[AttemptLog, None] = {}
        """Those with something to send, the one that was served longest ago first."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_woken = False
        self._more = asyncio.Event()
        self._urgent = asyncio.Event()
        """An end waits for its lines."""
        self._alone = 0
        """So many calls more carry one batch each."""
        self._answered = 0
        """Calls, since the worker began."""
        self._refusal = ""
        self._unknown_since: float | None = None
        """Since then all coordinators were of a release without logs, as far as is known."""
        self._late: dict[int, AttemptLog] = {}
        """Fence to what was not written when the attempt's end was reported."""

    # -- from any thread --

    def open(self, attempt: HasLog) -> None:
        """Give an attempt its log, unless another thread has done so."""
        with self._lock:
            if attempt.log is None:
                attempt.log = AttemptLog(attempt.started)

    def write(self, own: AttemptLog, line: LogLine) -> None:
        """Add a line, or drop and count it where there is no room."""
        line = bounded(line)
        size = line.size
        with self._lock:
            if own.is_closed:
                return
            if own.bytes + size > self._attempt_bytes or self._bytes + size > self._all_bytes:
                own.dropped += 1
                return
            self._tell_of_dropped(own)
            self._add(own, line, size)
            is_first, self._is_woken = not self._is_woken, True
        if is_first:
            self._wake()

    def has_room(self, own: AttemptLog) -> bool:
        """Say whether a line would fit now."""
        return not own.is_closed and own.bytes < self._attempt_bytes and self._bytes < self._all_bytes

    def drop(self, own: AttemptLog, lines: int) -> None:
        """Count lines that are not even made, since there is no room."""
        with self._lock:
            own.dropped += lines

    def _tell_of_dropped(self, own: AttemptLog) -> None:
        if own.dropped:
            told = f"{own.dropped} lines were dropped here: they could not be sent, or not as fast as they came"
            own.dropped = 0
            line = LogLine(datetime.now(UTC), Level.WARNING, told, "", "tenure")
            self._add(own, line, line.size)

    def _add(self, own: AttemptLog, line: LogLine, size: int) -> None:
        own.lines.append((line, size))
        own.bytes += size
        self._bytes += size
        self._waiting.setdefault(own)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._more.set)
            except RuntimeError:  # it is closed: the worker has ended
                return

    # -- on the control loop --

    def end(self, own: AttemptLog, then: Callable[[], None]) -> None:
        """Call ``then`` once the lines of an attempt that has ended are written, or when that takes too long."""
        with self._lock:
            if not own.is_closed:
                self._tell_of_dropped(own)
            is_empty = own.is_closed or own not in self._waiting
            is_first = not is_empty and not self._is_woken
            self._is_woken |= not is_empty
        if is_empty:
            self.close(own)
            then()
            return
        own.on_empty = then
        flush_s = 0.0 if self._are_unknown() else FLUSH_S
        own.timer = asyncio.get_running_loop().call_later(flush_s, self._hurry, own)
        self._urgent.set()
        if is_first:
            self._wake()

    def _hurry(self, own: AttemptLog) -> None:
        """Report an end although its lines are not written: they are still tried, as long as it is not answered."""
        then, own.on_empty = own.on_empty, None
        if then is not None:
            self._late[own.started.assignment.fence] = own
            then()

    def forget(self, started: Started) -> None:
        """Drop what was not written of an attempt whose end was answered: it would be refused."""
        own = self._late.pop(started.assignment.fence, None) if self._late else None
        if own is not None:
            self.close(own)

    def close(self, own: AttemptLog) -> None:
        """Take no more lines of an attempt, and drop those that wait: it has ended, or is lost."""
        with self._lock:
            lost = len(own.lines) + own.dropped + (len(own.batch.lines) if own.batch is not None else 0)
            self._close(own)
        if lost:
            one = own.started.assignment
            log.warning("log_lines_lost", **one.named, lines=lost)
        self._tell(own)

    def _close(self, own: AttemptLog) -> None:
        own.is_closed = True
        self._bytes -= own.bytes
        own.bytes = own.dropped = 0
        own.lines.clear()
        own.batch = None
        self._waiting.pop(own, None)

    def _tell(self, own: AttemptLog) -> None:
        then, own.on_empty = own.on_empty, None
        if own.timer is not None:
            own.timer.cancel()
            own.timer = None
        if then is not None:
            then()

    # -- sending --

    async def run(self) -> None:
        """Send lines until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._more.set()  # what came before
        pause_s = FIRST_PAUSE_S
        while True:
            await self._more.wait()
            sent, has_more = self._take()
            if not sent:
                continue
            try:
                answers = await self._link.append_logs([batch for _, batch in sent])
            except Exception as exc:
                if isinstance(exc, _NOT_NOW):
                    self._note_unknown(exc)
                    log.info("logs_not_answered", attempts=len(sent), error=exc.message, pause_s=round(pause_s, 2))
                    await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
                elif len(sent) > 1:
                    self._alone = len(sent)  # each for itself: only the one at fault is refused
                elif isinstance(exc, TenureError) and not isinstance(exc, _AT_FAULT):
                    self._failed_alone(*sent[0], exc)
                    await self._clock.sleep(FIRST_PAUSE_S)
                else:  # it is refused, or cannot be sent: the attempt goes on without
                    self._tell_of_refusal(str(exc))
                    self.close(sent[0][0])
                continue
            pause_s = FIRST_PAUSE_S
            self._unknown_since = None
            self._answered += 1
            for (own, batch), answer in zip(sent, answers, strict=True):
                self._settle(own, batch, answer)
            if not has_more:
                await self._rest()

    def _failed_alone(self, own: AttemptLog, batch: LogBatch, exc: TenureError) -> None:
        """Put an attempt whose batch failed alone behind the others, for a while; or drop the batch in the end."""
        if own.tries and own.tried_at < self._answered:
            own.odd_tries += 1
        own.tries += 1
        own.tried_at = self._answered
        if own.odd_tries >= ODD_TRIES or own.tries >= MOST_TRIES:
            self._tell_of_refusal(exc.message)
            self._drop_batch(own, batch)
            return
        pause_s = min(FIRST_PAUSE_S * 2 ** min(own.tries, 16), MAX_PAUSE_S)
        log.info("log_lines_not_answered", **own.started.assignment.named, error=exc.message)
        with self._lock:
            if own in self._waiting:
                del self._waiting[own]
                self._waiting[own] = None
                own.is_paused = True
                asyncio.get_running_loop().call_later(pause_s, self._resume, own)

    def _drop_batch(self, own: AttemptLog, batch: LogBatch) -> None:
        """Drop what was sent of an attempt, and let a line say so in its place: what comes behind may be taken."""
        with self._lock:
            if own.batch is not batch:
                return  # it was closed meanwhile
            own.batch = None
            own.bytes -= own.batch_bytes
            self._bytes -= own.batch_bytes
            own.tries = own.odd_tries = 0
            own.dropped += len(batch.lines)
            self._tell_of_dropped(own)
            own.lines.rotate(1)
        log.warning("log_lines_lost", **own.started.assignment.named, lines=len(batch.lines))

    def _resume(self, own: AttemptLog) -> None:
        with self._lock:
            own.is_paused = False
            self._is_woken = True
        self._more.set()

    def _note_unknown(self, exc: TenureError) -> None:
        if not isinstance(exc, UnknownCall):
            self._unknown_since = None
        elif self._unknown_since is None:
            self._unknown_since = self._clock.monotonic()
            self._tell_of_refusal(exc.message)

    def _are_unknown(self) -> bool:
        """Say whether coordinators have been of a release without logs for so long that no upgrade is under way."""
        return self._unknown_since is not None and self._clock.monotonic() - self._unknown_since >= UPGRADE_S

    def _tell_of_refusal(self, problem: str) -> None:
        """Say once what is wrong."""
        if problem != self._refusal:
            self._refusal = problem
            log.error("logs_refused", error=problem)

    def _take(self) -> tuple[list[tuple[AttemptLog, LogBatch]], bool]:
        """Make batches for a call; return whose, and whether there is more than fits into it."""
        taken: list[tuple[AttemptLog, LogBatch]] = []
        size = 0
        has_more = False
        most = 1 if self._alone else CALL_BATCHES
        self._alone = max(0, self._alone - 1)
        with self._lock:
            for own in list(self._waiting):
                if own.is_paused:
                    continue
                batch = own.batch or self._cut(own)
                has_more |= bool(own.lines)
                if own.tries and taken:
                    has_more = True  # its turn is when it is the first
                    continue
                if taken and (size + own.batch_bytes > CALL_BYTES or len(taken) == most):
                    return taken, True
                taken.append((own, batch))
                size += own.batch_bytes
                if own.tries:
                    return taken, True
            if not taken:
                self._is_woken = False
                self._more.clear()
        return taken, has_more

    def _cut(self, own: AttemptLog) -> LogBatch:
        """Make the next batch of an attempt that has lines."""
        line, own.batch_bytes = own.lines.popleft()
        lines = [line]
        while own.lines and len(lines) < BATCH_LINES and own.batch_bytes + own.lines[0][1] <= BATCH_BYTES:
            line, size = own.lines.popleft()
            lines.append(line)
            own.batch_bytes += size
        own.batch = LogBatch(own.started, own.next_seq, tuple(lines))
        own.next_seq += len(lines)
        return own.batch

    def _settle(self, own: AttemptLog, batch: LogBatch, answer: LogAnswer) -> None:
        if own.batch is not batch or answer.is_again:
            return  # it was closed meanwhile, or is to be sent again
        own.tries = own.odd_tries = 0
        if answer.problem is not None:
            log.error("log_lines_refused", **own.started.assignment.named, problem=answer.problem)
        if answer.is_over:
            self.close(own)
            return
        with self._lock:
            own.bytes -= own.batch_bytes
            self._bytes -= own.batch_bytes
            own.batch = None
            del self._waiting[own]
            if own.lines:
                self._waiting[own] = None  # behind the others
            is_done = not own.lines and own.on_empty is not None
            own.is_closed |= is_done
        if is_done:
            self._tell(own)

    async def _rest(self) -> None:
        with self._lock:
            if any(own.on_empty is not None for own in list(self._waiting)):
                return
        self._urgent.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await self._urgent.wait()
