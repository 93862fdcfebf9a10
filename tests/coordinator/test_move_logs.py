"""Logs of ended attempts moved into a folder and into a real S3: read as before, and neither lost nor doubled."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, leader_of, running, until
from tests.coordinator.test_logs import WHOLE, append, head, read, stored, two_attempts
from tests.fixtures.s3 import S3Server

from tenure.coordinator import move_logs, read_logs
from tenure.coordinator.logs import LogBatch, LogWriter
from tenure.coordinator.move_logs import LogMover
from tenure.coordinator.read_logs import LogReader, Wanted
from tenure.model.errors import NotFound, Unavailable, WrongState
from tenure.model.logs import Level, LogLine
from tenure.model.objects import LOG, attempt_key
from tenure.store.objects.opening import open_store
from tenure.store.objects.port import ObjectStore


@pytest_asyncio.fixture(params=["folder", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """A store of the test's own."""
    if request.param == "folder":
        made = open_store((tmp_path / "objects").as_uri())
    else:
        server: S3Server = request.getfixturevalue("s3")
        made = open_store(server.store_url(), server.options)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = open_store((tmp_path / "objects").as_uri())
    yield made
    await made.close()


@pytest.fixture
def parts(alone: Parts) -> Parts:
    """Alone: a mover goes through all that lies in the database."""
    return alone


def mover(parts: Parts, store: Any) -> LogMover:
    return LogMover(parts.db, store, parts.clock, after_s=0)


@pytest_asyncio.fixture
async def reader(parts: Parts) -> AsyncIterator[LogReader]:
    one = LogReader(parts.db, parts.clock, parts.waiters)
    async with running(one.run()):
        yield one


