"""Retention on real stores: what goes, what is kept, what a kill in between leaves, and the calls of the service."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.coordinator.conftest import PATIENCE_S, MakeParts, Parts, leader_of, running, until

from tenure.client import AsyncClient, RetentionPolicy
from tenure.coordinator import retain
from tenure.coordinator.api import retention_service
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.passing import LAST_ID
from tenure.coordinator.retain import Retainer
from tenure.model.errors import Deposed, InvalidInput, NotFound, Unavailable
from tenure.model.ids import first_id_at, new_id
from tenure.model.jobs import JobSpec
from tenure.model.retention import Policy, policy_for
from tenure.model.states import JobState, Outcome
from tenure.store.postgres.database import Database, PoolOptions, Statement

DAY_S = 86_400
NO_MORE = {"archive_keep_s": None, "storage_class": None}
"""Of a policy: nothing about files of the archive."""
ENDED = """
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, started_at, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason, labels, deleted_at)
VALUES (%s, %s, %s, 'default', %s, 0, %s, %s, 'null', 1, 0, 0, %s, %s, 10, 3, 1, '', false, '', %s, %s)
"""
TRIED = """
INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, started_at, finished_at)
VALUES (%s, 1, 1, 'w', 1, 1, 'completed', %s, %s)
"""


async def retainer_of(parts: Parts, leader: str = "c1", term: int = 1) -> Retainer:
    """Return what removes, in a term that Postgres knows of."""
    seen = {"etcd_cluster_id": "1", "etcd_revision": 1}
    await parts.db.fetch("take_leadership", {"leader": leader, "term": term, **seen})
    guard = Statement("assert_term", {"leader": leader, "term": term})
    return Retainer(parts.db, parts.clock, guard=guard, leader=leader)


async def week_partitions(parts: Parts, weeks_ago: Iterable[int], parents: Sequence[str] = ("history",)) -> None:
    """Make partitions of some past weeks, as time leaves them: without, all that is old lies in the default one."""
    monday = datetime.now(UTC).date()
    monday -= timedelta(days=monday.weekday())
    for weeks, parent in itertools.product(weeks_ago, parents):
        first = monday - timedelta(weeks=weeks)
        await parts.sql(
            f"CREATE TABLE tenure.{parent}_{weeks}_ago PARTITION OF tenure.{parent}"
            f" FOR VALUES FROM ('{first} 00:00+00') TO ('{first + timedelta(weeks=1)} 00:00+00')"
        )


async def ended(
    parts: Parts,
    age_s: float,
    *,
    namespace: str = "default",
    kind: str = "k",
    state: str = "completed",
    labels: dict[str, str] | None = None,
    deleted: bool = False,
) -> uuid.UUID:
    """Write a job that ended so long ago, after an attempt of ten seconds."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    made = at - timedelta(seconds=20)
    id = uuid.UUID(int=first_id_at(made).int + random.getrandbits(62))
    tried = at - timedelta(seconds=10)
    text = json.dumps(labels) if labels else None
    await parts.sql(ENDED, id, namespace, kind, state, made, made, tried, at, text, at if deleted else None)
    await parts.sql(TRIED, id, tried, at)
    return id


async def policy(parts: Parts, keep_s: int | None, namespace: str = "", kind: str = "", state: str = "") -> None:
    named = {"namespace": namespace, "kind": kind, "state": state}
    await parts.db.fetch("put_retention_policy", {**named, "keep_s": keep_s, "archive": False, **NO_MORE})


async def left(parts: Parts) -> set[uuid.UUID]:
    return {row.id for row in await parts.sql("SELECT id FROM tenure.history")}


async def entries(parts: Parts) -> list[Any]:
    sql = "SELECT *, detail::text AS text FROM tenure.audit WHERE action = 'retention.remove' ORDER BY at, id"
    return await parts.sql(sql)


