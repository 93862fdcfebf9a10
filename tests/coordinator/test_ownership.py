"""Who owns a job: zombies, overtaken offers, foreign claims, and stores that were lost. Each on real stores."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import Parts, leader_of, reaper_of, running, until

from tenure.coordinator.finish import Verdict
from tenure.coordinator.reap import Reaper
from tenure.coordinator.start import ClaimedJob
from tenure.model.errors import OwnershipLost
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.submit import Parent
from tenure.store.etcd.port import Listing

TERM = 1
"""Lower than any that an election gives."""


async def _take_term(parts: Parts, *, cluster: str = "1") -> None:
    await parts.db.fetch(
        "take_leadership", {"leader": "c0", "term": TERM, "etcd_cluster_id": cluster, "etcd_revision": 1}
    )


async def _reaper(parts: Parts) -> Reaper:
    return await reaper_of(parts, "c0", TERM)


async def _taken_over(parts: Parts) -> tuple[uuid.UUID, int, Any]:
    """Let a job be lost by one worker and started by another; return it, the zombie's fence and the new attempt."""
    id = await parts.submit()
    old = await parts.execute(id, worker="zombie")
    await parts.lose_claim(id)
    assert await (await _reaper(parts)).sweep() == 1
    return id, old.fence, await parts.execute(id, worker="heir")


# -- zombies --


async def test_a_zombie_completes_nothing(alone: Parts) -> None:
    id, old, new = await _taken_over(alone)
    answer = await alone.finish(id, old, result='"of the zombie"')
    assert (answer.verdict, answer.claim_deleted) == (Verdict.LOST, False)
    row = await alone.row(id)
    assert (row.state, row.worker, row.fence) == ("executing", "heir", new.fence)
    assert await alone.claim_of(id) is not None
    assert (await alone.finish(id, new.fence, result='"of the heir"')).verdict is Verdict.RECORDED
    assert (await alone.finish(id, old, result='"of the zombie"')).verdict is Verdict.LOST
    assert (await alone.row(id)).result == '"of the heir"'
    assert await alone.outcomes(id) == ["lost", "completed"]


async def test_a_zombie_writes_nothing_beside_its_end(alone: Parts) -> None:
    id, old, _ = await _taken_over(alone)
    progress = {"ids": [id], "fences": [old], "fractions": [0.9], "messages": ["zombie"]}
    assert await alone.db.fetch("report_progress", progress) == []
    assert await alone.db.fetch("save_checkpoint", {"id": id, "fence": old, "checkpoint": '"zombie"'}) == []
    with pytest.raises(OwnershipLost):
        child = JobSpec(kind="k", idempotency_key="child")
        await alone.submitter.submit_batch([child], parent=Parent(id, old))
    [row] = await alone.sql("SELECT progress, progress_message, checkpoint FROM tenure.job WHERE id = %s", id)
    assert (row.progress, row.progress_message, row.checkpoint) == (0, "", None)
    assert await alone.sql("SELECT 1 FROM tenure.job WHERE parent_id = %s", id) == []


async def test_the_late_report_of_an_ended_attempt_leaves_the_next_claim_alone(parts: Parts) -> None:
    """A report whose answer was lost comes once more, and announces once more, when the job is another's."""
    id = await parts.submit()
    first = await parts.execute(id, worker="w1")
    assert (await parts.finish(id, first.fence, Outcome.RELEASED)).claim_deleted
    await parts.execute(id, worker="w2")
    again = await parts.finish(id, first.fence, Outcome.RELEASED)
    assert again.verdict is Verdict.REPEATED
    assert await parts.claim_of(id) is not None
    assert not again.claim_deleted
    assert (await parts.row(id)).worker == "w2"


# -- starts --


async def test_an_offer_that_was_overtaken_starts_nothing(parts: Parts) -> None:
    """Answered after another worker's attempt failed: to start it now would be to skip the backoff."""
    id = await parts.submit(retry={"max_attempts": 3, "initial_backoff_s": 3_600.0, "max_backoff_s": 3_600.0})
    started = await parts.execute(id, worker="quick")
    await parts.finish(id, started.fence, Outcome.FAILED)
    claim = await parts.claim(id, worker="slow")
    overtaken = ClaimedJob(str(id), 0, claim.lease, claim.claim_revision)
    assert await parts.starter.start("slow", [overtaken]) == []
    assert await parts.state(id) is JobState.READY


