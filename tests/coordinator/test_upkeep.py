"""The leader's chores, a round at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable

import psycopg
import pytest
from tests.coordinator.conftest import MakeParts, Parts, leader_of, running, until
from tests.coordinator.test_dispatch import _both_offered

from tenure.coordinator import lanes as lanes_module
from tenure.coordinator import upkeep as upkeep_module
from tenure.coordinator.upkeep import MAX_ACTIVATION_WAIT_S, Upkeep
from tenure.model.clock import SystemClock
from tenure.model.states import Outcome


class OneRound(SystemClock):
    """Ends the task that sleeps, and tells for how long it would have."""

    async def sleep(self, seconds: float) -> None:
        self.slept_s = seconds
        raise asyncio.CancelledError


def upkeep_of(parts: Parts, clock: SystemClock) -> Upkeep:
    return Upkeep(parts.db, clock, parts.dependants, parts.hints)


async def wait_after(body: Awaitable[None], clock: OneRound) -> float:
    """Run a chore until it sleeps; return for how long."""
    with pytest.raises(asyncio.CancelledError):
        await body
    return clock.slept_s


async def test_a_due_job_that_is_locked_does_not_keep_the_leader_busy(alone: Parts) -> None:
    job = await alone.submit(delay_s=3_600.0)
    await alone.sql("UPDATE tenure.job SET activate_at = now() - interval '1 second'")
    clock = OneRound()
    async with await psycopg.AsyncConnection.connect(alone.dsn) as stranger:
        await stranger.execute("SELECT 1 FROM tenure.job WHERE id = %s FOR UPDATE", (job,))
        assert await wait_after(upkeep_of(alone, clock).activate_forever(), clock) == MAX_ACTIVATION_WAIT_S
    await wait_after(upkeep_of(alone, clock).activate_forever(), clock)
    assert (await alone.sql("SELECT due FROM tenure.job"))[0].due


async def test_all_expired_keys_go_in_one_round(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "KEYS_PER_STEP", 3)
    for n in range(10):
        await alone.submit(idempotency_key=f"key-{n}")
    await alone.sql("UPDATE tenure.idempotency SET expires_at = now() - interval '1 hour' WHERE key <> 'key-0'")
    clock = OneRound()
    await wait_after(upkeep_of(alone, clock).drop_keys_forever(), clock)
    assert [row.key for row in await alone.sql("SELECT key FROM tenure.idempotency")] == ["key-0"]


async def test_a_chore_that_fails_is_tried_again_and_ends_no_term(alone: Parts) -> None:
    await alone.sql("ALTER TABLE tenure.idempotency RENAME TO away")
    clock = OneRound()
    assert await wait_after(upkeep_of(alone, clock).drop_keys_forever(), clock) == upkeep_module.KEYS_EVERY_S


async def test_old_entries_of_the_audit_log_go_in_one_round_and_no_others(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "AUDIT_PER_STEP", 3)
    await alone.sql(
        "INSERT INTO tenure.audit (id, at, caller, role, action, target, outcome)"
        " SELECT gen_random_uuid(), now() - make_interval(days => n), 'a', 'admin', 'limits.put', n::text, 'ok'"
        " FROM generate_series(0, 10) AS n"
    )
    clock = OneRound()
    await wait_after(upkeep_of(alone, clock).drop_audit_forever(2), clock)
    assert [row.target for row in await alone.sql("SELECT target FROM tenure.audit ORDER BY at DESC")] == ["0", "1"]


OLD = "UPDATE tenure.lane SET used_at = now() - interval '2 days'"


async def drop_lanes(parts: Parts) -> set[str]:
    """Let the chore run once; return the kinds whose lanes are left."""
    clock = OneRound()
    await wait_after(upkeep_of(parts, clock).drop_lanes_forever(), clock)
    return {row.kind for row in await parts.sql("SELECT kind FROM tenure.lane")}


async def test_a_lane_that_nobody_has_used_for_long_is_dropped(
    alone: Parts, make_parts: MakeParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await alone.submit(kind="gone")
    await alone.submit(kind="full", delay_s=3_600.0)
    await alone.finish(ended, (await alone.execute(ended)).fence, Outcome.COMPLETED)
    await alone.sql(OLD)
    other = await make_parts(alone.dsn)
    await other.submit(kind="used")
    await alone.finish(used := (await _only(alone, "used")), (await alone.execute(used)).fence, Outcome.COMPLETED)
    assert await drop_lanes(alone) == {"full", "used"}
    monkeypatch.setattr(lanes_module, "REMEMBERED_S", 0.0)
    await alone.lanes.refresh()
    await alone.submit(kind="gone")  # this coordinator remembers the lane no longer, and makes it again
    await alone.submit(kind="full")
    assert await drop_lanes(alone) == {"full", "used", "gone"}
    rows = await alone.sql("SELECT kind FROM tenure.lane WHERE used_at < now() - interval '1 day'")
    assert rows == [], "a lane that is asked for again is not marked as used"


async def _only(parts: Parts, kind: str) -> uuid.UUID:
    [row] = await parts.sql("SELECT id FROM tenure.job WHERE kind = %s", kind)
    id: uuid.UUID = row.id
    return id


async def test_a_job_that_comes_into_a_lane_as_it_is_dropped_is_offered(alone: Parts) -> None:
    """By SQL: its transaction has seen the lane, and commits when it is gone."""
    before = await alone.submit()
    await alone.finish(before, (await alone.execute(before)).fence, Outcome.COMPLETED)
    await alone.sql(OLD)
    async with await psycopg.AsyncConnection.connect(alone.dsn) as application:
        cursor = await application.execute("SELECT tenure.submit_job('k')")
        [job] = await cursor.fetchone() or [None]
        assert await drop_lanes(alone) == set()
    await alone.register()
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        await until(lambda: _both_offered(alone, {str(job)}))
