"""Logs of attempts on a real Postgres: what is written, what is refused, what a reader is given, and when it ends."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running, signer_of, until

from tenure.coordinator import read_logs
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.finish import Verdict
from tenure.coordinator.logs import FULL, LogBatch, LogWriter
from tenure.coordinator.read_logs import LogReader, Wanted
from tenure.model.access import Identity, Role
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import InvalidInput, NotFound, PermissionDenied, Unavailable
from tenure.model.ids import new_id
from tenure.model.logs import Level, LogLine
from tenure.model.states import Outcome
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import worker_service_pb2 as pb

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lines(*messages: str, level: Level = Level.INFO) -> list[LogLine]:
    return [LogLine(AT, level, message) for message in messages]


async def append(parts: Parts, id: uuid.UUID, fence: int, first: int, *messages: str, **line: Any) -> Verdict:
    [answer] = await LogWriter(parts.db).append([LogBatch(id, fence, first, lines(*messages, **line))])
    return answer.verdict


async def stored(parts: Parts, id: uuid.UUID) -> list[tuple[int, int, str]]:
    """Return what is kept of a job's logs."""
    rows = await parts.sql("SELECT attempt, lines FROM tenure.log WHERE job_id = %s ORDER BY attempt, first_seq", id)
    return [
        (row.attempt, line["seq"], line["message"])
        for row in rows
        for line in map(json.loads, row.lines.strip().split("\n"))
    ]


async def head(parts: Parts, id: uuid.UUID) -> Any:
    rows = await parts.sql("SELECT * FROM tenure.log_head WHERE job_id = %s", id)
    return rows[0] if rows else None


@pytest_asyncio.fixture
async def reader(parts: Parts) -> AsyncIterator[LogReader]:
    one = LogReader(parts.db, parts.clock, parts.waiters)
    async with running(one.run()):
        yield one


async def read(reader: LogReader, wanted: Wanted) -> list[tuple[int, int, str]]:
    return [(page.attempt, line.seq, line.message) async for page in reader.read(wanted) for line in page.lines]


# -- writing --