class Odd:
    """A store of which a test says what happens at a put."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.before: Any = None
        self.after: Any = None

    async def put(self, key: str, data: bytes, **more: Any) -> None:
        if self.before is not None:
            await self.before()
        await self._store.put(key, data, **more)
        if self.after is not None:
            await self.after()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def moved(parts: Parts, id: uuid.UUID) -> int:
    rows = await parts.sql("SELECT attempt FROM tenure.log_head WHERE job_id = %s AND moved_at IS NOT NULL", id)
    return len(rows)


ASKED: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, WHOLE),
    ({"attempt": 2}, WHOLE[5:]),
    ({"after": (1, 4)}, WHOLE[4:]),
    ({"after": (2, 3)}, []),
    ({"level": Level.WARNING}, [WHOLE[2], *WHOLE[5:7]]),
    ({"tail": 4}, WHOLE[-4:]),
    ({"tail": 2, "attempt": 1}, WHOLE[3:5]),
    ({"tail": 3, "level": Level.WARNING}, [WHOLE[2], *WHOLE[5:7]]),
    ({"tail": 99}, WHOLE),
    ({"limit": 6}, WHOLE[:6]),
    ({"follow": True}, WHOLE),
]


async def test_moved_logs_are_read_as_before(parts: Parts, reader: LogReader, store: ObjectStore) -> None:
    id = await two_attempts(parts)
    assert await mover(parts, store).step() == 2
    assert (await stored(parts, id), await moved(parts, id)) == ([], 2)
    reader.look_in(store)
    for asked, given in ASKED:
        assert await read(reader, Wanted(id, **asked)) == given, asked
    assert await mover(parts, store).step() == 0


async def test_an_object_is_compressed_json_lines_under_the_attempts_key(parts: Parts, store: ObjectStore) -> None:
    id = await two_attempts(parts)
    await mover(parts, store).step()
    data = await store.get(attempt_key("default", id, 1, LOG))
    lines = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    assert [(line["seq"], line["message"]) for line in lines] == [(n, f"a{n}") for n in range(1, 6)]
    [row] = await parts.sql("SELECT object_bytes FROM tenure.log_head WHERE job_id = %s AND attempt = 1", id)
    assert row.object_bytes == len(data)


async def test_a_log_is_left_alone_while_its_attempt_runs_and_for_a_while_after(
    parts: Parts, folder: ObjectStore
) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    await append(parts, id, fence, 1, "a")
    assert await mover(parts, folder).step() == 0
    await parts.finish(id, fence)
    assert await LogMover(parts.db, folder, parts.clock, after_s=60).step() == 0
    assert await mover(parts, folder).step() == 1


async def test_killed_between_put_and_delete_it_is_done_again(
    parts: Parts, reader: LogReader, store: ObjectStore
) -> None:
    id = await two_attempts(parts)
    odd = Odd(store)

    async def dies() -> None:
        raise asyncio.CancelledError

    odd.after = dies
    with pytest.raises(asyncio.CancelledError):
        await mover(parts, odd).step()
    assert await store.head(attempt_key("default", id, 1, LOG)) is not None, "not exercised: nothing was put"
    assert await moved(parts, id) == 0
    assert await read(reader, Wanted(id)) == WHOLE
    assert await mover(parts, store).step() == 2
    reader.look_in(store)
    assert await read(reader, Wanted(id)) == WHOLE


async def test_with_the_store_away_logs_stay_and_are_moved_later(parts: Parts, reader: LogReader, own_s3: Any) -> None:
    server: S3Server = own_s3()
    store = open_store(server.store_url(), server.options)
    id = await two_attempts(parts)
    server.kill()
    with pytest.raises(Unavailable):
        await mover(parts, store).step()
    assert await moved(parts, id) == 0
    assert await read(reader, Wanted(id)) == WHOLE
    server.start()
    assert await mover(parts, store).step() == 2
    reader.look_in(store)
    assert await read(reader, Wanted(id)) == WHOLE
    await store.close()


async def test_a_log_that_grows_meanwhile_is_moved_whole_the_next_time(
    parts: Parts, reader: LogReader, folder: ObjectStore
) -> None:
    """An append that began before the end, and came in while the log was being moved."""
    id = await two_attempts(parts)
    for table in ("log", "log_head"):  # of the other attempt, which is moved side by side
        await parts.sql(f"DELETE FROM tenure.{table} WHERE job_id = %s AND attempt = 2", id)
    odd = Odd(folder)

    async def late() -> None:
        odd.before = None
        [row] = await parts.sql("SELECT lines FROM tenure.log WHERE job_id = %s AND attempt = 1 AND first_seq = 3", id)
        lines = row.lines.replace('"seq":3', '"seq":6')
        await parts.sql("INSERT INTO tenure.log VALUES (%s, 1, 6, 6, %s)", id, lines)
        await parts.sql("UPDATE tenure.log_head SET last_seq = 6 WHERE job_id = %s AND attempt = 1", id)

    odd.before = late
    assert await mover(parts, odd).step() == 0
    assert await moved(parts, id) == 0
    assert await mover(parts, folder).step() == 1
    reader.look_in(folder)
    assert len(await read(reader, Wanted(id, attempt=1))) == 6


async def test_a_job_that_is_removed_meanwhile_leaves_no_object(parts: Parts, folder: ObjectStore) -> None:
    id = await two_attempts(parts)
    odd = Odd(folder)

    async def removed() -> None:
        await parts.sql("DELETE FROM tenure.log WHERE job_id = %s", id)
        await parts.sql("DELETE FROM tenure.log_head WHERE job_id = %s", id)

    odd.after = removed
    assert await mover(parts, odd).step() == 0
    for attempt in (1, 2):
        assert await folder.head(attempt_key("default", id, attempt, LOG)) is None


async def test_two_leaders_move_a_log_once(parts: Parts, reader: LogReader, store: ObjectStore) -> None:
    id = await two_attempts(parts)
    counts = await asyncio.gather(*(mover(parts, store).step() for _ in range(3)))
    assert sum(counts) == 2
    reader.look_in(store)
    assert await read(reader, Wanted(id)) == WHOLE


async def test_a_log_that_was_moved_takes_no_more(parts: Parts, folder: ObjectStore) -> None:
    """Whatever an old append believes of its attempt."""
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    await append(parts, id, fence, 1, "a")
    await parts.sql("UPDATE tenure.log_head SET moved_at = now() WHERE job_id = %s", id)
    answers = await LogWriter(parts.db).append([LogBatch(id, fence, 2, [LogLine(parts.clock.wall(), Level.INFO, "b")])])
    assert answers[0].verdict in ("lost", "locked")
    assert (await head(parts, id)).last_seq == 1


async def test_a_reader_goes_on_where_a_log_is_moved_under_it(
    parts: Parts, reader: LogReader, folder: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_logs, "PAGE_BYTES", 1)
    id = await two_attempts(parts)
    reader.look_in(folder)
    seen = []
    async for page in reader.read(Wanted(id)):
        seen += [(page.attempt, line.seq, line.message) for line in page.lines]
        await mover(parts, folder).step()
    assert seen == WHOLE


async def test_large_logs_are_moved_and_read_in_pieces(
    parts: Parts, reader: LogReader, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move_logs, "LARGE_BYTES", 1)
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    chance = random.Random(7)
    texts = [chance.randbytes(4_000).hex() for _ in range(300)]
    for start in range(0, 300, 20):
        await append(parts, id, fence, start + 1, *texts[start : start + 20])
    await parts.finish(id, fence)
    await mover(parts, store).step()
    reader.look_in(store)
    pages = [page async for page in reader.read(Wanted(id))]
    assert len(pages) > 5
    assert [line.message for page in pages for line in page.lines] == texts
    assert [seq for _, seq, _ in await read(reader, Wanted(id, tail=3))] == [298, 299, 300]


async def test_without_the_store_a_reader_is_told_so(parts: Parts, reader: LogReader, folder: ObjectStore) -> None:
    id = await two_attempts(parts)
    await mover(parts, folder).step()
    with pytest.raises(WrongState, match="object store"):
        await read(reader, Wanted(id))
    reader.look_in(folder)
    await folder.delete([attempt_key("default", id, 2, LOG)])
    with pytest.raises(NotFound, match="attempt 2"):
        await read(reader, Wanted(id))


async def test_the_leader_moves_logs(parts: Parts, folder: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await two_attempts(parts)
    await parts.sql("UPDATE tenure.log_head SET written_at = now() - interval '1 hour'")
    leader = leader_of(parts)
    leader._objects = folder

    async def all_moved() -> bool:
        return await moved(parts, id) == 2

    async with running(leader.run()):
        await until(all_moved)