async def test_an_attempt_that_executes_is_not_started_over(parts: Parts) -> None:
    """Its claim has vanished and is another's, but nobody has reaped it yet."""
    id = await parts.submit()
    started = await parts.execute(id, worker="w1")
    await parts.lose_claim(id)
    claim = await parts.claim(id, worker="w2")
    assert claim.attempt_seen == 1
    assert await parts.starter.start("w2", [claim]) == []
    row = await parts.row(id)
    assert (row.worker, row.fence, row.attempt) == ("w1", started.fence, 1)


async def test_a_start_of_unknown_outcome_is_not_anothers(parts: Parts) -> None:
    """Started, but the answer and then the claim were lost: the worker's next claim finds no attempt of its own."""
    id = await parts.submit()
    started = await parts.execute(id, worker="w1")
    await parts.lose_claim(id)
    claim = await parts.claim(id, worker="w1")
    again = ClaimedJob(str(id), 0, claim.lease, claim.claim_revision)
    assert await parts.starter.start("w1", [again]) == []
    assert (await parts.row(id)).fence == started.fence


# -- noticing --


async def test_an_attempt_that_starts_during_a_sweep_is_not_reaped(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts right after the claims were listed: they do not show its claim, and it must not look lost."""
    early = await alone.submit()
    await alone.execute(early)
    late = await alone.submit()
    listing = alone.etcd.list
    started: list[Any] = []

    async def list_then_start(prefix: str, **options: Any) -> Listing:
        found = await listing(prefix, **options)
        if prefix == alone.keys.claims and not started:
            started.append(await alone.execute(late))
        return found

    monkeypatch.setattr(alone.etcd, "list", list_then_start)
    assert await (await _reaper(alone)).sweep() == 0
    assert started, "not exercised: the claims were never listed"
    assert await alone.state(late) is JobState.EXECUTING


async def test_a_claim_that_vanished_while_nobody_led_is_noticed(alone: Parts) -> None:
    """No watch tells of it: only the comparison of all rows with all claims."""
    id = await alone.submit()
    await alone.execute(id)
    await alone.lose_claim(id)

    async def restarting() -> bool:
        return await alone.state(id) is JobState.RESTARTING

    async with running(leader_of(alone).run()):
        await until(restarting)
    assert await alone.outcomes(id) == ["lost"]


# -- stores lost --


async def test_after_etcd_was_lost_nothing_is_offered_for_the_longest_ttl(alone: Parts) -> None:
    """Workers may still trust claims that are gone with the old etcd."""
    running_on = await alone.submit(ttl_s=3.0)
    await alone.execute(running_on)
    waiting = await alone.submit(ttl_s=2.0)
    await _take_term(alone, cluster="another")
    await alone.register("w1")

    async def offered() -> bool:
        return bool((await alone.etcd.list(alone.keys.inbox("w1"))).items)

    async with running(leader_of(alone).run()):
        await until(offered)
        [row] = await alone.sql("SELECT epoch, claims_frozen_until, now() AS now FROM tenure.cluster")
    assert row.claims_frozen_until is not None, "not exercised: etcd was not found to be another"
    assert row.now >= row.claims_frozen_until
    assert row.epoch == 2
    assert await alone.state(running_on) is JobState.EXECUTING  # its claim is there: it goes on
    assert await alone.state(waiting) is JobState.READY


async def test_after_etcd_was_lost_claims_that_no_row_owns_are_dropped(alone: Parts) -> None:
    """A snapshot brought back a claim that had been released, on a lease that an idle worker still renews."""
    id = await alone.submit()
    await alone.claim(id, ttl_s=600.0)
    await _take_term(alone, cluster="another")

    async def dropped() -> bool:
        return await alone.claim_of(id) is None

    async with running(leader_of(alone).run()):
        await until(dropped)
