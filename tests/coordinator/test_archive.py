"""The archive on real stores: files that hold what history held, kills at every step, and reading what lies there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import pytest_asyncio
from pyarrow import parquet
from tests.coordinator.conftest import Parts, leader_of, object_signer_of, running, until
from tests.coordinator.test_retain import (
    DAY_S,
    NO_MORE,
    SLOW_LOOK,
    SLOW_REMOVAL,
    Slow,
    age_all,
    ended,
    entries,
    left,
    week_partitions,
)
from tests.fixtures.s3 import S3Server

from tenure.cli.embedded import binaries
from tenure.client import AsyncClient
from tenure.coordinator import archive, archive_format
from tenure.coordinator import archived as archived_module
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.archive import Archiver
from tenure.coordinator.archived import Archived
from tenure.coordinator.artifacts import Artifacts
from tenure.coordinator.expire_archive import ArchiveExpiry
from tenure.coordinator.finish import AttemptError
from tenure.coordinator.leftovers import Leftovers
from tenure.coordinator.move_logs import LogMover
from tenure.coordinator.objects import access_to
from tenure.coordinator.passing import LAST_ID
from tenure.coordinator.retain import Retainer
from tenure.model.archive import manifest_key
from tenure.model.clock import SystemClock
from tenure.model.errors import (
    ConfigurationError,
    Deposed,
    InvalidInput,
    NotFound,
    TenureError,
    Unavailable,
    WrongState,
)
from tenure.model.objects import RESULT, file_key
from tenure.model.states import JobState, Outcome
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.opening import open_store
from tenure.store.objects.port import ObjectStore
from tenure.store.objects.s3 import S3Objects
from tenure.store.postgres.database import Database, PoolOptions, Statement
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as pb

SAVED = """
INSERT INTO tenure.artifact (job_id, attempt, name, size_bytes, sha256, content_type) VALUES (%s, %s, %s, %s, %s, %s)
"""


async def lead(parts: Parts, term: int = 1, leader: str = "c1") -> Statement:
    """Begin a term that Postgres knows of; return its guard."""
    seen = {"etcd_cluster_id": "1", "etcd_revision": 1}
    await parts.db.fetch("take_leadership", {"leader": leader, "term": term, **seen})
    return Statement("assert_term", {"leader": leader, "term": term})


async def archiver_of(parts: Parts, objects: ObjectStore, term: int = 1, leader: str = "c1") -> Archiver:
    return Archiver(parts.db, objects, parts.clock, guard=await lead(parts, term, leader), leader=leader)


async def policy(
    parts: Parts, keep_s: int = DAY_S, *, archive: bool = True, archive_keep_s: int | None = None, **named: str
) -> None:
    names = {"namespace": "", "kind": "", "state": "", **named}
    more = {"archive_keep_s": archive_keep_s}
    await parts.db.fetch("put_retention_policy", {**names, "keep_s": keep_s, "archive": archive, **NO_MORE, **more})


async def save(parts: Parts, objects: ObjectStore, id: uuid.UUID, name: str, data: bytes, attempt: int = 1) -> str:
    """Save a file of an attempt as an upload does; return its key."""
    key = file_key("default", id, attempt, name, hashlib.sha256(data).digest())
    await objects.put(key, data)
    await parts.sql(SAVED, id, attempt, name, len(data), hashlib.sha256(data).digest(), "text/plain")
    return key


async def keys(objects: ObjectStore, prefix: str = "") -> list[str]:
    return [one.key async for page in objects.list(prefix) for one in page]


async def files(parts: Parts, state: str = "done") -> list[Any]:
    return await parts.sql("SELECT * FROM tenure.archive_file WHERE state = %s ORDER BY first_id", state)


async def table(objects: ObjectStore, row: Any) -> pa.Table:
    return parquet.read_table(pa.BufferReader(await objects.get(row.key)))


async def archived_ids(parts: Parts, objects: ObjectStore) -> list[uuid.UUID]:
    """Return the ids in all done files, as often as they are there."""
    return [
        uuid.UUID(id) for row in await files(parts) for id in (await table(objects, row))["id"].to_pylist()
    ]  # fmt: skip


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


# -- what retention removes takes its objects along --


async def retainer(parts: Parts, *, has_objects: bool = True) -> Retainer:
    return Retainer(parts.db, parts.clock, guard=await lead(parts), leader="c1", has_objects=has_objects)


async def to_delete(parts: Parts) -> set[uuid.UUID]:
    return {row.id for row in await parts.sql("SELECT id FROM tenure.object_to_delete")}


async def an_hour_passes(parts: Parts) -> None:
    sql = "UPDATE tenure.object_to_delete SET since = since - interval '1 hour', due_at = due_at - interval '1 hour'"
    await parts.sql(sql)


async def test_objects_of_removed_jobs_go_and_those_of_others_stay(alone: Parts, objects: FolderObjects) -> None:
    gone, kept, bare = await ended(alone, 10 * DAY_S), await ended(alone, 1.0), await ended(alone, 10 * DAY_S)
    await save(alone, objects, gone, "a.txt", b"a")
    await objects.put(file_key("default", gone, 2, "orphan.txt", bytes(32)), b"of an attempt that was lost")
    stays = await save(alone, objects, kept, "a.txt", b"a")
    await policy(alone, archive=False)
    assert await (await retainer(alone)).round() == 2
    assert await alone.sql("SELECT 1 FROM tenure.artifact WHERE job_id = %s", gone) == []
    assert await to_delete(alone) == {gone}, "not the one that completed at once and saved nothing"
    assert await Leftovers(alone.db, objects, alone.clock).round() == 0
    assert await keys(objects) == [stays]
    # Of an upload that was under way.
    await objects.put(file_key("default", gone, 3, "late.txt", bytes(32)), b"late")
    await alone.sql("INSERT INTO tenure.upload (job_id, attempt, begun) VALUES (%s, 3, 1)", gone)
    assert await Leftovers(alone.db, objects, alone.clock).round() == 0
    assert len(await keys(objects)) == 2, "it is looked at once more, not all the time"
    await an_hour_passes(alone)
    assert await Leftovers(alone.db, objects, alone.clock).round() == 1
    assert await keys(objects) == [stays] and await to_delete(alone) == set()
    assert await alone.sql("SELECT FROM tenure.upload") == []
    assert bare not in await left(alone)


async def test_a_store_that_lists_no_unfinished_uploads_stops_no_deletion(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that may not, or a server that answers something else than that it does not know this."""
    ids = [await ended(alone, 10 * DAY_S) for _ in range(10)]
    for id in ids:
        await save(alone, objects, id, "a.txt", b"a")
    await policy(alone, archive=False)
    await (await retainer(alone)).round()
    for problem in (ConfigurationError("403"), Unavailable("405")):

        async def refuse(prefix: str, problem: Exception = problem) -> None:
            raise problem

        monkeypatch.setattr(objects, "drop_unfinished", refuse)
        await Leftovers(alone.db, objects, alone.clock).round()
        assert await keys(objects) == []