async def test_lines_are_kept_in_order_and_counted(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    assert await append(parts, id, fence, 1, "a", "b") is Verdict.RECORDED
    assert await append(parts, id, fence, 3, "c") is Verdict.RECORDED
    assert await stored(parts, id) == [(1, 1, "a"), (1, 2, "b"), (1, 3, "c")]
    found = await head(parts, id)
    [size] = await parts.sql("SELECT sum(octet_length(lines)) AS bytes FROM tenure.log WHERE job_id = %s", id)
    assert (found.attempt, found.fence, found.lines, found.last_seq, found.bytes) == (1, fence, 3, 3, size.bytes)
    assert (found.namespace, found.is_full, found.moved_at) == ("default", False, None)


async def test_a_repeated_batch_changes_nothing_and_is_answered_so(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    await append(parts, id, fence, 1, "a", "b")
    before = await head(parts, id)
    assert await append(parts, id, fence, 1, "a", "b") is Verdict.REPEATED
    assert await append(parts, id, fence, 2, "b") is Verdict.REPEATED
    assert await append(parts, id, fence, 2, "b", "c") is Verdict.INVALID, "a part of it was written"
    assert await head(parts, id) == before
    await parts.finish(id, fence)
    assert await append(parts, id, fence, 1, "a", "b") is Verdict.REPEATED, "the answer was lost, the attempt has ended"


async def test_lines_that_a_worker_gave_up_leave_a_gap_in_the_numbers(parts: Parts, reader: LogReader) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    for first, text in ((1, "a"), (7, "b"), (8, "c")):
        assert await append(parts, id, fence, first, text) is Verdict.RECORDED
    assert await append(parts, id, fence, 7, "b") is Verdict.REPEATED
    assert ((await head(parts, id)).lines, (await head(parts, id)).last_seq) == (3, 8)
    assert await read(reader, Wanted(id)) == [(1, 1, "a"), (1, 7, "b"), (1, 8, "c")]
    assert await read(reader, Wanted(id, after=(1, 3))) == [(1, 7, "b"), (1, 8, "c")]
    assert await read(reader, Wanted(id, tail=2)) == [(1, 7, "b"), (1, 8, "c")]


async def test_a_zombies_lines_are_refused(parts: Parts) -> None:
    id = await parts.submit()
    old = (await parts.execute(id)).fence
    await append(parts, id, old, 1, "mine")
    await parts.finish(id, old, Outcome.RELEASED)
    assert await append(parts, id, old, 2, "too late") is Verdict.LOST
    claim = await parts.claim_of(id)
    assert claim is None
    new = (await parts.execute(id)).fence
    assert await append(parts, id, old, 2, "a zombie's") is Verdict.LOST
    assert await append(parts, id, new, 1, "of the next attempt") is Verdict.RECORDED
    assert await stored(parts, id) == [(1, 1, "mine"), (2, 1, "of the next attempt")]


async def test_members_of_a_call_are_answered_each_for_itself(parts: Parts) -> None:
    ids = [await parts.submit() for _ in range(4)]
    fences = [(await parts.execute(id)).fence for id in ids]
    await append(parts, ids[3], fences[3], 1, "known")
    batches = [
        LogBatch(ids[0], fences[0], 1, lines("a")),
        LogBatch(ids[1], fences[1] - 1, 1, lines("of nobody")),
        LogBatch(ids[2], fences[2], 1, lines("c")),
        LogBatch(ids[3], fences[3], 1, lines("known")),
        LogBatch(new_id(), 1, 1, lines("no such job")),
        LogBatch(ids[1], fences[1], 1, lines("b")),
    ]
    answers = await LogWriter(parts.db).append(batches)
    wanted = [Verdict.RECORDED, Verdict.LOST, Verdict.RECORDED, Verdict.REPEATED, Verdict.LOST, Verdict.RECORDED]
    assert [answer.verdict for answer in answers] == wanted
    assert await stored(parts, ids[1]) == [(1, 1, "b")]


async def test_a_log_that_is_full_says_so_once(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    writer = LogWriter(parts.db, most_bytes=300)
    answers = []
    for seq in range(1, 8):
        [answer] = await writer.append([LogBatch(id, fence, seq, lines("x" * 50))])
        answers.append((answer.verdict, answer.is_full))
    written = [(1, 1, "x" * 50), (1, 2, "x" * 50), (1, 3, FULL)]
    assert await stored(parts, id) == written
    assert answers == [(Verdict.RECORDED, False)] * 2 + [(Verdict.RECORDED, True)] + [(Verdict.REPEATED, True)] * 4
    assert (await head(parts, id)).lines == 3


async def test_concurrent_calls_about_one_log_write_each_line_once(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence

    async def stubborn(first: int) -> None:
        while await append(parts, id, fence, first, "x", "y") is Verdict.LOCKED:
            pass

    await asyncio.gather(*(stubborn(first) for first in (1, 1, 3, 3, 5)))
    seqs = [seq for _, seq, _ in await stored(parts, id)]
    assert seqs == sorted(set(seqs))
    assert (await head(parts, id)).lines == len(seqs)


# -- the call --


def batch(id: uuid.UUID, fence: int, first: int = 1, **more: Any) -> pb.LogBatch:
    message = {"lines": [job_pb2.LogLine(message="m")], **more}
    return pb.LogBatch(job_id=str(id), fence=fence, first_seq=first, **message)


async def call(service: WorkerService, *batches: pb.LogBatch) -> list[pb.AppendedLogs]:
    request = pb.AppendLogsRequest(batches=batches)
    return list((await service.AppendLogs(request, None)).batches)  # type: ignore[arg-type]


def service_of(parts: Parts) -> WorkerService:
    return WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)


async def test_a_bad_member_costs_the_others_nothing(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    many = [job_pb2.LogLine(message="m")] * (DEFAULT_BOUNDS.log_batch_lines + 1)
    large = [job_pb2.LogLine(message="m" * 16_000)] * 20
    answers = await call(
        service_of(parts),
        batch(id, fence, 0),
        pb.LogBatch(job_id="no id", fence=1, first_seq=1, lines=[job_pb2.LogLine()]),
        batch(new_id(), 1, lines=[]),
        batch(new_id(), 1, lines=many),
        batch(new_id(), 1, lines=large),
        batch(id, fence + 1),
        batch(id, fence + 1),
    )
    assert [answer.verdict for answer in answers[:5]] == [pb.VERDICT_INVALID] * 5
    assert [answer.verdict for answer in answers[5:]] == [pb.VERDICT_LOST, pb.VERDICT_INVALID], "twice in a call"
    assert [answer.message.split(":")[0] for answer in answers[:5]] == [
        "first_seq", "job_id", "lines", "lines", "lines",
    ]  # fmt: skip
    [answer] = await call(service_of(parts), batch(id, fence))
    assert answer.verdict == pb.VERDICT_RECORDED


async def test_a_call_that_is_too_large_is_refused(parts: Parts) -> None:
    with pytest.raises(InvalidInput, match="members"):
        await call(service_of(parts), *[batch(new_id(), 1)] * (DEFAULT_BOUNDS.log_call_batches + 1))
    large = [job_pb2.LogLine(message="m" * 16_000)] * 15
    with pytest.raises(InvalidInput, match="bytes"):
        await call(service_of(parts), *(batch(new_id(), 1, lines=large) for _ in range(6)))


async def test_odd_lines_are_made_lines(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    odd = [
        job_pb2.LogLine(message="nul \0 here", fields='{"a": "\\u0000"}', level=99),  # type: ignore[arg-type]
        job_pb2.LogLine(message="x" * 20_000, fields="no object"),
        job_pb2.LogLine(message="two\nlines", at={"seconds": 1 << 60}),
    ]
    [answer] = await call(service_of(parts), batch(id, fence, lines=odd))
    assert answer.verdict == pb.VERDICT_RECORDED
    [row] = await parts.sql("SELECT lines FROM tenure.log WHERE job_id = %s", id)
    kept = [json.loads(line) for line in row.lines.strip().split("\n")]
    assert [line["message"][:9] for line in kept] == ["nul � her", "xxxxxxxxx", "two\nlines"]
    assert "more bytes]" in kept[1]["message"]
    assert kept[0]["level"] == "info"


async def test_each_member_shows_the_token_of_its_attempt(parts: Parts) -> None:
    from tenure.coordinator.access import called_by

    service = service_of(parts)
    service.sign_with(await signer_of(parts), is_strict=True)
    ids = [await parts.submit() for _ in range(2)]
    with called_by(Identity("w", Role.WORKER)):
        tokens = {}
        for id in ids:
            claim = await parts.claim(id)
            request = pb.StartAttemptsRequest(
                worker="w1",
                claims=[
                    pb.ClaimedJob(
                        job_id=str(id), attempt_seen=0, lease=claim.lease, claim_revision=claim.claim_revision
                    )
                ],
            )
            [attempt] = (await service.StartAttempts(request, None)).attempts  # type: ignore[arg-type]
            tokens[id] = (attempt.fence, attempt.attempt_token)
        (fence_a, token_a), (fence_b, token_b) = tokens[ids[0]], tokens[ids[1]]
        own, foreign = batch(ids[0], fence_a, attempt_token=token_a), batch(ids[1], fence_b, attempt_token=token_a)
        answers = await call(service, own, foreign, batch(ids[1], fence_b))
        assert [answer.verdict for answer in answers] == [
            pb.VERDICT_RECORDED, pb.VERDICT_INVALID, pb.VERDICT_INVALID,
        ]  # fmt: skip
        assert answers[1].message == "this token names another attempt"
        with pytest.raises(PermissionDenied):
            await call(service, foreign)
    with called_by(Identity("somebody else", Role.WORKER)), pytest.raises(PermissionDenied, match="somebody else"):
        await call(service, batch(ids[1], fence_b, attempt_token=token_b))
    assert await stored(parts, ids[1]) == []


# -- reading --


async def two_attempts(parts: Parts) -> uuid.UUID:
    """Return a job that has ended, with lines of two attempts: 1 to 5, and 1 to 3."""
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    await append(parts, id, fence, 1, "a1", "a2")
    await append(parts, id, fence, 3, "a3", level=Level.ERROR)
    await append(parts, id, fence, 4, "a4", "a5")
    await parts.finish(id, fence, Outcome.RELEASED)
    fence = (await parts.execute(id)).fence
    await append(parts, id, fence, 1, "b1", "b2", level=Level.WARNING)
    await append(parts, id, fence, 3, "b3")
    await parts.finish(id, fence)
    return id


WHOLE = [(1, n, f"a{n}") for n in range(1, 6)] + [(2, n, f"b{n}") for n in range(1, 4)]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({}, WHOLE),
        ({"attempt": 1}, WHOLE[:5]),
        ({"attempt": 2}, WHOLE[5:]),
        ({"attempt": 3}, []),
        ({"after": (1, 1)}, WHOLE[1:]),
        ({"after": (1, 4)}, WHOLE[4:]),
        ({"after": (1, 9)}, WHOLE[5:]),
        ({"after": (2, 3)}, []),
        ({"after": (2, 1), "attempt": 1}, []),
        ({"level": Level.WARNING}, [WHOLE[2], *WHOLE[5:7]]),
        ({"level": Level.CRITICAL}, []),
        ({"tail": 1}, WHOLE[-1:]),
        ({"tail": 4}, WHOLE[-4:]),
        ({"tail": 99}, WHOLE),
        ({"tail": 2, "attempt": 1}, WHOLE[3:5]),
        ({"tail": 2, "level": Level.WARNING}, WHOLE[5:7]),
        ({"tail": 3, "level": Level.WARNING}, [WHOLE[2], *WHOLE[5:7]]),
        ({"limit": 3}, WHOLE[:3]),
        ({"limit": 3, "tail": 5}, WHOLE[3:6]),
        ({"follow": True}, WHOLE),
    ],
)
@pytest.mark.parametrize("page_bytes", [1, 200, 128 * 1024])
async def test_a_reader_is_given_what_it_asks_for(
    parts: Parts, reader: LogReader, monkeypatch: pytest.MonkeyPatch, asked: Any, given: Any, page_bytes: int
) -> None:
    monkeypatch.setattr(read_logs, "PAGE_BYTES", page_bytes)
    id = await two_attempts(parts)
    assert await read(reader, Wanted(id, **asked)) == given


async def test_a_job_that_wrote_nothing_has_nothing_to_read(parts: Parts, reader: LogReader) -> None:
    id = await parts.submit()
    assert await read(reader, Wanted(id)) == []
    await parts.canceler.cancel(id, "")
    assert await read(reader, Wanted(id, follow=True)) == []
    assert await head(parts, id) is None


async def test_each_page_says_where_to_go_on(parts: Parts, reader: LogReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a stream got through, the next one goes on without losing or doubling a line."""
    monkeypatch.setattr(read_logs, "PAGE_BYTES", 1)
    id = await two_attempts(parts)
    pages = [page async for page in reader.read(Wanted(id))]
    for cut in range(len(pages)):
        begun = [(page.attempt, line.seq, line.message) for page in pages[: cut + 1] for line in page.lines]
        rest = await read(reader, Wanted(id, after=(pages[cut].attempt, pages[cut].last_seq)))
        assert begun + rest == WHOLE


async def test_a_follower_is_given_lines_while_the_job_runs_and_ends_with_it(parts: Parts, reader: LogReader) -> None:
    id = await parts.submit()
    seen: list[tuple[int, int, str]] = []

    async def follow() -> None:
        async for page in reader.read(Wanted(id, follow=True)):
            seen.extend((page.attempt, line.seq, line.message) for line in page.lines)

    async def has(count: int) -> None:
        await until(lambda: _is(len(seen) >= count))

    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        fence = (await parts.execute(id)).fence
        await append(parts, id, fence, 1, "a1")
        await has(1)
        await append(parts, id, fence, 2, "a2", "a3")
        await has(3)
        await parts.finish(id, fence, Outcome.RELEASED)
        fence = (await parts.execute(id)).fence
        await append(parts, id, fence, 1, "b1")
        await has(4)
        await append(parts, id, fence, 2, "b2")
        assert not following.done()
        await parts.finish(id, fence)
    assert seen == [(1, 1, "a1"), (1, 2, "a2"), (1, 3, "a3"), (2, 1, "b1"), (2, 2, "b2")]


async def test_who_follows_an_attempt_is_done_when_it_has_ended(parts: Parts, reader: LogReader) -> None:
    id = await parts.submit()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(read(reader, Wanted(id, attempt=1, follow=True)))
        fence = (await parts.execute(id)).fence
        await append(parts, id, fence, 1, "a1")
        await parts.finish(id, fence, Outcome.RELEASED)
    assert following.result() == [(1, 1, "a1")]
    assert await parts.row(id) is not None


async def test_followers_share_their_looks(parts: Parts, reader: LogReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many follow, there is one look at a time, about each job once."""
    looks: list[list[uuid.UUID]] = []
    look = reader._look

    async def counted(ids: Iterable[uuid.UUID]) -> Any:
        looks.append(list(ids))
        return await look(looks[-1])

    monkeypatch.setattr(reader, "_look", counted)
    jobs = [await parts.submit() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(reader, Wanted(id, follow=True))) for id in jobs * 20]
        await until(lambda: _is(len(looks) >= 2))
        assert all(sorted(ids) == sorted(jobs) for ids in looks)
        for id in jobs:
            await parts.canceler.cancel(id, "")
    assert all(task.result() == [] for task in tasks)
    assert reader._followers == {}


async def test_a_coordinator_that_stops_sends_followers_elsewhere(parts: Parts, reader: LogReader) -> None:
    id = await parts.submit()
    pages = reader.read(Wanted(id, follow=True))
    assert (await anext(pages)).lines == ()
    waiting = asyncio.ensure_future(anext(pages))
    await until(lambda: _is(id in reader._followers))
    parts.waiters.close()
    with pytest.raises(Unavailable):
        await waiting


async def _is(truth: bool) -> bool:
    return truth


# -- the call that reads --


@pytest_asyncio.fixture
async def jobs(parts: Parts) -> AsyncIterator[JobService]:
    service = parts.job_service()
    async with running(service.run()):
        yield service


async def test_lines_are_streamed_with_all_that_was_said_of_them(parts: Parts, jobs: JobService) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    line = LogLine(AT, Level.ERROR, "no", '{"n":1}', "shop", "shop:3")
    await LogWriter(parts.db).append([LogBatch(id, fence, 1, [line])])
    request = jobs_pb.ReadLogsRequest(job_id=str(id))
    [message] = [one async for one in jobs.ReadLogs(request, None)]  # type: ignore[arg-type]
    [entry] = message.entries
    assert (entry.attempt, entry.seq, entry.line.at.ToDatetime(UTC)) == (1, 1, AT)
    assert (entry.line.level, entry.line.message) == (job_pb2.LOG_LEVEL_ERROR, "no")
    assert (entry.line.fields, entry.line.logger, entry.line.code) == ('{"n":1}', "shop", "shop:3")
    assert (message.after_attempt, message.after_seq) == (1, 1)


async def test_what_is_malformed_or_not_there_is_refused(jobs: JobService) -> None:
    bad: list[dict[str, Any]] = [
        {"job_id": "no id"},
        {"job_id": str(new_id()), "attempt": -1},
        {"job_id": str(new_id()), "tail": 1 << 20},
        {"job_id": str(new_id()), "tail": 1, "after_seq": 1},
        {"job_id": str(new_id()), "min_level": 17},
    ]
    for fields in bad:
        with pytest.raises(InvalidInput):
            await anext(jobs.ReadLogs(jobs_pb.ReadLogsRequest(**fields), None))  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await anext(jobs.ReadLogs(jobs_pb.ReadLogsRequest(job_id=str(new_id())), None))  # type: ignore[arg-type]