async def age_all(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make what has ended look as if that was long ago; ids say otherwise, and are not asked."""
    monkeypatch.setattr(retain, "first_id_at", lambda at: LAST_ID)
    await parts.sql("UPDATE tenure.history SET finished_at = finished_at - interval '10 days'")


async def test_without_a_policy_nothing_goes(alone: Parts) -> None:
    kept = await ended(alone, 1_000 * DAY_S)
    assert await (await retainer_of(alone)).round() == 0
    await policy(alone, None)
    assert await (await retainer_of(alone, term=2)).round() == 0
    assert await left(alone) == {kept}


async def test_what_has_expired_goes_with_its_attempts_and_an_entry_in_the_log(alone: Parts) -> None:
    old = [await ended(alone, age_s, state="failed") for age_s in (40 * DAY_S, 31 * DAY_S)]
    fresh = [await ended(alone, age_s, state="failed") for age_s in (29 * DAY_S, 1.0)]
    await policy(alone, 30 * DAY_S)
    assert await (await retainer_of(alone)).round() == 2
    assert await left(alone) == set(fresh)
    assert {row.job_id for row in await alone.sql("SELECT job_id FROM tenure.attempt")} == set(fresh)
    told = await entries(alone)
    assert [(one.caller, one.namespace, one.target, one.outcome) for one in told] == [
        ("c1", "default", "*/*/*", "ok")
    ] * len(told)
    details = [json.loads(one.text) for one in told]
    assert sum(one["jobs"] for one in details) == 2
    assert {one["first"] for one in details} | {one["last"] for one in details} == {str(id) for id in old}


async def test_a_job_that_has_just_ended_stays(alone: Parts) -> None:
    await policy(alone, 60)
    id = await alone.submit()
    await alone.finish(id, (await alone.execute(id)).fence)
    retainer = await retainer_of(alone)
    assert [await retainer.round() for _ in range(3)] == [0, 0, 0]
    assert await alone.state(id) is JobState.COMPLETED


async def test_deleted_jobs_go_by_the_same_rules(alone: Parts) -> None:
    gone, kept = await ended(alone, 10 * DAY_S, deleted=True), await ended(alone, DAY_S, deleted=True)
    await policy(alone, 5 * DAY_S)
    assert await (await retainer_of(alone)).round() == 1
    assert gone not in await left(alone) and kept in await left(alone)


@pytest.mark.parametrize("seed", range(4))
async def test_the_statements_decide_as_the_model_does(alone: Parts, seed: int) -> None:
    """Every namespace, kind and state, at several ages, under policies drawn at random."""
    draw = random.Random(seed)
    states = ("completed", "failed", "canceled")
    policies = []
    for names in itertools.product(("", "a", "b"), ("", "k", "l"), ("", *states)):
        if draw.random() < 0.4:
            policies.append(Policy(*names, draw.choice([None, DAY_S, 5 * DAY_S, 20 * DAY_S])))
    for one in policies:
        await policy(alone, one.keep_s, one.namespace, one.kind, one.state)
    staying = set()
    for namespace, kind, state, days in itertools.product("ab", "kl", states, (0.5, 2, 10, 30)):
        id = await ended(alone, days * DAY_S, namespace=namespace, kind=kind, state=state)
        decides = policy_for(policies, namespace, kind, state)
        if decides is None or decides.keep_s is None or decides.keep_s > days * DAY_S:
            staying.add(id)
    await (await retainer_of(alone)).round()
    assert await left(alone) == staying


async def test_a_hold_keeps_what_has_the_label_until_it_is_lifted(alone: Parts) -> None:
    held = await ended(alone, 10 * DAY_S, labels={"case": "7", "team": "red"})
    other = await ended(alone, 10 * DAY_S, labels={"case": "8"})
    await policy(alone, DAY_S)
    hold = {"key": "case", "value": "7"}
    await alone.db.fetch("put_legal_hold", {**hold, "reason": "", "set_by": "test"})
    retainer = await retainer_of(alone)
    assert await retainer.round() == 1
    assert await left(alone) == {held} and other not in await left(alone)
    assert await retainer.round() == 0
    await alone.db.fetch("delete_legal_hold", hold)
    assert await retainer.round() == 1
    assert await left(alone) == set()


async def test_a_hold_that_is_set_while_a_step_is_under_way_is_heeded_or_waits(alone: Parts) -> None:
    """Between the look at what has expired and its removal: the removal looks again."""
    id = await ended(alone, 10 * DAY_S, labels={"case": "7"})
    await policy(alone, DAY_S)
    retainer = await retainer_of(alone)
    fetch = alone.db.fetch

    async def hold_after_the_look(name: str, params: Any = None) -> list[Any]:
        rows = await fetch(name, params)
        if name == "expired_page" and rows[0].ids:
            await fetch("put_legal_hold", {"key": "case", "value": "7", "reason": "", "set_by": "test"})
        return rows

    retainer._database = Slow(alone.db, hold_after_the_look)  # type: ignore[assignment]
    assert await retainer.round() == 0
    assert await left(alone) == {id}


class Slow:
    """A database of which one method is another."""

    def __init__(self, database: Any, fetch: Any) -> None:
        self._database = database
        self.fetch = fetch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


async def complete(parts: Parts, id: uuid.UUID, result: str = '"made"') -> None:
    await parts.finish(id, (await parts.execute(id)).fence, result=result)


async def test_what_a_waiting_job_will_read_stays(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, other = await alone.submit(), await alone.submit()
    child = await alone.submit(depends_on=[str(parent), str(other)])
    await complete(alone, parent)
    await age_all(alone, monkeypatch)
    await policy(alone, DAY_S)
    retainer = await retainer_of(alone)
    assert await retainer.round() == 0, "the child waits for the other one"
    await complete(alone, other)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=2)).round() == 0, "the child is ready"
    started = await alone.execute(child)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=3)).round() == 0, "the child executes"
    found = await alone.db.fetch(
        "read_upstream", {"id": child, "after": uuid.UUID(int=0), "limit": 10, "bytes": 1_000_000}
    )
    assert {row.result for row in found} == {'"made"'}
    await alone.finish(child, started.fence)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=4)).round() == 3
    assert await alone.sql("SELECT 1 FROM tenure.dependency") == []


async def test_children_stay_while_their_parent_goes_on_and_the_parent_while_they_do(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = await alone.submit(), await alone.submit()
    await alone.sql("UPDATE tenure.job SET parent_id = %s WHERE id = %s", parent, child)
    await policy(alone, DAY_S)
    await complete(alone, child)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone)).round() == 0
    late = await alone.submit()
    await alone.sql("UPDATE tenure.job SET parent_id = %s WHERE id = %s", parent, late)
    await complete(alone, parent)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=2)).round() == 1
    assert await left(alone) == {parent}
    await complete(alone, late)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=3)).round() == 2


async def test_a_workflow_stays_whole_while_a_member_goes_on_and_leaves_nothing(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await alone.submitter.submit_batch([JobSpec(kind="k"), JobSpec(kind="k")], workflow_name="night")
    first, second = (one.id for one in batch)
    await policy(alone, DAY_S)
    await complete(alone, first)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone)).round() == 0
    await complete(alone, second)
    await alone.sql("UPDATE tenure.history SET finished_at = now() - interval '10 days' WHERE id = %s", first)
    assert await (await retainer_of(alone, term=2)).round() == 1
    assert len(await alone.sql("SELECT 1 FROM tenure.workflow")) == 1, "a member is left"
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=3)).round() == 1
    assert await alone.sql("SELECT 1 FROM tenure.workflow") == []


async def test_a_failed_job_stays_while_its_retry_goes_on(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await alone.submit()
    await alone.finish(id, (await alone.execute(id)).fence, Outcome.FAILED, retryable=False)
    retry, _ = await alone.retryer.retry(id)
    await policy(alone, DAY_S)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone)).round() == 0
    await complete(alone, retry)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone, term=2)).round() == 2


async def test_a_key_whose_job_is_gone_runs_nothing_twice(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is kept for its own time: the same request is answered with the job's id, and reading that finds none."""
    spec = JobSpec(kind="k", idempotency_key="once")
    [first] = await alone.submitter.submit_batch([spec])
    await complete(alone, first.id)
    await policy(alone, DAY_S)
    await age_all(alone, monkeypatch)
    assert await (await retainer_of(alone)).round() == 1
    [again] = await alone.submitter.submit_batch([spec])
    assert (again.id, again.created) == (first.id, False)
    assert await alone.row(first.id) is None


async def test_a_job_that_was_just_submitted_to_wait_for_an_expired_one_keeps_it(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its submit holds the row until it has committed; the removal leaves it alone, and then sees who needs it."""
    parent = await alone.submit()
    await complete(alone, parent)
    await policy(alone, DAY_S)
    await age_all(alone, monkeypatch)
    retainer = await retainer_of(alone)
    child = new_id()
    async with await psycopg.AsyncConnection.connect(alone.dsn) as submitting:
        await submitting.execute(
            "INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload,"
            " ttl_s, max_crashes) VALUES (%s, 'default', 'k', 'default', 1, 'waiting', false, 0, now(), 'null', 10, 3)",
            [child],
        )
        await submitting.execute("SELECT tenure.insert_held_edges(%s, %s)", [[child], [parent]])
        assert await retainer.round() == 0
    assert await retainer.round() == 0
    assert (await alone.row(child)).state == "ready"


async def test_a_job_that_is_to_wait_for_one_that_goes_meanwhile_is_refused(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = await alone.submit()
    await complete(alone, parent)
    await policy(alone, DAY_S)
    await age_all(alone, monkeypatch)
    retainer, required = await retainer_of(alone), alone.submitter._require_parents

    async def then_remove(batch: Any) -> None:
        await required(batch)
        await retainer.round()

    monkeypatch.setattr(alone.submitter, "_require_parents", then_remove)
    with pytest.raises(InvalidInput, match=f"job {parent} does not exist"):
        await alone.submit(depends_on=(str(parent),))
    assert await alone.sql("SELECT FROM tenure.jobs") == []


async def test_a_deposed_leader_removes_nothing(alone: Parts) -> None:
    id = await ended(alone, 10 * DAY_S)
    await policy(alone, DAY_S)
    former = await retainer_of(alone)
    await retainer_of(alone, "c2", term=2)
    with pytest.raises(Deposed):
        await former.round()
    assert await left(alone) == {id}


async def test_a_leader_that_is_killed_anywhere_removes_all_once(
    alone: Parts, make_parts: MakeParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are cut at instants drawn at random; others go on, and the log says what went, each job once."""
    monkeypatch.setattr(retain, "WINDOW_JOBS", 7)
    monkeypatch.setattr(retain, "MIN_REST_S", 0.0)
    old = {await ended(alone, (2 + n % 30) * DAY_S, namespace=f"n{n % 3}") for n in range(200)}
    held = {await ended(alone, 5 * DAY_S, labels={"case": "7"}) for _ in range(5)}
    fresh = {await ended(alone, 1.0) for _ in range(5)}
    await alone.db.fetch("put_legal_hold", {"key": "case", "value": "7", "reason": "", "set_by": "test"})
    await policy(alone, DAY_S)
    draw = random.Random(7)
    for term in itertools.count(1):
        retainer = await retainer_of(alone, term=term)
        removing = asyncio.create_task(retainer.round())
        await asyncio.sleep(draw.uniform(0.0, 0.02 * term))
        removing.cancel()
        await asyncio.wait([removing])
        assert held | fresh <= await left(alone)
        if not removing.cancelled() and removing.exception() is None and await left(alone) == held | fresh:
            break
        assert term < 100
    assert {row.job_id for row in await alone.sql("SELECT job_id FROM tenure.attempt")} == held | fresh
    assert sum(json.loads(one.text)["jobs"] for one in await entries(alone)) == len(old)


# -- jobs on which much hangs --


async def with_edges(parts: Parts, id: uuid.UUID, edges: int) -> None:
    """Let a job have waited for so many, of which nothing is left."""
    await parts.sql(
        "INSERT INTO tenure.dependency (child_id, parent_id, parent_state)"
        " SELECT %s, gen_random_uuid(), 'completed' FROM generate_series(1, %s)",
        id,
        edges,
    )


async def waited(parts: Parts, parent: uuid.UUID, children: int) -> None:
    """Let so many jobs have waited for one, all ended, and of which nothing but that is left."""
    await parts.sql(
        "INSERT INTO tenure.dependency (child_id, parent_id, parent_state)"
        " SELECT gen_random_uuid(), %s, 'completed' FROM generate_series(1, %s)",
        parent,
        children,
    )


async def test_a_step_is_bounded_by_what_hangs_on_its_jobs(alone: Parts) -> None:
    wide = [await ended(alone, 10 * DAY_S) for _ in range(7)]
    for id in wide:
        await with_edges(alone, id, 9_000)
    narrow = [await ended(alone, 10 * DAY_S) for _ in range(50)]
    await policy(alone, DAY_S)
    retainer = await retainer_of(alone)
    steps = steps_of(retainer)
    assert await retainer.round() == len(wide) + len(narrow)
    assert await alone.sql("SELECT 1 FROM tenure.dependency") == [] and await left(alone) == set()
    widths = [len(set(ids) & set(wide)) for ids in steps]
    assert max(widths) <= 2, "of 20,000 rows"
    assert len(steps) < 12, "the narrow ones go together"


def steps_of(retainer: Retainer) -> list[list[uuid.UUID]]:
    """Return a list that fills with the jobs of every removal."""
    steps: list[list[uuid.UUID]] = []
    database = retainer._database

    class Noted(Slow):
        async def transaction(self, statements: Any) -> Any:
            steps.extend(one.params["ids"] for one in statements if one.name == "remove_history")
            return await database.transaction(statements)

    retainer._database = Noted(database, database.fetch)  # type: ignore[assignment]
    return steps


SLOW_REMOVAL = """
CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(CASE WHEN OLD.kind = 'never' THEN 60 ELSE 0.1 END); RETURN OLD; END $$;
CREATE TRIGGER slow BEFORE DELETE ON tenure.history FOR EACH ROW EXECUTE FUNCTION pg_temp.slow();
"""


async def test_steps_that_take_too_long_are_halved_and_one_job_holds_no_others_up(alone: Parts) -> None:
    for _ in range(40):
        await ended(alone, 10 * DAY_S)
    stays = await ended(alone, 11 * DAY_S, kind="never")
    await policy(alone, DAY_S)
    async with await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as connection:
        await connection.execute(SLOW_REMOVAL.replace("pg_temp", "public").encode())
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=1, statement_timeout_s=1.0)) as impatient:
        retainer = await retainer_of(alone)
        retainer._database = impatient
        steps = steps_of(retainer)
        assert await retainer.round() == 40
    assert await left(alone) == {stays}
    sizes = [len(ids) for ids in steps]
    assert 1 in sizes and [stays] in steps
    assert max(sizes[sizes.index(1) :]) > 1, "what was halved grows back"