async def test_what_uploads_that_came_to_nothing_have_left_is_looked_for(alone: Parts, objects: FolderObjects) -> None:
    begun, bare = await ended(alone, 10 * DAY_S), await ended(alone, 10 * DAY_S, state="failed")
    await alone.sql("INSERT INTO tenure.upload (job_id, attempt, begun) VALUES (%s, 1, 1)", begun)
    await objects.put(file_key("default", begun, 1, "half.txt", bytes(32)), b"sent, and never recorded")
    await policy(alone, archive=False)
    await (await retainer(alone)).round()
    assert await to_delete(alone) == {begun} and bare not in await left(alone)
    assert await alone.sql("SELECT FROM tenure.upload") == []
    await Leftovers(alone.db, objects, alone.clock).round()
    assert await keys(objects) == []


async def test_without_an_object_store_nothing_is_noted_but_what_was_saved(
    alone: Parts, objects: FolderObjects
) -> None:
    await ended(alone, 10 * DAY_S, state="failed")
    saved = await ended(alone, 10 * DAY_S)
    await save(alone, objects, saved, "a.txt", b"a")
    await policy(alone, archive=False)
    assert await (await retainer(alone, has_objects=False)).round() == 2
    assert await to_delete(alone) == {saved}


async def test_objects_are_forgotten_nowhere_when_the_leader_is_killed(alone: Parts, objects: FolderObjects) -> None:
    ids = [await ended(alone, 10 * DAY_S) for _ in range(30)]
    for id in ids:
        await save(alone, objects, id, "a.txt", b"a")
    await policy(alone, archive=False)
    assert await (await retainer(alone)).round() == 30
    draw = random.Random(3)
    for _ in range(100):
        task = asyncio.create_task(Leftovers(alone.db, objects, alone.clock).round())
        await asyncio.sleep(draw.uniform(0.0, 0.02))
        task.cancel()
        await asyncio.wait([task])
        listed = {key.split("/")[4] for key in await keys(objects)}
        assert listed <= {str(id) for id in await to_delete(alone)}
    await Leftovers(alone.db, objects, alone.clock).round()
    assert await keys(objects) == [] and await to_delete(alone) == set(ids)
    await an_hour_passes(alone)
    assert await Leftovers(alone.db, objects, alone.clock).round() == 30
    assert await to_delete(alone) == set()


async def logged(parts: Parts, id: uuid.UUID, *messages: str) -> None:
    """Write a log as the attempt of ``ended`` would have."""
    text = "".join(
        json.dumps({"seq": n, "at": "2026-01-01T00:00:00Z", "level": "info", "message": message}) + "\n"
        for n, message in enumerate(messages, 1)
    )
    await parts.sql(
        "INSERT INTO tenure.log_head (job_id, attempt, fence, namespace, first_seq, last_seq, lines, bytes, written_at)"
        " VALUES (%s, 1, 1, 'default', 1, %s, %s, %s, now() - interval '1 h')",
        *(id, len(messages), len(messages), len(text)),
    )
    sql = "INSERT INTO tenure.log (job_id, attempt, first_seq, last_seq, lines) VALUES (%s, 1, 1, %s, %s)"
    await parts.sql(sql, id, len(messages), text)


async def test_logs_of_removed_jobs_go_wherever_they_lie(alone: Parts, objects: FolderObjects) -> None:
    moved, unmoved, kept = await ended(alone, 10 * DAY_S), await ended(alone, 10 * DAY_S), await ended(alone, 1.0)
    await logged(alone, moved, "a")
    assert await LogMover(alone.db, objects, alone.clock).step() == 1
    await logged(alone, unmoved, "a")
    await logged(alone, kept, "a")
    await policy(alone, archive=False)
    assert await (await retainer(alone)).round() == 2
    for name in ("log_head", "log"):
        assert {row.job_id for row in await alone.sql(f"SELECT job_id FROM tenure.{name}")} == {kept}
    # Also of the other: its log may have been sent, and not be noted as moved.
    assert await to_delete(alone) == {moved, unmoved} and len(await keys(objects)) == 1
    await Leftovers(alone.db, objects, alone.clock).round()
    assert await keys(objects) == []


# -- files --


async def test_a_file_holds_all_that_history_held(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = await alone.submit()
    await alone.finish(parent, (await alone.execute(parent)).fence, result='{"rows": 7}')
    id = await alone.submit(
        payload='{"of": "äöü"}', labels={"team": "red"}, limits=["db"], depends_on=[str(parent)],
        idempotency_key="once",
    )  # fmt: skip
    await alone.finish(
        id, (await alone.execute(id)).fence, Outcome.FAILED, retryable=True, error=AttemptError("E", "no")
    )
    await alone.sql("UPDATE tenure.job SET due = true, state = 'ready', activate_at = now() WHERE id = %s", id)
    await alone.finish(id, (await alone.execute(id)).fence, result='"made"')
    key = await save(alone, objects, id, "report.txt", b"text", attempt=2)
    before = {one: await alone.row(one) for one in (parent, id)}
    tries = await alone.db.fetch("attempts_of", {"id": id})
    await age_all(alone, monkeypatch)
    monkeypatch.setattr(archive, "first_id_at", lambda at: uuid.UUID(int=2**128 - 1))
    await alone.sql("UPDATE tenure.attempt SET finished_at = finished_at - interval '10 days'")
    await alone.sql("UPDATE tenure.history SET created_at = created_at - interval '11 days'")
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 2
    assert await left(alone) == set() and await alone.sql("SELECT 1 FROM tenure.attempt") == []
    assert await alone.sql("SELECT 1 FROM tenure.artifact") == [] and await to_delete(alone) == set()
    [file] = await files(alone)
    found = (await table(objects, file)).to_pylist()
    assert [row["id"] for row in found] == [str(parent), str(id)]
    job = found[1]
    for name in ("namespace", "kind", "state", "payload", "result", "error", "attempt", "errors", "fence", "worker"):
        assert job[name] == getattr(before[id], name), name
    assert dict(job["labels"]) == {"team": "red"} and job["limits"] == ["db"]
    assert job["depends_on"] == [str(parent)] and job["idempotency_key"] == "once"
    assert [(one["attempt"], one["outcome"], one["fence"], one["started_at"]) for one in job["attempts"]] == [
        (one.attempt, one.outcome, one.fence, one.started_at) for one in tries
    ]
    assert [(one["name"], one["key"], one["sha256"]) for one in job["artifacts"]] == [
        ("report.txt", key, hashlib.sha256(b"text").hexdigest())
    ]
    assert await objects.get(key) == b"text", "the archive refers to it"
    assert parquet.read_schema(pa.BufferReader(await objects.get(file.key))).metadata[b"tenure.schema_version"] == b"1"
    told = json.loads(await objects.get(manifest_key(file.key)))
    assert (told["rows"], told["sha256"], told["first_id"]) == (2, file.sha256.hex(), str(parent))
    assert told["sha256"] == hashlib.sha256(await objects.get(file.key)).hexdigest()
    [entry] = await entries(alone)
    assert json.loads(entry.text)["archive_file"] == file.key


async def test_files_are_of_one_namespace_bounded_and_in_the_order_of_ids(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "WINDOW_JOBS", 7)
    monkeypatch.setattr(archive, "MAX_FILE_JOBS", 10)
    old = {await ended(alone, (2 + n % 3) * DAY_S, namespace=f"n{n % 2}") for n in range(50)}
    fresh = {await ended(alone, 1.0)}
    assert await (await archiver_of(alone, objects)).round() == 0
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 50
    assert await left(alone) == fresh
    done = await files(alone)
    assert all(file.jobs <= 10 for file in done) and {file.namespace for file in done} == {"n0", "n1"}
    for file in done:
        rows = (await table(objects, file)).to_pylist()
        ids = [row["id"] for row in rows]
        assert ids == sorted(ids) and {row["namespace"] for row in rows} == {file.namespace}
        assert (ids[0], ids[-1], len(ids)) == (str(file.first_id), str(file.last_id), file.jobs)
        day = min(row["finished_at"] for row in rows)
        assert file.key == f"_archive/{file.namespace}/{day:%Y/%m/%d}/{file.id}.parquet"
    assert sorted(await archived_ids(alone, objects)) == sorted(old)


async def test_policies_that_do_not_archive_and_those_that_do_each_take_their_own(
    alone: Parts, objects: FolderObjects
) -> None:
    plain, wanted = await ended(alone, 10 * DAY_S, namespace="a"), await ended(alone, 10 * DAY_S, namespace="b")
    await policy(alone, archive=False)
    await policy(alone, namespace="b")
    assert await (await retainer(alone)).round() == 1
    assert await left(alone) == {wanted}
    assert await (await archiver_of(alone, objects)).round() == 1
    assert await archived_ids(alone, objects) == [wanted] and plain not in await left(alone)


async def test_a_span_of_which_nothing_can_go_soon_is_left_alone(alone: Parts, objects: FolderObjects) -> None:
    """Also where something of it is held; until what is set changes."""
    await week_partitions(alone, [1])
    for state in ("failed", "completed"):
        await ended(alone, 10 * DAY_S, state=state)
    held = await ended(alone, 100 * DAY_S, labels={"case": "7"})
    await policy(alone, DAY_S, state="completed")
    await policy(alone, 365 * DAY_S, state="failed")
    hold = {"key": "case", "value": "7"}
    await alone.db.fetch("put_legal_hold", {**hold, "reason": "", "set_by": "test"})
    archiver = await archiver_of(alone, objects)
    looks: list[str] = []
    fetch = alone.db.fetch

    async def counted(name: str, params: Any = None) -> list[Any]:
        looks.append(name)
        return await fetch(name, params)

    archiver._database = Slow(alone.db, counted)  # type: ignore[assignment]
    assert await archiver.round() == 1
    first = looks.count("archivable_page")
    assert await archiver.round() == 0
    assert looks.count("archivable_page") - first < first, "only what may still get more"
    await alone.db.fetch("delete_legal_hold", hold)
    assert await archiver.round() == 1 and held not in await left(alone)


async def test_a_file_whose_jobs_take_too_long_is_made_again_with_fewer(alone: Parts, objects: FolderObjects) -> None:
    for _ in range(12):
        await ended(alone, 10 * DAY_S)
    stays = await ended(alone, 10 * DAY_S, kind="never")
    await policy(alone)
    async with await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as connection:
        await connection.execute(SLOW_REMOVAL.replace("pg_temp", "public").encode())
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=1, statement_timeout_s=1.0)) as impatient:
        archiver = await archiver_of(alone, objects)
        archiver._database = impatient
        assert await archiver.round() == 12, "in one round: what takes too long ends none"
    assert await left(alone) == {stays}
    assert await files(alone, "planned") == []
    assert sorted(await archived_ids(alone, objects)) == sorted(set(await archived_ids(alone, objects)))
    assert len(await archived_ids(alone, objects)) == 12


