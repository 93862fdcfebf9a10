"""Lines on their way from handlers to a coordinator, against a link that the test scripts.

What real coordinators and handlers make of it is tested in tests/e2e/test_logs.py and
tests/worker_execute/test_logs.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest
import pytest_asyncio

from tenure.model.clock import SystemClock
from tenure.model.errors import (
    FieldViolation,
    InvalidInput,
    OwnershipLost,
    PermissionDenied,
    TenureError,
    Unavailable,
    WrongState,
)
from tenure.model.logs import Level, LogLine
from tenure.worker import logs as module
from tenure.worker.execute.call import Assignment
from tenure.worker.link import Link, LogAnswer, LogBatch, Started, UnknownCall
from tenure.worker.logs import AttemptLog, Logs

AT = datetime(2026, 1, 1, tzinfo=UTC)
DROPPED = "lines were dropped here: they could not be sent, or not as fast as they came"


@dataclass
class Far:
    """A link; the test says what it answers, and when."""

    calls: list[list[LogBatch]] = field(default_factory=list)
    answer: Callable[[LogBatch], LogAnswer] = lambda batch: LogAnswer()
    problem: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def append_logs(self, batches: Sequence[LogBatch]) -> list[LogAnswer]:
        self.calls.append(list(batches))
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return [self.answer(batch) for batch in batches]

    def written(self, own: AttemptLog) -> list[tuple[int, str]]:
        """Return what was sent of an attempt: each line with its number, repeats left out."""
        batches = {batch.first_seq: batch for call in self.calls for batch in call if batch.started is own.started}
        return [
            (batch.first_seq + index, line.message)
            for _, batch in sorted(batches.items())
            for index, line in enumerate(batch.lines)
        ]


def attempt(number: int = 1) -> AttemptLog:
    return AttemptLog(Started(Assignment(f"job-{number}", 1, number, "default", "k", "default", "null"), number, 1))


def line(text: str = "m") -> LogLine:
    return LogLine(AT, Level.INFO, text)


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not check():  # noqa: ASYNC110 - whatever the check looks at
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(module, "REST_S", 0.02)


Make = Callable[..., Awaitable[tuple[Logs, Far]]]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """Return what makes logs and their link, running; ``is_open`` False holds its answers back."""
    tasks: list[asyncio.Task[None]] = []

    async def made(*, is_open: bool = True, **options: Any) -> tuple[Logs, Far]:
        far = Far()
        if is_open:
            far.gate.set()
        logs = Logs(cast(Link, far), SystemClock(), **options)
        tasks.append(asyncio.create_task(logs.run()))
        return logs, far

    yield made
    for task in tasks:
        assert not task.done()
        task.cancel()


async def test_lines_are_numbered_and_sent_in_order(make: Make) -> None:
    logs, far = await make()
    own = attempt()
    for n in range(3_000):
        logs.write(own, line(str(n)))
    await until(lambda: len(far.written(own)) == 3_000)
    assert far.written(own) == [(n + 1, str(n)) for n in range(3_000)]
    assert len(far.calls) == 3, "a thousand lines at a time"
    assert (own.bytes, logs._bytes, logs._waiting) == (0, 0, {})


async def test_lines_of_many_attempts_share_a_call(make: Make) -> None:
    logs, far = await make(is_open=False)
    first, others = attempt(0), [attempt(n) for n in range(1, 200)]
    logs.write(first, line())
    await until(lambda: far.calls)
    for own in others:
        logs.write(own, line())
    far.gate.set()
    await until(lambda: all(far.written(own) for own in others))
    assert [len(batches) for batches in far.calls] == [1, 199]


async def test_an_unanswered_batch_is_sent_again_unchanged(make: Make) -> None:
    logs, far = await make()
    far.problem = Unavailable("away")
    own = attempt()
    logs.write(own, line("a"))
    await until(lambda: far.calls)
    logs.write(own, line("b"))
    await until(lambda: len(far.calls) > 3)
    far.problem = None
    await until(lambda: len(far.written(own)) == 2)
    firsts = [batch for call in far.calls for batch in call if batch.first_seq == 1]
    assert {batch.lines for batch in firsts} == {(line("a"),)}
    assert far.written(own) == [(1, "a"), (2, "b")]


async def test_a_locked_batch_is_sent_again_and_holds_nobody_up(make: Make) -> None:
    logs, far = await make()
    locked, other = attempt(1), attempt(2)
    far.answer = lambda batch: LogAnswer(is_again=batch.started is locked.started)
    logs.write(locked, line("a"))
    logs.write(other, line("b"))
    await until(lambda: far.written(other))
    far.answer = lambda batch: LogAnswer()
    await until(lambda: not logs._waiting)
    assert far.written(locked) == [(1, "a")]


async def test_what_does_not_fit_is_dropped_counted_and_told_of(make: Make) -> None:
    logs, far = await make(is_open=False, attempt_bytes=1_000)
    own = attempt()
    for n in range(100):
        logs.write(own, line(f"{n:084}"))  # a hundred bytes each
    assert own.dropped == 90
    assert not logs.has_room(own)
    far.gate.set()
    await until(lambda: not logs._waiting)
    logs.write(own, line("again"))
    await until(lambda: not logs._waiting)
    told = f"90 {DROPPED}"
    assert [text for _, text in far.written(own)][9:] == [f"{9:084}", told, "again"]
    assert [seq for seq, _ in far.written(own)] == list(range(1, 13))


async def test_all_attempts_together_are_bounded(make: Make) -> None:
    logs, far = await make(is_open=False, all_bytes=1_000)
    many = [attempt(n) for n in range(100)]
    for own in many:
        logs.write(own, line(f"{0:084}"))
    assert sum(own.dropped for own in many) == 90
    far.gate.set()
    await until(lambda: not logs._waiting)
    assert logs._bytes == 0


async def test_the_end_of_an_attempt_waits_for_its_lines(make: Make) -> None:
    logs, far = await make(is_open=False)
    own = attempt()
    ended: list[str] = []
    logs.write(own, line("last words"))
    await until(lambda: far.calls)
    logs.end(own, partial(ended.append, "end"))
    await asyncio.sleep(0.05)
    assert ended == []
    far.gate.set()
    await until(lambda: ended)
    assert own.is_closed
    logs.write(own, line("of a thread that goes on"))
    assert far.written(own) == [(1, "last words")]


async def test_an_end_without_lines_does_not_wait(make: Make) -> None:
    logs, far = await make(is_open=False)
    own = attempt()
    ended: list[str] = []
    logs.end(own, partial(ended.append, "end"))
    assert ended == ["end"]
    other = attempt(2)
    logs.write(other, line("goes on"))
    far.gate.set()
    await until(lambda: far.written(other))


async def test_a_coordinator_that_is_away_does_not_hold_an_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    logs, far = await make()
    far.problem = Unavailable("away")
    own = attempt()
    ended: list[str] = []
    logs.write(own, line("a"))
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended)
    far.problem = None
    await until(lambda: not logs._waiting)
    assert far.written(own) == [(1, "a")], "it was tried on"
    logs.forget(own.started)


async def test_lines_that_are_late_are_dropped_once_the_end_is_answered(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    logs, far = await make()
    far.problem = Unavailable("away")
    own = attempt()
    ended: list[str] = []
    logs.write(own, line("a"))
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended)
    logs.forget(own.started)
    assert (logs._waiting, logs._bytes, logs._late) == ({}, 0, {})


@pytest.mark.parametrize(
    "answer", [LogAnswer(is_over=True), InvalidInput([]), OwnershipLost("lost"), RuntimeError("odd")]
)
async def test_an_attempt_whose_lines_are_refused_goes_on_without(make: Make, answer: Any) -> None:
    logs, far = await make()
    if isinstance(answer, Exception):
        far.problem = answer
    else:
        far.answer = lambda batch: cast(LogAnswer, answer)
    own, ended = attempt(), list[str]()
    logs.write(own, line("a"))
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended)
    assert own.is_closed
    far.problem, far.answer = None, lambda batch: LogAnswer()
    other = attempt(2)
    logs.write(other, line("b"))
    await until(lambda: far.written(other))


@pytest.mark.parametrize(
    "problem", [TenureError("odd"), UnknownCall("of an older release"), WrongState("not now"), PermissionDenied("no")]
)
async def test_whatever_else_a_coordinator_says_costs_no_lines(make: Make, problem: TenureError) -> None:
    logs, far = await make()
    far.problem = problem
    own, ended = attempt(), list[str]()
    logs.write(own, line("a"))
    await until(lambda: len(far.calls) >= 2)
    assert not own.is_closed
    far.problem = None
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended and far.written(own))


async def test_where_nobody_knows_of_logs_no_end_waits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.worker.logs.FLUSH_S", 3_600.0)
    monkeypatch.setattr("tenure.worker.logs.UPGRADE_S", 0.0)
    logs, far = await make()
    far.problem = UnknownCall("of an older release")
    own, ended = attempt(), list[str]()
    logs.write(own, line("a"))
    await until(lambda: len(far.calls) >= 2)
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended)


async def test_a_call_that_is_refused_is_sent_batch_by_batch(make: Make) -> None:
    logs, far = await make(is_open=False)
    first, bad, good = attempt(0), attempt(1), attempt(2)
    logs.write(first, line())
    await until(lambda: far.calls)
    logs.write(bad, line("bad"))
    logs.write(good, line("good"))

    def answer(batch: LogBatch) -> LogAnswer:
        if bad.started in (one.started for one in far.calls[-1]):
            raise InvalidInput([FieldViolation("batches", "as the test wishes")])
        return LogAnswer()

    far.answer = answer
    far.gate.set()
    await until(lambda: not logs._waiting)
    assert [len(call) for call in far.calls] == [1, 2, 1, 1]
    assert (bad.is_closed, good.is_closed) == (True, False)
    logs.write(good, line("again"))
    await until(lambda: len(far.written(good)) == 2)


def refuse_bad(far: Far, problem: TenureError) -> None:
    """Let each call fail that has a line "bad"."""

    def answer(batch: LogBatch) -> LogAnswer:
        if any(one.message == "bad" for sent in far.calls[-1] for one in sent.lines):
            raise problem
        return LogAnswer()

    far.answer = answer


def tried(far: Far, text: str) -> list[list[LogBatch]]:
    """Return the calls that had a line."""
    return [call for call in far.calls if any(one.message == text for batch in call for one in batch.lines)]


@pytest.mark.parametrize("problem", [TenureError("odd"), WrongState("a firewall")])
async def test_a_batch_that_always_fails_stops_no_others(
    make: Make, monkeypatch: pytest.MonkeyPatch, problem: TenureError
) -> None:
    monkeypatch.setattr(module, "ODD_TRIES", 4)
    monkeypatch.setattr(module, "MAX_PAUSE_S", 0.05)
    logs, far = await make()
    bad, others = attempt(0), [attempt(n) for n in range(1, 5)]
    refuse_bad(far, problem)
    logs.write(bad, line("bad"))
    for own in others:
        logs.write(own, line())
    await until(lambda: far.calls)
    logs.write(bad, line("behind"))
    rounds = 0
    async with asyncio.timeout(30):
        while bad in logs._waiting:
            await until(lambda: all(own not in logs._waiting for own in others))
            for own in others:
                logs.write(own, line(str(rounds)))
            rounds += 1
    await until(lambda: not logs._waiting)
    assert [len(far.written(own)) for own in others] == [rounds + 1] * 4
    assert not any(own.is_closed for own in (bad, *others))
    assert far.written(bad) == [(1, "bad"), (2, f"1 {DROPPED}"), (3, "behind")], "it alone is given up"
    calls = tried(far, "bad")
    assert len(calls[0]) == 5 and [len(call) for call in calls[1:]] == [1] * (len(calls) - 1), "it holds nobody up"
    assert len(calls) > 5
    assert logs._bytes == 0


async def test_a_batch_that_always_fails_is_given_up_where_nobody_else_logs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TRIES", 5)
    monkeypatch.setattr(module, "FLUSH_S", 3_600.0)
    logs, far = await make()
    refuse_bad(far, TenureError("odd"))
    own, ended = attempt(), list[str]()
    logs.write(own, line("bad"))
    await until(lambda: far.calls)
    logs.write(own, line("behind"))
    logs.end(own, partial(ended.append, "end"))
    await until(lambda: ended)
    assert far.written(own) == [(1, "bad"), (2, f"1 {DROPPED}"), (3, "behind")]
    assert len(tried(far, "bad")) == 5


@pytest.mark.parametrize("attempts", [1, 3])
async def test_an_outage_that_is_answered_oddly_costs_no_lines(
    make: Make, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr(module, "ODD_TRIES", 3)
    monkeypatch.setattr(module, "MAX_PAUSE_S", 0.02)
    logs, far = await make()
    owns = [attempt(n) for n in range(attempts)]
    for own in owns:
        logs.write(own, line("before"))
    await until(lambda: not logs._waiting)
    far.problem = TenureError("odd")
    for own in owns:
        logs.write(own, line("during"))
    await until(lambda: len(tried(far, "during")) > 10 * attempts or any(own.is_closed for own in owns))
    far.problem = None
    await until(lambda: not logs._waiting)
    assert not any(own.is_closed for own in owns)
    assert [far.written(own) for own in owns] == [[(1, "before"), (2, "during")]] * attempts


async def test_lines_after_a_lost_claim_are_dropped(make: Make) -> None:
    logs, far = await make(is_open=False)
    own, ended = attempt(), list[str]()
    logs.write(own, line("a"))
    await until(lambda: far.calls)
    logs.write(own, line("b"))
    logs.close(own)
    logs.write(own, line("c"))
    logs.end(own, partial(ended.append, "end"))
    assert ended == ["end"], "its report waits for nothing"
    far.gate.set()
    other = attempt(2)
    logs.write(other, line())
    await until(lambda: far.written(other))
    assert far.written(own) == [(1, "a")]


async def test_what_a_finalizer_logs_in_the_midst_of_it_holds_nobody_up(make: Make) -> None:
    logs, far = await make()
    own, other = attempt(1), attempt(2)
    with logs._lock:
        logs.write(own, line("of a finalizer"))
        logs.write(other, line("of another"))
    await until(lambda: far.written(own) and far.written(other))


async def test_lines_come_from_many_threads(make: Make) -> None:
    logs, far = await make()
    owns = [attempt(n) for n in range(4)]

    def shout(own: AttemptLog, name: int) -> None:
        for n in range(200):
            logs.write(own, line(f"{name}-{n}"))

    threads = [threading.Thread(target=shout, args=(own, name)) for own in owns for name in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: all(len(far.written(own)) == 800 for own in owns))
    for own in owns:
        assert [seq for seq, _ in far.written(own)] == list(range(1, 801))
        for name in range(4):
            mine = [text for _, text in far.written(own) if text.startswith(f"{name}-")]
            assert mine == [f"{name}-{n}" for n in range(200)]