async def test_steps_stay_as_small_as_they_have_to_be(alone: Parts) -> None:
    """Postgres manages seven jobs in time, and not fourteen."""
    for _ in range(56):
        await ended(alone, 10 * DAY_S)
    await policy(alone, DAY_S)
    async with await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as connection:
        await connection.execute(SLOW_REMOVAL.replace("pg_temp", "public").encode())
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=1, statement_timeout_s=1.0)) as impatient:
        retainer = await retainer_of(alone)
        retainer._database = impatient
        steps = steps_of(retainer)
        assert await retainer.round() == 56
    assert [len(ids) for ids in steps if len(ids) > 7] == [56, 28, 14], "none of the later ones was too large"


SLOW_LOOK = """
ALTER VIEW tenure.ended RENAME TO ended_soon;
CREATE VIEW tenure.ended AS
SELECT id, namespace, kind, state, created_at, finished_at, workflow_id, held,
       needed OR pg_sleep(CASE WHEN kind = 'never' THEN 60 ELSE 0.1 END) IS NULL AS needed FROM tenure.ended_soon
"""


async def test_a_look_that_takes_too_long_is_halved_and_one_job_holds_no_others_up(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retain, "WINDOW_JOBS", 16)
    for _ in range(6):
        await ended(alone, 12 * DAY_S)
    stays = await ended(alone, 11 * DAY_S, kind="never")
    for _ in range(6):
        await ended(alone, 10 * DAY_S)
    await policy(alone, DAY_S)
    async with await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as connection:
        await connection.execute(SLOW_LOOK.encode())
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=1, statement_timeout_s=1.0)) as impatient:
        retainer = await retainer_of(alone)
        retainer._database = impatient
        assert await retainer.round() == 12
    assert await left(alone) == {stays}


