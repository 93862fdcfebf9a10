"""Every statement that changes a job's state performs only moves of ``MOVES``, from whatever state the row is in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from importlib import resources

import pytest
from tests.postgres.conftest import Table

from tenure.model.ids import new_id
from tenure.model.states import CLAIMABLE, MOVES, TERMINAL, JobState, Outcome, may_move

Drive = Callable[[Table, uuid.UUID, int], Awaitable[object]]
"""Runs a statement against a job with the fence of its last attempt, as its owner would."""


async def _start(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.start(id)


def _end(state: JobState, outcome: Outcome | None = None) -> Drive:
    async def drive(table: Table, id: uuid.UUID, fence: int) -> object:
        return await table.end(id, fence, state, outcome)

    return drive


def _give_back(state: JobState, outcome: Outcome) -> Drive:
    async def drive(table: Table, id: uuid.UUID, fence: int) -> object:
        return await table.give_back(id, fence, state, outcome)

    return drive


async def _cancel(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.db.fetch("cancel_idle", {"ids": [id], "reason": "r"})


async def _end_broken(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.db.fetch("end_broken", {"ids": [id]})


async def _end_broken_as_failed(table: Table, id: uuid.UUID, fence: int) -> object:
    await table.sql("UPDATE tenure.job SET upstream_failure = 'fail' WHERE id = %s", id)
    return await table.db.fetch("end_broken", {"ids": [id]})


async def _request_cancel(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.db.fetch("request_cancel", {"ids": [id], "reason": "r", "grace_s": None})


async def _replace(table: Table, id: uuid.UUID, fence: int) -> object:
    """The statements that follow it in its transaction end idle ones."""
    return await table.db.fetch("replace_holders", {"ids": [id], "new_ids": [new_id()], "reason": "r"})


async def _settle(table: Table, id: uuid.UUID, fence: int) -> object:
    parents = await table.db.fetch("dependencies_of", {"ids": [id]})
    ids = [parent for row in parents for parent in row.parents]
    for parent in ids:
        if (await table.state(parent)) in CLAIMABLE:
            await table.end(parent, (await table.start(parent))[0].fence)
    return await table.db.fetch("settle_parents", {"ids": [*ids, id]})


async def _activate(table: Table, id: uuid.UUID, fence: int) -> object:
    await table.sql("UPDATE tenure.job SET due = false WHERE id = %s", id)
    return await table.db.fetch("activate_due", {"limit": 1_000})


async def _age(table: Table, id: uuid.UUID, fence: int) -> object:
    lane = "(SELECT id FROM tenure.lane WHERE pool = 'aged')"
    made = "INSERT INTO tenure.lane (pool, namespace, kind) VALUES ('aged', 'default', 'k') ON CONFLICT DO NOTHING"
    await table.sql(made)
    await table.sql(f"UPDATE tenure.job SET lane = {lane}, activate_at = now() - interval '1 h' WHERE id = %s", id)
    await table.sql("INSERT INTO tenure.namespace (name, ageing_s) VALUES ('default', 1) ON CONFLICT DO NOTHING")
    return await table.db.fetch("raise_aged", {"limit": 1_000, "per_lane": 1_000, "highest": 1_000})


async def _progress(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.db.fetch(
        "report_progress", {"ids": [id], "fences": [fence], "fractions": [0.5], "messages": ["half"]}
    )


async def _checkpoint(table: Table, id: uuid.UUID, fence: int) -> object:
    return await table.db.fetch("save_checkpoint", {"id": id, "fence": fence, "checkpoint": "{}"})


async def _lane(table: Table, id: uuid.UUID, fence: int) -> object:
    lanes = {"before": [1], "after": [2], "pools": ["default"]}
    return await table.db.fetch("move_to_lanes", {**lanes, "last": uuid.UUID(int=0), "limit": 10})


async def _depend(table: Table, id: uuid.UUID, fence: int) -> object:
    """Insert_dependencies is only ever run on rows of its own transaction, which are waiting."""
    if (await table.state(id)) is not JobState.WAITING:
        return None
    parent = await table.submit()
    await table.end(parent, (await table.start(parent))[0].fence)
    return await table.db.fetch("insert_dependencies", {"children": [id], "parents": [parent]})


async def _expire(table: Table, id: uuid.UUID, fence: int) -> object:
    await table.sql("UPDATE tenure.job SET deadline = now() - interval '1 s' WHERE id = %s", id)
    return await table.db.fetch("expire_idle", {"ids": [id], "not_started": "a", "not_ended": "b"})


async def _expire_too_early(table: Table, id: uuid.UUID, fence: int) -> object:
    """Its time is not up, or only the time to start, which it has kept."""
    ahead = "UPDATE tenure.job SET deadline = now() + interval '1 h', start_by = now() + interval '1 h' WHERE id = %s"
    await table.sql(ahead, id)
    await table.sql("UPDATE tenure.job SET start_by = now() - interval '1 s' WHERE id = %s AND attempt > 0", id)
    return await table.db.fetch("expire_idle", {"ids": [id], "not_started": "a", "not_ended": "b"})


async def _retry(table: Table, id: uuid.UUID, fence: int) -> object:
    """The old row keeps its state: the copy is a job of its own."""
    return await table.db.fetch("retry_jobs", {"ids": [id], "new_ids": [new_id()], "lanes": [1]})


async def _depend_again(table: Table, id: uuid.UUID, fence: int) -> object:
    """As ``_depend``: the parent of the job that is retried has completed since, or has been forgotten."""
    if (await table.state(id)) is not JobState.WAITING:
        return None
    old, parent = await table.submit(), await table.submit()
    await table.end(parent, (await table.start(parent))[0].fence)
    await table.sql("INSERT INTO tenure.dependency VALUES (%s, %s, 'completed')", old, parent)
    await table.sql("UPDATE tenure.job SET retry_of = %s WHERE id = %s", old, id)
    await table.sql("DELETE FROM tenure.dependency WHERE child_id = %s", id)
    return await table.db.fetch("insert_retry_dependencies", {"new_ids": [id]})


def _park(child_ends: bool) -> Drive:
    async def drive(table: Table, id: uuid.UUID, fence: int) -> object:
        child = await table.submit()
        await table.sql("UPDATE tenure.job SET parent_id = %s WHERE id = %s", id, child)
        if child_ends:
            await table.end(child, (await table.start(child))[0].fence)
        return await table.db.fetch(
            "park_attempts",
            {
                "ids": [id],
                "fences": [fence],
                "checkpoints": ["{}"],
                "triggers": ["all_finished"],
                "parked": [id],
                "children": [child],
            },
        )

    return drive


STATEMENTS: dict[str, dict[str, tuple[Drive, dict[JobState, JobState]]]] = {
    "start_attempts": {"start": (_start, dict.fromkeys(CLAIMABLE, JobState.EXECUTING))},
    "end_attempts": {str(state): (_end(state), {JobState.EXECUTING: state}) for state in sorted(TERMINAL)},
    "return_attempts": {
        "ready": (_give_back(JobState.READY, Outcome.RELEASED), {JobState.EXECUTING: JobState.READY}),
        "restarting": (_give_back(JobState.RESTARTING, Outcome.LOST), {JobState.EXECUTING: JobState.RESTARTING}),
    },
    "cancel_idle": {
        "cancel": (
            _cancel,
            dict.fromkeys((JobState.WAITING, JobState.READY, JobState.RESTARTING), JobState.CANCELED),
        )
    },
    "end_broken": {
        "cancel": (_end_broken, {JobState.WAITING: JobState.CANCELED}),
        "fail": (_end_broken_as_failed, {JobState.WAITING: JobState.FAILED}),
    },
    "park_attempts": {
        "wait": (_park(child_ends=False), {JobState.EXECUTING: JobState.WAITING}),
        "run": (_park(child_ends=True), {JobState.EXECUTING: JobState.READY}),
    },
    "settle_parents": {"settle": (_settle, {JobState.WAITING: JobState.READY})},
    "insert_dependencies": {"depend": (_depend, {JobState.WAITING: JobState.READY})},
    "expire_idle": {
        "expire": (_expire, dict.fromkeys((JobState.WAITING, JobState.READY, JobState.RESTARTING), JobState.FAILED)),
        "too-early": (_expire_too_early, {}),
    },
    "retry_jobs": {"retry": (_retry, {})},
    "insert_retry_dependencies": {"depend": (_depend_again, {JobState.WAITING: JobState.READY})},
    "request_cancel": {"request": (_request_cancel, {})},
    "replace_holders": {"replace": (_replace, {})},
    "activate_due": {"activate": (_activate, {})},
    "raise_aged": {"age": (_age, {})},
    "report_progress": {"progress": (_progress, {})},
    "save_checkpoint": {"checkpoint": (_checkpoint, {})},
    "move_to_lanes": {"lane": (_lane, {})},
}
"""Per statement that writes ``tenure.job``: how to drive it, and what becomes of which state (else nothing does)."""

CASES = [
    pytest.param(drive, before, moves.get(before, before), id=f"{name}:{way}-from-{before}")
    for name, ways in STATEMENTS.items()
    for way, (drive, moves) in ways.items()
    for before in JobState
]


@pytest.mark.parametrize(("drive", "before", "after"), CASES)
async def test_a_statement_makes_only_its_moves(table: Table, drive: Drive, before: JobState, after: JobState) -> None:
    id = await table.in_state(before)
    fence = (await table.row(id)).fence or 1
    await drive(table, id, fence)
    found = await table.state(id)
    assert found is after
    assert found is before or may_move(before, found)


def test_every_move_of_the_table_is_made_by_some_statement() -> None:
    made = {
        (before, after) for ways in STATEMENTS.values() for _, moves in ways.values() for before, after in moves.items()
    }
    stated = {(before, after) for before, afters in MOVES.items() for after in afters}
    assert made == stated


def test_no_statement_that_writes_jobs_is_forgotten_here() -> None:
    folder = resources.files("tenure.store.postgres").joinpath("queries")
    writes = re.compile(
        r"(UPDATE|DELETE FROM|INSERT INTO)\s+tenure\.job\b|tenure\.(insert_(held_)?edges|wait_or_begin)\("
    )
    writers = {
        file.name.removesuffix(".sql") for file in folder.iterdir() if writes.search(file.read_text(encoding="utf-8"))
    }
    assert writers - {"insert_jobs", "insert_plain_jobs"} == set(STATEMENTS)


async def test_leaving_executing_clears_the_owner_and_keeps_the_attempt(table: Table) -> None:
    id = await table.in_state(JobState.EXECUTING)
    before = await table.row(id)
    await table.give_back(id, before.fence, JobState.RESTARTING, Outcome.LOST, crash_counts=[1])
    row = await table.row(id)
    assert (row.fence, row.worker, row.lease, row.claim_revision, row.started_at) == (None,) * 5
    assert (row.attempt, row.crashes, row.errors) == (1, 1, 0)
    [attempt] = await table.db.fetch("attempts_of", {"id": id})
    assert (attempt.outcome, attempt.fence, attempt.worker, attempt.lease, attempt.claim_revision) == (
        "lost",
        before.fence,
        "w1",
        7,
        70,
    )


async def test_a_finished_job_is_in_history_alone(table: Table) -> None:
    id = await table.submit(labels={"a": "b"}, payload='{"x":1}')
    fence = (await table.start(id))[0].fence
    await table.end(id, fence, results=['{"y":2}'])
    assert await table.sql("SELECT 1 FROM tenure.job WHERE id = %s", id) == []
    row = await table.row(id)
    assert (row.state, row.payload, row.result, row.fence, row.worker, row.attempt, row.progress) == (
        "completed",
        '{"x":1}',
        '{"y":2}',
        fence,
        "w1",
        1,
        1,
    )


NOT_OF_IDLE_ENDS = {"result", "fence", "worker", "started_at"}


async def test_every_end_takes_every_column_to_history(table: Table) -> None:
    """A new column that one of them forgot would be lost with the ends of that kind."""
    rows = await table.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'tenure' AND table_name = 'history'"
    )
    columns = {row.column_name for row in rows} - {"retried_by", "deleted_at"}  # of what became of it afterwards
    store = resources.files("tenure.store.postgres")
    functions = store.joinpath("migrations", "versions", "0001_submit_job.sql")
    found = 0
    for file in (functions, *store.joinpath("queries").iterdir()):
        for listed in re.findall(r"INSERT INTO tenure\.history \(([^)]*)\)", file.read_text(encoding="utf-8")):
            found += 1
            named = {name.strip() for name in listed.split(",")}
            assert columns - named <= (set() if file.name == "end_attempts.sql" else NOT_OF_IDLE_ENDS), file.name
    assert found == 5
