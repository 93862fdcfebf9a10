"""The leader's chores, a round at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import psycopg
import pytest
from tests.coordinator.conftest import Parts

from tenure.coordinator import upkeep as upkeep_module
from tenure.coordinator.upkeep import MAX_ACTIVATION_WAIT_S, Upkeep
from tenure.model.clock import SystemClock


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