async def test_a_job_whose_id_was_made_ahead_of_time_is_looked_at(alone: Parts) -> None:
    """The clock of the coordinator that made it goes ahead of Postgres', by which it has ended."""
    [now] = await alone.db.fetch("time")
    at = now.now - timedelta(seconds=61)
    id = uuid.UUID(int=first_id_at(at + timedelta(seconds=10)).int + 1)
    await alone.sql(ENDED, id, "default", "k", "completed", at, at, at, at, None, None)
    await policy(alone, 60)
    assert await (await retainer_of(alone)).round() == 1


async def test_while_postgres_is_away_no_step_is_halved(alone: Parts) -> None:
    for _ in range(8):
        await ended(alone, 10 * DAY_S)
    await policy(alone, DAY_S)
    retainer = await retainer_of(alone)
    steps = steps_of(retainer)
    noted = retainer._database

    class Away(Slow):
        async def transaction(self, statements: Any) -> Any:
            raise Unavailable("the primary is another one now")

    retainer._database = Away(alone.db, alone.db.fetch)  # type: ignore[assignment]
    for _ in range(4):
        with pytest.raises(Unavailable):
            await retainer.round()
    retainer._database = noted
    assert await retainer.round() == 8
    assert [len(ids) for ids in steps] == [8]


async def test_a_step_that_outlives_the_term_changes_nothing(alone: Parts) -> None:
    """The next leader is elected while the step waits for the lock that it takes first."""
    id = await ended(alone, 10 * DAY_S)
    await policy(alone, DAY_S)
    former = await retainer_of(alone)
    async with await psycopg.AsyncConnection.connect(alone.dsn) as busy:
        await busy.execute("SELECT pg_advisory_xact_lock(hashtext('tenure.retention'))")
        step = asyncio.create_task(former.round())

        async def waits() -> bool:
            return bool(await alone.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

        assert await until(waits)
        await retainer_of(alone, "c2", term=2)  # which does not wait for the step
        await busy.rollback()
    with pytest.raises(Deposed):
        await step
    assert await left(alone) == {id}


async def test_a_job_for_which_thousands_have_waited_stays_until_most_of_them_are_gone(alone: Parts) -> None:
    wide, narrow = await ended(alone, 10 * DAY_S), await ended(alone, 10 * DAY_S)
    await waited(alone, wide, 3_000)
    await waited(alone, narrow, 1_000)
    await policy(alone, DAY_S)
    assert await (await retainer_of(alone)).round() == 1
    assert await left(alone) == {wide}
    await alone.sql(
        "DELETE FROM tenure.dependency WHERE child_id IN"
        " (SELECT child_id FROM tenure.dependency WHERE parent_id = %s LIMIT 2000)",
        wide,
    )
    assert await (await retainer_of(alone, term=2)).round() == 1


async def test_an_unfinished_job_is_seen_among_a_thousand_that_have_ended(alone: Parts) -> None:
    parent, child = await ended(alone, 10 * DAY_S), await alone.submit()
    await waited(alone, parent, 999)
    await alone.sql(
        "INSERT INTO tenure.dependency (child_id, parent_id, parent_state) VALUES (%s, %s, 'completed')", child, parent
    )
    await policy(alone, DAY_S)
    assert await (await retainer_of(alone)).round() == 0


async def test_the_leader_removes_by_itself(alone: Parts) -> None:
    gone, kept = await ended(alone, 10 * DAY_S), await ended(alone, 1.0)
    await policy(alone, DAY_S)
    async with running(leader_of(alone).run()):

        async def is_done() -> bool:
            return await left(alone) == {kept}

        assert await until(is_done)
    assert gone not in await left(alone)


async def test_a_span_in_which_nothing_expires_soon_is_not_looked_through_again(alone: Parts) -> None:
    await week_partitions(alone, [1])  # what expires by the day is of one span, on a Monday, too
    await ended(alone, 10 * DAY_S, state="failed")
    await policy(alone, DAY_S, state="completed")
    await policy(alone, 365 * DAY_S, state="failed")
    retainer = await retainer_of(alone)
    looks: list[str] = []
    fetch = alone.db.fetch

    async def counted(name: str, params: Any = None) -> list[Any]:
        looks.append(name)
        return await fetch(name, params)

    retainer._database = Slow(alone.db, counted)  # type: ignore[assignment]
    await retainer.round()
    first = looks.count("expired_page")
    await retainer.round()
    assert first > looks.count("expired_page") - first
    await policy(alone, 2 * DAY_S, state="failed")
    assert await retainer.round() == 1, "a change of what is set is heeded at once"


async def test_partitions_of_which_nothing_is_left_are_dropped_and_no_others(alone: Parts) -> None:
    monday = datetime.now(UTC).date()
    monday -= timedelta(days=monday.weekday())

    async def partitions() -> set[str]:
        return {row.child for row in await alone.sql("SELECT child FROM tenure.week")}

    present = await partitions()
    await week_partitions(alone, (3, 4), ("history", "attempt"))
    at = datetime(monday.year, monday.month, monday.day, tzinfo=UTC) - timedelta(weeks=3) + timedelta(days=2)
    id = await ended(alone, (datetime.now(UTC) - at).total_seconds())
    await (await retainer_of(alone)).round()
    assert await partitions() == present | {"history_3_ago", "attempt_3_ago"}
    assert await left(alone) == {id}
    await policy(alone, DAY_S)
    retainer = await retainer_of(alone, term=2)
    async with await psycopg.AsyncConnection.connect(alone.dsn) as reader:
        await reader.execute("SELECT count(*) FROM tenure.history")
        assert await retainer.round() == 1
        assert "history_3_ago" in await partitions(), "somebody reads it"
    await (await retainer_of(alone, term=3)).round()
    assert await partitions() == present


async def test_beside_a_long_read_one_wait_for_a_lock_is_all(alone: Parts) -> None:
    """As pg_dump reads: all partitions, in one transaction. Waiting for each of sixty would take six seconds."""
    await week_partitions(alone, range(3, 63))
    async with (
        await psycopg.AsyncConnection.connect(alone.dsn) as reader,
        await psycopg.AsyncConnection.connect(alone.dsn, autocommit=True) as dropping,
    ):
        await reader.execute("SELECT count(*) FROM tenure.history")
        await dropping.execute("SET statement_timeout = '4s'")
        cursor = await dropping.execute("SELECT tenure.drop_empty_partition()")
        assert await cursor.fetchone() == (None,)


@pytest_asyncio.fixture
async def client(alone: Parts) -> AsyncIterator[AsyncClient]:
    services = (RetentionService(alone.db, alone.clock, alone.audit),)
    server = GrpcServer(services, listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with AsyncClient(server.address) as made:
        yield made
        await server.stop(0)


async def test_policies_are_put_read_listed_and_deleted(client: AsyncClient) -> None:
    wide = await client.put_retention(keep_s=30 * DAY_S)
    assert wide == RetentionPolicy(keep_s=30 * DAY_S)
    failed = await client.put_retention(namespace="acme", state="failed", keep_s=365 * DAY_S)
    for_ever = await client.put_retention(kind="invoice")
    assert for_ever.keep_s is None
    assert await client.retentions() == [wide, for_ever, failed]
    assert await client.retention(namespace="acme", state="failed") == failed
    with pytest.raises(NotFound):
        await client.retention(namespace="acme")
    assert await client.retention(namespace="acme", kind="scan", state="completed", deciding=True) == wide
    assert await client.retention(namespace="acme", kind="invoice", state="failed", deciding=True) == failed
    assert [await client.delete_retention(namespace="acme", state="failed") for _ in range(2)] == [True, False]
    with pytest.raises(InvalidInput) as caught:
        await client.put_retention(keep_s=60, archive=True)
    assert [violation.field for violation in caught.value.violations] == ["policy.archive"]
    for wrong in ({"keep_s": 1}, {"namespace": "A b", "keep_s": 60}, {"state": "ready", "keep_s": 60}):
        with pytest.raises(InvalidInput):
            await client.put_retention(**wrong)


async def test_a_preview_counts_what_would_go_and_what_is_kept(
    client: AsyncClient, alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_service, "WINDOW_JOBS", 3)
    monkeypatch.setattr(retention_service, "PASS_S", 0.0)  # a call for each window
    for n in range(10):
        await ended(alone, (2 + n) * DAY_S, namespace="acme" if n % 2 else "globex")
    await ended(alone, 10 * DAY_S, namespace="acme", labels={"case": "7"})
    await ended(alone, 3_600.0, namespace="acme")
    assert await client.preview_retention() == []
    asked = RetentionPolicy(keep_s=DAY_S)
    await client.put_hold("case", "7", "asked for")
    told = {(one.namespace, one.state): one for one in await client.preview_retention(policy=asked)}
    assert {key: (one.jobs, one.held, one.needed) for key, one in told.items()} == {
        ("acme", JobState.COMPLETED): (5, 1, 0),
        ("globex", JobState.COMPLETED): (5, 0, 0),
    }
    assert all(one.policy == asked for one in told.values())
    assert len(await left(alone)) == 12, "nothing went"
    await client.put_retention(namespace="acme", keep_s=DAY_S)
    assert [(one.namespace, one.jobs) for one in await client.preview_retention()] == [("acme", 5)]
    assert await client.preview_retention(namespace="globex") == []
    assert await (await retainer_of(alone)).round() == 5
    with pytest.raises(InvalidInput):
        await client.preview_retention(namespace="A\x00")


async def test_holds_are_set_listed_and_lifted(client: AsyncClient) -> None:
    hold = await client.put_hold("case", "7", "asked for")
    assert (hold.key, hold.value, hold.reason, hold.set_by) == ("case", "7", "asked for", "anybody")
    assert await client.holds() == [hold]
    again = await client.put_hold("case", "7", "still")
    assert (again.reason, again.set_at) == ("still", hold.set_at)
    assert [await client.delete_hold("case", "7") for _ in range(2)] == [True, False]
    with pytest.raises(InvalidInput):
        await client.put_hold("A b", "7")


async def test_a_hold_waits_for_a_step_for_longer_than_others_wait_for_a_lock(alone: Parts) -> None:
    async with Database(alone.dsn, PoolOptions(min_size=1, max_size=2, lock_timeout_s=0.2)) as database:
        tries = []

        class Noted(Slow):
            async def transaction(self, statements: Any) -> Any:
                tries.append(statements)
                return await database.transaction(statements)

        noted: Any = Noted(database, database.fetch)
        server = GrpcServer(
            (RetentionService(noted, alone.clock, alone.audit),), listen="127.0.0.1:0", with_reflection=False
        )
        await server.start()
        async with AsyncClient(server.address) as client:
            async with await psycopg.AsyncConnection.connect(alone.dsn) as stepping:
                await stepping.execute("SELECT pg_advisory_xact_lock(hashtext('tenure.retention'))")
                asked = asyncio.create_task(client.put_hold("case", "7"))
                await asyncio.sleep(0.8)
            async with asyncio.timeout(PATIENCE_S):
                assert (await asked).key == "case"
        await server.stop(0)
    assert len(tries) == 1


async def test_a_hold_is_answered_after_the_step_that_has_not_seen_it(client: AsyncClient, alone: Parts) -> None:
    async with await psycopg.AsyncConnection.connect(alone.dsn) as stepping:
        await stepping.execute("SELECT pg_advisory_xact_lock(hashtext('tenure.retention'))")
        asked = asyncio.create_task(client.put_hold("case", "7"))
        await asyncio.sleep(0.2)
        assert not asked.done()
    async with asyncio.timeout(PATIENCE_S):
        assert (await asked).key == "case"