async def test_what_is_held_is_in_no_file(alone: Parts, objects: FolderObjects) -> None:
    held, other = await ended(alone, 10 * DAY_S, labels={"case": "7"}), await ended(alone, 10 * DAY_S)
    await policy(alone)
    await alone.db.fetch("put_legal_hold", {"key": "case", "value": "7", "reason": "", "set_by": "test"})
    assert await (await archiver_of(alone, objects)).round() == 1
    assert await archived_ids(alone, objects) == [other] and await left(alone) == {held}


async def test_a_look_that_takes_too_long_is_halved_and_one_job_holds_no_others_up(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "WINDOW_JOBS", 8)
    for _ in range(3):
        await ended(alone, 12 * DAY_S)
    stays = await ended(alone, 11 * DAY_S, kind="never")
    for _ in range(3):
        await ended(alone, 10 * DAY_S)
    await policy(alone)
    async with await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as connection:
        await connection.execute(SLOW_LOOK.encode())
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=1, statement_timeout_s=1.0)) as impatient:
        archiver = await archiver_of(alone, objects)
        archiver._database = impatient
        assert await archiver.round() == 6
    assert await left(alone) == {stays}


async def test_files_stay_as_large_where_somebody_was_in_the_way_or_postgres_was_away(
    alone: Parts, objects: FolderObjects
) -> None:
    for _ in range(9):
        await ended(alone, 10 * DAY_S)
    await ended(alone, 10 * DAY_S, namespace="a-small-one")
    await policy(alone)
    archiver = await archiver_of(alone, objects)
    async with await psycopg.AsyncConnection.connect(alone.dsn) as retrying:
        await retrying.execute("SELECT FROM tenure.history FOR UPDATE")
        assert await archiver.round() == 0
    archiver._quiet.forget()  # as after an hour

    async def fail_over(call: str, what: Any) -> None:
        if call == "before transaction" and "end_archive_file" in [one.name for one in what]:
            raise Unavailable("the primary is another one now")

    archiver._database = Wrapped(alone.db, fail_over)  # type: ignore[assignment]
    for _ in range(4):
        with pytest.raises(Unavailable):
            await archiver.round()
    archiver._database = alone.db
    assert await archiver.round() == 10
    assert sorted(file.jobs for file in await files(alone)) == [1, 9]


class Wrapped:
    """A store, or a database, that tells of each call before and after it is made."""

    def __init__(self, inner: Any, on_call: Callable[[str, Any], Awaitable[None]], *names: str) -> None:
        self._inner = inner
        self._on_call = on_call
        self._names = names or ("put", "get", "transaction")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._names:
            return method

        async def told(*args: Any, **named: Any) -> Any:
            what = args[0] if args else None
            await self._on_call(f"before {name}", what)
            answer = await method(*args, **named)
            await self._on_call(f"after {name}", what)
            return answer

        return told


async def test_a_hold_that_is_set_before_the_jobs_go_keeps_the_file_from_counting(
    alone: Parts, objects: FolderObjects
) -> None:
    held, other = await ended(alone, 10 * DAY_S, labels={"case": "7"}), await ended(alone, 10 * DAY_S)
    await policy(alone)

    async def hold(step: str, what: Any) -> None:
        if step == "after put" and what.endswith(".parquet"):
            await alone.db.fetch("put_legal_hold", {"key": "case", "value": "7", "reason": "", "set_by": "test"})

    assert await (await archiver_of(alone, Wrapped(objects, hold))).round() == 0
    assert await left(alone) == {held, other}
    assert await files(alone) == [] and await files(alone, "planned") == []
    await Leftovers(alone.db, objects, alone.clock).round()
    assert await keys(objects) == [], "what was written is deleted"
    assert await (await archiver_of(alone, objects, term=2)).round() == 1
    assert await archived_ids(alone, objects) == [other] and await left(alone) == {held}


async def test_the_row_of_a_file_that_came_to_nothing_stays_for_an_hour(alone: Parts, objects: FolderObjects) -> None:
    """A leader that was deposed may have sent it, and it arrives after it was deleted."""
    id, key = uuid.uuid4(), "_archive/default/2026/01/01/x.parquet"
    sql = "INSERT INTO tenure.object_to_delete (id, namespace, archive_key) VALUES (%s, 'default', %s)"
    await alone.sql(sql, id, key)
    leftovers = Leftovers(alone.db, objects, alone.clock)
    assert await leftovers.round() == 0
    await objects.put(key, b"late")
    await alone.sql("UPDATE tenure.object_to_delete SET since = now() - interval '2 hours'")
    assert await leftovers.round() == 1
    assert await keys(objects) == []


# -- kills --

STEPS = [
    "planned", "before put .parquet", "after put .parquet", "before get .parquet", "after get .parquet",
    "before put .json", "after put .json", "before removal", "after removal",
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
async def test_a_leader_that_is_killed_between_two_steps_archives_each_job_once(
    alone: Parts, objects: FolderObjects, step: str
) -> None:
    old = {await ended(alone, 10 * DAY_S) for _ in range(20)}
    fresh = {await ended(alone, 1.0)}
    await policy(alone)
    reached = asyncio.Event()

    async def stop(at: str, what: Any) -> None:
        if at.endswith("transaction"):
            names = [one.name for one in what]
            at = {
                ("after transaction", True, False): "planned",
                ("before transaction", False, True): "before removal",
                ("after transaction", False, True): "after removal",
            }.get((at, "plan_archive_file" in names, "remove_history" in names), "")
        else:
            at += what[what.rindex(".") :] if isinstance(what, str) else ""
            at = at.replace("put.", "put .").replace("get.", "get .")
        if at == step:
            reached.set()
            await asyncio.Event().wait()  # here it is killed

    first = await archiver_of(alone, Wrapped(objects, stop))
    first._database = Wrapped(alone.db, stop)  # type: ignore[assignment]
    task = asyncio.create_task(first.round())
    await asyncio.wait_for(reached.wait(), 30)
    task.cancel()
    await asyncio.wait([task])
    assert len(await left(alone) & old) + len(await archived_ids(alone, objects)) == len(old)
    await (await archiver_of(alone, objects, term=2)).round()
    await check_whole(alone, objects, old, fresh)


async def check_whole(parts: Parts, objects: ObjectStore, old: set[uuid.UUID], fresh: set[uuid.UUID]) -> None:
    """Each job is in just one done file, no row of it is left, and nothing else lies in the store."""
    assert await left(parts) == fresh
    assert {row.job_id for row in await parts.sql("SELECT job_id FROM tenure.attempt")} == fresh
    assert sorted(await archived_ids(parts, objects)) == sorted(old)
    assert await files(parts, "planned") == []
    assert sum(json.loads(one.text)["jobs"] for one in await entries(parts)) == len(old)
    await Leftovers(parts.db, objects, parts.clock).round()
    done = {row.key for row in await files(parts)}
    assert set(await keys(objects)) == done | {manifest_key(key) for key in done}


async def test_a_leader_that_is_killed_anywhere_archives_each_job_once(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "WINDOW_JOBS", 20)
    monkeypatch.setattr(archive, "MIN_REST_S", 0.0)
    monkeypatch.setattr(archive, "MAX_FILE_JOBS", 15)
    old = {await ended(alone, (2 + n % 20) * DAY_S, namespace=f"n{n % 3}") for n in range(150)}
    fresh = {await ended(alone, 1.0) for _ in range(5)}
    await policy(alone)
    draw = random.Random(11)
    for term in itertools.count(1):
        task = asyncio.create_task((await archiver_of(alone, objects, term=term)).round())
        await asyncio.sleep(draw.uniform(0.0, 0.3))
        task.cancel()
        await asyncio.wait([task])
        if await left(alone) == fresh:
            break
        assert term < 300
    await (await archiver_of(alone, objects, term=term + 1)).round()
    await check_whole(alone, objects, old, fresh)


async def test_a_deposed_leader_archives_nothing(alone: Parts, objects: FolderObjects) -> None:
    """It has written its file when another one leads, which drops the plan."""
    id = await ended(alone, 10 * DAY_S)
    await policy(alone)
    others: list[int] = []

    async def depose(step: str, what: Any) -> None:
        if step == "after put" and what.endswith(".json") and not others:
            others.append(await (await archiver_of(alone, objects, term=2, leader="c2")).round())

    with pytest.raises(Deposed):
        await (await archiver_of(alone, Wrapped(objects, depose))).round()
    assert others == [1]
    await check_whole(alone, objects, {id}, set())


async def test_a_file_that_is_not_what_was_written_removes_nothing(alone: Parts, objects: FolderObjects) -> None:
    id = await ended(alone, 10 * DAY_S)
    await policy(alone)

    async def spoil(step: str, what: Any) -> None:
        if step == "before get":
            data = await objects.get(what)
            await objects.put(what, data[:-1] + b"x")

    with pytest.raises(Unavailable):
        await (await archiver_of(alone, Wrapped(objects, spoil))).round()
    assert await left(alone) == {id} and await files(alone) == []


async def test_an_s3_server_that_is_killed_midway_loses_and_doubles_nothing(
    alone: Parts, own_s3: Callable[[], S3Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_JOBS", 10)
    server = own_s3()
    objects = open_store(server.store_url("t"), server.options)
    old = {await ended(alone, 10 * DAY_S) for _ in range(40)}
    await policy(alone)
    puts = itertools.count()

    async def kill(step: str, what: Any) -> None:
        if step == "before put" and next(puts) == 3:
            server.kill()

    with pytest.raises(TenureError):
        await (await archiver_of(alone, Wrapped(objects, kill))).round()
    assert 0 < len(await left(alone)) < 40, "one file is done"
    server.start()
    for term in itertools.count(2):  # it answers before it takes writes; the leader tries again, too
        with contextlib.suppress(TenureError):
            await (await archiver_of(alone, objects, term=term)).round()
        if not await left(alone):
            break
        assert term < 20
    await check_whole(alone, objects, old, set())
    await objects.close()


async def test_the_leader_archives_by_itself(alone: Parts, objects: FolderObjects) -> None:
    gone, kept = await ended(alone, 10 * DAY_S), await ended(alone, 1.0)
    await policy(alone)
    leader = leader_of(alone)
    leader._objects = objects
    async with running(leader.run()):

        async def is_done() -> bool:
            return await left(alone) == {kept}

        assert await until(is_done)
    assert await archived_ids(alone, objects) == [gone]


# -- reading --


def job_service_of(parts: Parts, archived: Archived, artifacts: Artifacts | None = None) -> JobService:
    return JobService(
        parts.db, parts.etcd, parts.keys, parts.clock, parts.submitter, parts.waiters, parts.canceler, parts.retryer,
        parts.explainer, parts.audit, artifacts, archived,
    )  # fmt: skip


@pytest_asyncio.fixture
async def client(alone: Parts, objects: FolderObjects) -> AsyncIterator[AsyncClient]:
    archived, artifacts = Archived(alone.db), Artifacts(alone.db)
    archived.objects = objects
    artifacts.objects = access_to(objects, await object_signer_of(alone), alone.clock)
    jobs = job_service_of(alone, archived, artifacts)
    jobs.logs.look_in(objects)
    services = (RetentionService(alone.db, alone.clock, alone.audit, archived), jobs)
    server = GrpcServer(services, listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with AsyncClient(server.address) as made, running(jobs.run()):
        yield made
        await server.stop(0)


async def test_an_archived_job_is_read_as_it_was(alone: Parts, objects: FolderObjects, client: AsyncClient) -> None:
    ids = [await ended(alone, 10 * DAY_S, state=state, labels={"n": "1"}) for state in ("completed", "failed")]
    await save(alone, objects, ids[0], "report.txt", b"text")
    await save(alone, objects, ids[0], RESULT, b'"large"')
    before = [await client.get(str(id)) for id in ids]
    tried = await client.attempts(str(ids[0]))
    saved = await client.artifacts(str(ids[0]))
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 2
    for id, job in zip(ids, before, strict=True):
        found = await client.get(str(id))
        assert found.archived_at is not None and job.archived_at is None
        assert found == type(found)(**{**_fields(job), "archived_at": found.archived_at})
    assert await client.attempts(str(ids[0])) == tried and len(tried) == 1
    assert await client.artifacts(str(ids[0])) == saved and len(saved) == 2
    assert (await client.wait(str(ids[1]))).state is JobState.FAILED
    for refused in (client.retry(str(ids[1])), client.delete(str(ids[1]))):
        with pytest.raises(WrongState, match="archive"):
            await refused
    assert (await client.cancel(str(ids[0]))).state is JobState.COMPLETED
    assert [job async for job in client.list()] == []
    for absent in (uuid.uuid4(), uuid.UUID(int=ids[0].int ^ (1 << 40))):
        with pytest.raises(NotFound):
            await client.get(str(absent))
    [file] = await files(alone)
    await objects.delete([file.key])
    fresh = Archived(alone.db)
    fresh.objects = objects
    with pytest.raises(Unavailable, match="not in the object store"):
        await fresh.find(ids[0])


async def test_archived_jobs_are_waited_for_watched_and_answer_for_their_keys(
    alone: Parts, objects: FolderObjects, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(alone.submitter.run()):
        keyed = await client.submit("k", {}, idempotency_key="once")
        removed = await client.submit("gone", {}, idempotency_key="other")
        for job in (keyed, removed):
            await alone.finish(uuid.UUID(job.id), (await alone.execute(uuid.UUID(job.id))).fence)
        await age_all(alone, monkeypatch)
        monkeypatch.setattr(archive, "first_id_at", lambda at: LAST_ID)
        await policy(alone)
        await policy(alone, archive=False, kind="gone")
        assert await (await retainer(alone)).round() == 1
        assert await (await archiver_of(alone, objects, term=2)).round() == 1
        assert (await client.wait(keyed.id)).state is JobState.COMPLETED
        assert {job.id: job.state for job in await client.wait_many([keyed.id])} == {keyed.id: JobState.COMPLETED}
        assert [job.id async for job in client.watch(keyed.id)] == [keyed.id]
        again = await client.submit("k", {}, idempotency_key="once")
        assert again.id == keyed.id and again.archived_at is not None
        with pytest.raises(NotFound, match="nothing was submitted"):
            await client.submit("gone", {}, idempotency_key="other")
        assert await alone.sql("SELECT 1 FROM tenure.job") == []


async def keyed_and_archived(
    parts: Parts, objects: FolderObjects, keyed: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> list[uuid.UUID]:
    """Submit jobs with these keys, end them, and archive them."""
    ids = [uuid.UUID(id) for id, _ in await submit_each(parts, Archived(parts.db), keyed)]
    for id in ids:
        await parts.finish(id, (await parts.execute(id)).fence)
    await age_all(parts, monkeypatch)
    monkeypatch.setattr(archive, "first_id_at", lambda at: LAST_ID)
    await policy(parts)
    assert await (await archiver_of(parts, objects)).round() == len(ids)
    return ids


async def submit_each(parts: Parts, archived: Archived, keyed: Iterable[str]) -> list[tuple[str, str]]:
    """Send jobs with these keys in one call; return the id or the refusal of each."""
    context: Any = None
    request = pb.SubmitEachRequest(jobs=[job_pb2.JobSpec(kind="k", idempotency_key=key) for key in keyed])
    answer = await job_service_of(parts, archived).SubmitEach(request, context)
    return [(one.job.id, one.refusal.status) for one in answer.jobs]


async def test_a_key_of_an_archived_job_that_cannot_be_read_costs_its_own_caller_alone(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(alone.submitter.run()):
        [id] = await keyed_and_archived(alone, objects, ["once"], monkeypatch)
        without = Archived(alone.db)
        [old, new] = await submit_each(alone, without, ["once", "new"])
        assert old == ("", "UNAVAILABLE")
        assert new[0] and not new[1]
        well = Archived(alone.db)
        well.objects = objects
        assert await submit_each(alone, well, ["once", "new"]) == [(str(id), ""), new]

        async def broken(job: uuid.UUID) -> None:
            raise RuntimeError("a secret")

        monkeypatch.setattr(well, "find", broken)
        assert await submit_each(alone, well, ["once", "new"]) == [("", "INTERNAL"), new]


async def test_keys_of_archived_jobs_are_read_within_one_bound(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0

    async def hanging(key: str, start: int, length: int) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.Event().wait()
        finally:
            under_way -= 1
        raise AssertionError("nobody sets it")

    async with running(alone.submitter.run()):
        keyed = [f"key-{n}" for n in range(20)]
        await keyed_and_archived(alone, objects, keyed, monkeypatch)
        monkeypatch.setattr(objects, "get_range", hanging)
        monkeypatch.setattr(archived_module, "EACH_S", 1.0)
        slow = Archived(alone.db)
        slow.objects = objects
        async with asyncio.timeout(30):
            answers = await submit_each(alone, slow, [*keyed, "new"])
        assert answers[:-1] == [("", "UNAVAILABLE")] * len(keyed)
        assert answers[-1][0] and 0 < most <= archived_module.EACH_AT_ONCE and under_way == 0


async def test_an_archived_job_that_cannot_be_read_ends_no_watch_of_others(
    alone: Parts, objects: FolderObjects
) -> None:
    lost = await ended(alone, 9 * DAY_S, namespace="lost")
    there = await ended(alone, 5 * DAY_S)
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 2
    await objects.delete([row.key for row in await files(alone) if row.namespace == "lost"])
    archived = Archived(alone.db)
    archived.objects = objects
    runs = await alone.submit()
    seen: list[tuple[str, int]] = []
    first = [(str(runs), job_pb2.JOB_STATE_READY), (str(there), job_pb2.JOB_STATE_COMPLETED)]
    with pytest.raises(Unavailable, match=str(lost)):
        async for job in watched(alone, archived, lost, there, runs):
            seen.append((job.id, job.state))
            if seen == first:
                await alone.finish(runs, (await alone.execute(runs)).fence)
    assert seen[:2] == first and seen[-1] == (str(runs), job_pb2.JOB_STATE_COMPLETED)


async def test_a_watch_holds_one_archived_job_at_a_time(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await ended(alone, days * DAY_S) for days in (9, 7, 5)]
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 3
    archived = Archived(alone.db)
    archived.objects = objects
    reads, find = 0, archived.find

    async def counted(job: uuid.UUID) -> Any:
        nonlocal reads
        reads += 1
        return await find(job)

    monkeypatch.setattr(archived, "find", counted)
    absent = uuid.UUID(int=ids[0].int ^ (1 << 40))
    seen: list[tuple[str, int]] = []
    with pytest.raises(NotFound, match=str(absent)):
        async for job in watched(alone, archived, *ids, absent):
            seen.append((job.id, reads))
    others_read = [read for _, read in seen]
    assert [id for id, _ in seen] == sorted(map(str, ids))
    assert others_read in ([1, 3, 4], [2, 3, 4]), "the one that is not there comes first or second"


async def watched(parts: Parts, archived: Archived, *ids: uuid.UUID) -> AsyncIterator[job_pb2.Job]:
    """Watch jobs together; yield what is shown, as it comes."""
    context: Any = None
    service = job_service_of(parts, archived)
    batches = asyncio.create_task(service.run())
    try:
        async for answer in service.WatchJobs(pb.WatchJobsRequest(ids=map(str, ids)), context):
            for job in answer.jobs:
                yield job
    finally:
        batches.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await batches


async def test_the_log_of_an_archived_job_is_read(alone: Parts, objects: FolderObjects, client: AsyncClient) -> None:
    id = await ended(alone, 10 * DAY_S)
    await logged(alone, id, "begun", "done")
    before = [line async for line in client.logs(str(id))]
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 0, "its log is still in Postgres"
    assert await LogMover(alone.db, objects, alone.clock).step() == 1
    assert await (await archiver_of(alone, objects, term=2)).round() == 1
    assert await alone.sql("SELECT 1 FROM tenure.log_head") == [] and await to_delete(alone) == set()
    assert [line async for line in client.logs(str(id))] == before and len(before) == 2
    assert [line async for line in client.logs(str(id), follow=True)] == before
    assert [line async for line in client.logs(str(id), tail=1)] == before[1:]


def _fields(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__dataclass_fields__}


async def test_a_job_is_found_among_many_files_and_row_groups(
    alone: Parts, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenure.model import archive as model

    monkeypatch.setattr(model, "GROUP_JOBS", 4)
    monkeypatch.setattr(archive_format, "TAIL_BYTES", 64)  # so that the footer has to be asked for again
    monkeypatch.setattr(archive, "MAX_FILE_JOBS", 20)
    old = [await ended(alone, (2 + n % 5) * DAY_S, namespace=f"n{n % 3}") for n in range(100)]
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 100
    archived = Archived(alone.db)
    archived.objects = objects
    for id in old:
        found = await archived.find(id)
        assert found is not None and found.row.id == id
        assert len(found.row.attempts) == 1
    assert await archived.find(uuid.UUID(int=old[50].int + 1)) is None


async def test_policies_that_archive_need_an_object_store_and_pyarrow(
    client: AsyncClient, alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = await client.put_retention(keep_s=DAY_S, archive=True)
    assert put.archive
    monkeypatch.setattr(archive_format, "missing", lambda: "pyarrow is not installed")
    with pytest.raises(InvalidInput, match="pyarrow is not installed"):
        await client.put_retention(keep_s=DAY_S, archive=True)
    service = RetentionService(alone.db, alone.clock, alone.audit)
    assert "TENURE_OBJECT_STORE" in str(service._archived.missing())


async def test_files_are_listed_and_verified(alone: Parts, objects: FolderObjects, client: AsyncClient) -> None:
    for n in range(3):
        await ended(alone, (3 + n) * DAY_S, namespace=f"n{n}")
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 3
    listed = [file async for file in client.archive_files(page_size=1)]
    assert sorted(file.namespace for file in listed) == ["n0", "n1", "n2"]
    assert [file.namespace async for file in client.archive_files(namespace="n1")] == ["n1"]
    assert len([file async for file in client.archive_files(limit=2)]) == 2
    [whole, spoiled, gone] = listed
    data = await objects.get(spoiled.key)
    assert (spoiled.size_bytes, spoiled.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    await objects.put(spoiled.key, data[:-1] + b"x")
    await objects.delete([gone.key])
    assert await client.verify_archive_file(whole.id) is None
    assert "SHA-256" in str(await client.verify_archive_file(spoiled.id))
    assert "not in the object store" in str(await client.verify_archive_file(gone.id))
    with pytest.raises(NotFound):
        await client.verify_archive_file(str(uuid.uuid4()))


# -- after a restore of Postgres --


def program(name: str) -> str:
    """Return where a program of Postgres is, of any release that is at least the server's."""
    return str(binaries.postgres_folder(None, None) / name)


def dump(dsn: str, file: Path) -> None:
    """Write all rows of a database to a file."""
    subprocess.run(
        [program("pg_dump"), "-Fc", "--data-only", "-n", "tenure", "-T", "tenure.audit", "-f", str(file), dsn],
        check=True,
    )


async def restore(parts: Parts, file: Path) -> None:
    """Bring back all rows, and no others; but for the audit log, from which nothing can be taken."""
    tables = await parts.sql(
        "SELECT string_agg(oid::regclass::text, ', ') AS all FROM pg_class"
        " WHERE relnamespace = 'tenure'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'audit'"
    )
    await parts.sql(f"TRUNCATE {tables[0].all}")
    command = [program("pg_restore"), "--data-only", "--disable-triggers", "-d", parts.dsn, str(file)]
    await asyncio.to_thread(subprocess.run, command, check=True)


@pytest.mark.parametrize("adopts_first", [False, True])
async def test_after_a_restore_each_job_is_found_once_and_files_say_which_count(
    alone: Parts, objects: FolderObjects, client: AsyncClient, tmp_path: Path, adopts_first: bool
) -> None:
    """Six jobs had ended by the time that is restored; two are younger, and in the archive alone."""
    there = [await ended(alone, (4 + n) * DAY_S) for n in range(6)]
    await policy(alone)
    await asyncio.to_thread(dump, alone.dsn, tmp_path / "dump")
    younger = [await ended(alone, 2 * DAY_S, labels={"team": "red"}) for _ in range(2)]
    assert await (await archiver_of(alone, objects)).round() == 8
    before = {row.key for row in await files(alone)}
    assert [key async for key in client.unknown_archive_files()] == []

    await restore(alone, tmp_path / "dump")
    assert await left(alone) == set(there) and await files(alone) == []

    async def adopt() -> None:
        unknown = [key async for key in client.unknown_archive_files()]
        assert set(unknown) == before
        answers = [await client.adopt_archive_file(key) for key in unknown]
        assert sum(known for _, known in answers) == 6
        assert sum(file.jobs for file, _ in answers if file) == 2
        for key in unknown:
            with pytest.raises(WrongState):
                await client.adopt_archive_file(key)

    if adopts_first:
        await adopt()
    assert await (await archiver_of(alone, objects, term=5)).round() == 6
    if not adopts_first:
        assert len(set(await keys(objects, "_archive/"))) > 2 * len(await files(alone)), "some jobs are in two files"
        await adopt()
    await Leftovers(alone.db, objects, alone.clock).round()

    assert await archived_ids(alone, objects) and sorted(await archived_ids(alone, objects)) == sorted(there + younger)
    listed = {file.key async for file in client.archive_files()}
    in_store = {key for key in await keys(objects, "_archive/") if key.endswith(".parquet")}
    assert listed == in_store and not before & in_store, "files that do not count are gone"
    assert [key async for key in client.unknown_archive_files()] == []
    for id in there + younger:
        assert (await client.get(str(id))).archived_at is not None
    assert (await client.get(str(younger[0]))).labels == {"team": "red"}
    for file in listed:
        manifest = json.loads(await objects.get(manifest_key(file)))
        assert manifest["sha256"] == hashlib.sha256(await objects.get(file)).hexdigest()
    assert [await client.verify_archive_file(file.id) async for file in client.archive_files()] == [None] * len(listed)


async def test_what_is_no_file_of_the_archive_is_not_adopted(objects: FolderObjects, client: AsyncClient) -> None:
    await objects.put("_archive/default/2026/01/01/x.parquet", b"something else")
    with pytest.raises(WrongState, match="cannot be read"):
        await client.adopt_archive_file("_archive/default/2026/01/01/x.parquet")
    with pytest.raises(NotFound):
        await client.adopt_archive_file("_archive/default/2026/01/01/y.parquet")
    with pytest.raises(InvalidInput):
        await client.adopt_archive_file("default/job/x.parquet")


# -- files of the archive that have been kept for long enough --


async def expiry_of(parts: Parts, objects: ObjectStore, term: int = 20) -> ArchiveExpiry:
    return ArchiveExpiry(parts.db, objects, parts.clock, guard=await lead(parts, term), leader="c1")


async def old_files(parts: Parts, objects: ObjectStore) -> tuple[uuid.UUID, uuid.UUID]:
    """Archive two jobs, of which the first has a label, into two files that are a week old."""
    labelled = await ended(parts, 10 * DAY_S, namespace="n1", labels={"case": "7"})
    other = await ended(parts, 10 * DAY_S, namespace="n2")
    await policy(parts, archive_keep_s=5 * DAY_S)
    assert await (await archiver_of(parts, objects)).round() >= 2
    assert await (await expiry_of(parts, objects)).round() == 0, "they are new"
    await parts.sql("UPDATE tenure.archive_file SET archived_at = now() - interval '7 days'")
    return labelled, other


async def test_files_go_after_their_time_with_the_objects_of_their_jobs_but_those_that_are_held(
    alone: Parts, objects: FolderObjects, client: AsyncClient
) -> None:
    saved = await ended(alone, 10 * DAY_S)
    await save(alone, objects, saved, "a.txt", b"a")
    labelled, other = await old_files(alone, objects)
    await client.put_hold("case", "7")
    assert {one.namespace: one.jobs for one in await client.preview_archive()} == {"default": 1, "n1": 1, "n2": 1}
    assert all([one.expires_at is not None async for one in client.archive_files()])
    expiry = await expiry_of(alone, objects, term=21)
    assert await expiry.round() == 2
    assert [file.namespace for file in await files(alone)] == ["n1"]
    assert await expiry.round() == 0
    await Leftovers(alone.db, objects, alone.clock).round()
    assert len(await keys(objects)) == 2, "the held file with its manifest, and no object of a job"
    assert (await client.get(str(labelled))).archived_at is not None
    for gone in (other, saved):
        with pytest.raises(NotFound):
            await client.get(str(gone))
    await client.delete_hold("case", "7")
    assert await expiry.round() == 1
    told = await alone.sql("SELECT namespace FROM tenure.audit WHERE action = 'retention.remove_archived'")
    assert sorted(row.namespace for row in told) == ["default", "n1", "n2"]


async def test_a_hold_that_is_set_while_a_file_is_read_keeps_it(alone: Parts, objects: FolderObjects) -> None:
    await old_files(alone, objects)
    expiry = await expiry_of(alone, objects, term=21)

    class Held:
        async def get(self, key: str) -> bytes:
            data = await objects.get(key)
            hold = {"key": "case", "value": "7", "reason": "", "set_by": "test"}
            await alone.db.fetch("put_legal_hold", hold)
            return data

    expiry._objects = Held()  # type: ignore[assignment]
    assert await expiry.round() == 0
    assert len(await files(alone)) == 2
    assert await expiry.round() == 1


async def test_without_the_policy_files_stay_and_a_deposed_leader_removes_none(
    alone: Parts, objects: FolderObjects
) -> None:
    await old_files(alone, objects)
    former = await expiry_of(alone, objects, term=21)
    await lead(alone, 22, "c2")
    with pytest.raises(Deposed):
        await former.round()
    assert len(await files(alone)) == 2
    await policy(alone)
    assert await (await expiry_of(alone, objects, term=23)).round() == 0


async def test_what_an_upload_has_left_goes_with_the_file_of_its_job(alone: Parts, objects: FolderObjects) -> None:
    """The job completed at once, and never ended an upload that it had begun."""
    begun = await ended(alone, 10 * DAY_S)
    await ended(alone, 10 * DAY_S, state="failed")
    await alone.sql("INSERT INTO tenure.upload (job_id, attempt, begun) VALUES (%s, 1, 1)", begun)
    await objects.put(file_key("default", begun, 1, "half.txt", bytes(32)), b"sent, and never recorded")
    await policy(alone, archive_keep_s=5 * DAY_S)
    assert await (await archiver_of(alone, objects)).round() == 2
    await alone.sql("UPDATE tenure.archive_file SET archived_at = now() - interval '7 days'")
    assert await (await expiry_of(alone, objects)).round() == 1
    assert len(await to_delete(alone)) == 2, "the file, and the one job"
    await Leftovers(alone.db, objects, alone.clock).round()
    assert await keys(objects) == []


async def test_a_store_without_its_files_has_none_forgotten(
    alone: Parts, objects: FolderObjects, tmp_path: Path
) -> None:
    await old_files(alone, objects)
    hold = {"key": "case", "value": "7", "reason": "", "set_by": "test"}
    await alone.db.fetch("put_legal_hold", hold)
    expiry = await expiry_of(alone, FolderObjects(tmp_path / "another"), term=21)
    assert await expiry.round() == 0, "a job in one of them may be held"
    await alone.db.fetch("delete_legal_hold", {"key": "case", "value": "7"})
    with pytest.raises(Unavailable, match="no file of the archive"):
        await expiry.round()
    assert len(await files(alone)) == 2

    first, _ = await files(alone)
    await objects.delete([first.key])
    expiry = await expiry_of(alone, objects, term=22)
    assert await expiry.round() == 2, "somebody has deleted one of them"


async def test_files_stay_as_long_as_a_policy_says_that_came_later_and_covers_them(
    alone: Parts, objects: FolderObjects, client: AsyncClient
) -> None:
    await policy(alone, archive_keep_s=300 * DAY_S, state="failed")
    await alone.sql("UPDATE tenure.retention_policy SET created_at = now() - interval '1 hour'")
    await old_files(alone, objects)
    await policy(alone, archive_keep_s=30 * DAY_S, namespace="n1")
    await policy(alone, archive=False, namespace="n2")
    expiry = await expiry_of(alone, objects, term=21)
    assert await expiry.round() == 1, "the failed jobs that were archived are in files of their own"
    [stays] = await files(alone)
    assert stays.namespace == "n1"
    async for file in client.archive_files():
        assert file.expires_at == stays.archived_at + timedelta(days=30)
    assert await client.preview_archive() == []
    await policy(alone, archive_keep_s=6 * DAY_S, namespace="n1")
    assert len(await client.preview_archive()) == 1
    assert await expiry.round() == 1


async def test_an_adopted_file_stays_for_as_long_as_any_job_of_it_is_to(
    alone: Parts, objects: FolderObjects, client: AsyncClient, tmp_path: Path
) -> None:
    await asyncio.to_thread(dump, alone.dsn, tmp_path / "dump")
    for kind in ("short", "long"):
        await ended(alone, 2 * DAY_S, kind=kind)
    await ended(alone, 2 * DAY_S, namespace="n1")
    await policy(alone)
    await (await archiver_of(alone, objects)).round()
    await restore(alone, tmp_path / "dump")
    await policy(alone, archive_keep_s=DAY_S, kind="short")
    await policy(alone, archive_keep_s=9 * DAY_S, kind="long")
    async for key in client.unknown_archive_files():
        await client.adopt_archive_file(key)
    adopted = {file.namespace: file for file in await files(alone)}
    assert (adopted["default"].policy_kind, adopted["n1"].policy_kind) == ("long", None)
    await policy(alone, archive_keep_s=DAY_S)
    await alone.sql("UPDATE tenure.archive_file SET archived_at = now() - interval '8 days'")
    assert await (await expiry_of(alone, objects)).round() == 0, "it is not known of what policy the other file was"


async def test_a_file_that_cannot_be_read_holds_no_others_up(alone: Parts, objects: FolderObjects) -> None:
    await old_files(alone, objects)
    cold = (await files(alone))[0].key

    async def refuse(call: str, what: Any) -> None:
        if (call, what) == ("before get", cold):
            raise ConfigurationError("it has to be restored first")

    expiry = await expiry_of(alone, Wrapped(objects, refuse), term=21)
    with pytest.raises(ConfigurationError):
        await expiry.round()
    assert [row.key for row in await files(alone)] == [cold]


async def test_a_storage_class_is_for_s3_alone(client: AsyncClient) -> None:
    with pytest.raises(InvalidInput, match="not S3"):
        await client.put_retention(keep_s=DAY_S, archive=True, storage_class="GLACIER_IR")
    with pytest.raises(InvalidInput, match="lifecycle"):
        await client.put_retention(keep_s=DAY_S, archive=True, storage_class="DEEP_ARCHIVE")
    with pytest.raises(InvalidInput, match="STANDARD_IA"):
        await client.put_retention(keep_s=DAY_S, archive=True, storage_class="cold please")
    with pytest.raises(InvalidInput, match="archived"):
        await client.put_retention(keep_s=DAY_S, archive_keep_s=DAY_S)


async def test_files_are_written_in_the_storage_class_of_their_policy(alone: Parts, s3: S3Server) -> None:
    store = open_store(s3.store_url(), s3.options)
    for kind in ("cold", "warm"):
        await ended(alone, 10 * DAY_S, kind=kind)
    await policy(alone)
    await alone.sql(
        "INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s, archive, storage_class)"
        " VALUES ('', 'cold', '', 86400, true, 'STANDARD_IA')"
    )
    assert await (await archiver_of(alone, store)).round() == 2
    found = {row.policy_kind: row for row in await files(alone)}
    assert found["cold"].storage_class == "STANDARD_IA" and found[""].storage_class is None
    asked = {kind: await storage_class(store, row.key) for kind, row in found.items()}
    assert asked == {"cold": "STANDARD_IA", "": None}
    await store.close()


async def test_a_class_that_the_store_does_not_take_holds_no_others_up(alone: Parts, objects: FolderObjects) -> None:
    stays = await ended(alone, 10 * DAY_S, namespace="a", kind="cold")
    await ended(alone, 10 * DAY_S, namespace="b")
    await policy(alone)
    await alone.sql(
        "INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s, archive, storage_class)"
        " VALUES ('', 'cold', '', 86400, true, 'STANDARD-IA')"
    )

    class Strict:
        def __getattr__(self, name: str) -> Any:
            return getattr(objects, name)

        async def put(self, key: str, data: bytes, *, storage_class: str | None = None, **told: Any) -> None:
            if storage_class == "STANDARD-IA":
                raise Unavailable("InvalidStorageClass")
            await objects.put(key, data, **told)

    archiver = await archiver_of(alone, Strict())
    assert await archiver.round() == 1
    assert await left(alone) == {stays}
    await alone.sql("UPDATE tenure.retention_policy SET storage_class = 'STANDARD_IA' WHERE kind = 'cold'")
    assert await archiver.round() == 1


async def seven_old_files(parts: Parts, objects: ObjectStore) -> None:
    """Archive a job of each of the namespaces n0 to n6, whose files expire in this order, and have."""
    for number in range(7):
        await ended(parts, (30 - number) * DAY_S, namespace=f"n{number}")
    await policy(parts, archive_keep_s=5 * DAY_S)
    await (await archiver_of(parts, objects)).round()
    await parts.sql(
        "UPDATE tenure.archive_file SET archived_at = now() - make_interval(days => 27 - right(namespace, 1)::int)"
    )


class Later(SystemClock):
    """A clock that goes ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def test_files_that_cannot_be_read_hold_no_others_up_however_many_they_are(
    alone: Parts, objects: FolderObjects
) -> None:
    """Broken ones, and those of cold storage; each is tried again after an hour, and then after two."""
    await seven_old_files(alone, objects)
    for file in await files(alone):
        if file.namespace in ("n0", "n1", "n2"):
            await objects.put(file.key, b"no such file")
    readable = {file.key for file in await files(alone) if file.namespace in ("n0", "n1", "n2", "n6")}
    asked: list[str] = []

    async def refuse(call: str, what: Any) -> None:
        if call == "before get":
            asked.append(what)
            if what not in readable:
                raise ConfigurationError("it has to be restored first")

    clock = Later()
    guard = await lead(alone, 20)
    expiry = ArchiveExpiry(alone.db, Wrapped(objects, refuse), clock, guard=guard, leader="c1")
    with pytest.raises(WrongState):
        await expiry.round()
    assert {file.namespace for file in await files(alone)} == {f"n{number}" for number in range(6)}
    assert await expiry.round() == 0 and len(asked) == 7
    for after_s, more in ((3_601, 6), (3_601, 0), (3_601, 6)):
        asked.clear()
        clock.ahead_s += after_s
        with pytest.raises(WrongState) if more else contextlib.nullcontext():
            await expiry.round()
        assert len(asked) == more


async def test_a_store_that_is_away_or_refuses_everything_ends_the_round_and_puts_no_file_off(
    alone: Parts, objects: FolderObjects
) -> None:
    await seven_old_files(alone, objects)
    failure: TenureError | None = Unavailable("the object store does not answer")
    asked: list[str] = []

    async def fail(call: str, what: Any) -> None:
        if call == "before get":
            asked.append(what)
        if failure is not None:
            raise failure

    expiry = await expiry_of(alone, Wrapped(objects, fail, "get", "check"))
    with pytest.raises(Unavailable):
        await expiry.round()
    assert len(asked) == 5
    failure = ConfigurationError("the object store refuses: InvalidAccessKeyId")
    with pytest.raises(ConfigurationError):
        await expiry.round()
    assert len(asked) == 6
    failure = None
    assert await expiry.round() == 7


async def storage_class(store: ObjectStore, key: str) -> str | None:
    """Ask another client of S3 in which class an object lies."""
    assert isinstance(store, S3Objects)
    options = store._options
    path = f"{options.prefix}/{key}" if options.prefix else key
    answer = await asyncio.to_thread(store._client.head_object, Bucket=options.bucket, Key=path)
    found: str | None = answer.get("StorageClass")
    return None if found == "STANDARD" else found
