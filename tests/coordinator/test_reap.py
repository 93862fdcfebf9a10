"""Reap: attempts that lost their claims, outlived their time or were not to go on; on real stores."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from tests.coordinator.conftest import WORKER, Parts, reaper_of, running, until
from tests.coordinator.stage import begin_watch

from tenure.coordinator import reap
from tenure.coordinator.finish import Report
from tenure.model.errors import Deposed, Unavailable
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.port import Delete, Put, Txn


async def test_a_sweep_reaps_what_has_lost_its_own_claim_and_nothing_else(alone: Parts) -> None:
    kept, lost, replaced = [await alone.submit() for _ in range(3)]
    for id in (kept, lost, replaced):
        await alone.execute(id)
    await alone.lose_claim(lost)
    await alone.lose_claim(replaced)
    await alone.claim(replaced, worker="w2")  # identity counts, not existence
    watchman = await begin_watch(alone)
    assert await watchman.reaper.sweep() == 2
    assert await watchman.reaper.sweep() == 0
    assert [await alone.state(id) for id in (kept, lost, replaced)] == [
        JobState.EXECUTING,
        JobState.RESTARTING,
        JobState.RESTARTING,
    ]
    assert await alone.outcomes(lost) == ["lost"]
    row = await alone.row(lost)
    assert (row.crashes, row.errors) == (1, 0)
    assert "WorkerLost" in row.error
    assert watchman.suspects.count("w1") == 1
    assert watchman.brakes == []
    assert await alone.claim_of(replaced) is not None  # not its claim: not its to delete


async def test_pages_of_rows_are_compared_with_one_listing(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are kept at a time; and ends are written a page at a time."""
    monkeypatch.setattr(reap, "PAGE_JOBS", 2)
    monkeypatch.setattr(reap, "SWEEP_JOBS", 4)
    jobs = [await alone.submit() for _ in range(7)]
    for id in jobs:
        await alone.execute(id)
    for id in jobs[1:]:
        await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    asked: Counter[str] = Counter()
    listed, fetch = alone.etcd.list, alone.db.fetch

    async def counting(prefix: str, **options: Any) -> Any:
        asked[prefix] += 1
        return await listed(prefix, **options)

    async def counting_pages(name: str, params: Any = None) -> Any:
        asked[name] += 1
        return await fetch(name, params)

    monkeypatch.setattr(alone.etcd, "list", counting)
    monkeypatch.setattr(alone.db, "fetch", counting_pages)
    assert await watchman.reaper.sweep() == 6
    assert (asked["executing_page"], asked[alone.keys.claims]) == (4, 2)
    assert [await alone.state(id) for id in jobs] == [JobState.EXECUTING, *[JobState.RESTARTING] * 6]


async def test_ends_of_one_page_are_told_though_the_next_is_not_written(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are executing no more: no later sweep would find them, nor tell who waits for the jobs."""
    monkeypatch.setattr(reap, "PAGE_JOBS", 1)
    jobs = [await alone.submit(max_crashes=1) for _ in range(2)]
    for id in jobs:
        await alone.execute(id)
        await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    write = alone.finisher.write
    calls = 0

    async def once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Unavailable("Postgres is away")
        return await write(*args, **options)

    monkeypatch.setattr(alone.finisher, "write", once)
    with pytest.raises(Unavailable):
        await watchman.reaper.sweep()
    assert await alone.done(jobs[0]) is not None
    assert await watchman.reaper.sweep() == 1
    assert await alone.done(jobs[1]) is not None


async def test_a_vanished_claim_is_noticed_by_the_watch(alone: Parts) -> None:
    id, released = await alone.submit(), await alone.submit()
    await alone.execute(id)
    started = await alone.execute(released)
    await alone.finish(released, started.fence)
    await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    async with running(watchman.reaper.watch_forever()):
        watchman.reaper.claim_gone(str(released))
        watchman.reaper.claim_gone(str(id))

        async def reaped() -> bool:
            return await alone.state(id) is JobState.RESTARTING

        await until(reaped)
    assert await alone.outcomes(released) == ["completed"]


async def test_a_poison_job_ends_after_its_crashes(alone: Parts) -> None:
    id = await alone.submit(max_crashes=2)
    child = await alone.submit(depends_on=(str(id),))
    watchman = await begin_watch(alone)
    for state in (JobState.RESTARTING, JobState.FAILED):
        await alone.execute(id)
        await alone.lose_claim(id)
        assert await watchman.reaper.sweep() == 1
        assert await alone.state(id) is state
    row = await alone.row(id)
    assert (row.crashes, row.errors, row.attempt) == (2, 0, 2)
    assert row.reason == "lost its worker 2 times"
    assert await alone.done(id) is not None
    assert await alone.state(child) is JobState.CANCELED


async def test_a_claim_taken_from_a_living_worker_is_no_crash(alone: Parts) -> None:
    session = await alone.register()
    id, other = await alone.submit(max_crashes=1), await alone.submit()
    await alone.execute(id)
    await alone.execute(other, worker="another")
    watchman = await begin_watch(alone)
    await alone.lose_claim(id)
    await alone.lose_claim(other)  # of a worker that is not registered
    assert await watchman.reaper.sweep() == 2
    row = await alone.row(id)
    assert (row.state, row.crashes, row.errors) == (JobState.READY, 0, 0)
    assert row.activate_at > row.created_at + timedelta(seconds=row.ttl_s)
    assert await alone.outcomes(id) == ["released"]
    assert await alone.outcomes(other) == ["lost"]
    assert watchman.suspects == ["another"]
    await alone.etcd.revoke(session)


async def test_a_session_younger_than_the_claim_proves_nothing(alone: Parts) -> None:
    """The worker died and was started again under the same name before its claims expired."""
    id = await alone.submit(max_crashes=1)
    await alone.execute(id)
    await alone.register()
    await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    assert await watchman.reaper.sweep() == 1
    assert await alone.state(id) is JobState.FAILED
    assert watchman.suspects == [WORKER]


async def test_the_sweep_reminds_a_worker_of_a_cancel_once_per_session(alone: Parts) -> None:
    id = await alone.submit()
    started = await alone.execute(id)
    await alone.canceler.cancel(id, "enough")  # nobody there to ask
    watchman = await begin_watch(alone)
    key = alone.keys.message(WORKER, started.fence)
    await watchman.reaper.sweep()
    assert await alone.etcd.get(key) is None
    for _ in range(2):
        session = await alone.register()
        await watchman.reaper.sweep()
        message = await alone.etcd.get(key)
        assert message is not None and message.lease == session
        await alone.etcd.txn(Txn((), (Delete(key),)))
        await watchman.reaper.sweep()
        assert await alone.etcd.get(key) is None, "mentioned once"
        await alone.etcd.revoke(session)


async def test_a_lost_attempt_that_was_to_be_canceled_is_canceled(alone: Parts) -> None:
    id = await alone.submit()
    await alone.execute(id)
    await alone.canceler.cancel(id, "")
    await alone.lose_claim(id)
    assert await (await begin_watch(alone)).reaper.sweep() == 1
    assert await alone.state(id) is JobState.CANCELED


async def test_a_cancel_that_its_worker_does_not_heed_ends_the_attempt_after_the_grace(alone: Parts) -> None:
    ids = [await alone.submit() for _ in range(3)]
    deaf, asked, at_work = ids
    fences = {id: (await alone.execute(id)).fence for id in ids}
    await alone.canceler.cancel(deaf, "tariff changed")
    await alone.canceler.cancel(asked, "")
    await alone.sql("UPDATE tenure.job SET cancel_requested_at = now() - interval '31 s' WHERE id = %s", deaf)
    await alone.canceler.cancel(deaf, "tariff changed")  # asking again gives no new grace
    watchman = await begin_watch(alone)
    assert await watchman.reaper.sweep() == 1
    row = await alone.row(deaf)
    assert (row.state, row.reason) == ("canceled", "canceled; its worker did not stop in time (tariff changed)")
    assert await alone.outcomes(deaf) == ["canceled"]
    assert await alone.claim_of(deaf) is None, "its worker sees that, and stops"
    assert await alone.done(deaf) is not None
    assert watchman.suspects == []
    assert (await alone.finish(deaf, fences[deaf], result="1")).verdict == "lost"
    assert [await alone.state(id) for id in (asked, at_work)] == [JobState.EXECUTING] * 2


@pytest.mark.parametrize(("attempts", "state"), [(1, JobState.FAILED), (3, JobState.READY)])
async def test_an_attempt_past_its_timeout_ends_whatever_its_claim_says(
    alone: Parts, attempts: int, state: JobState
) -> None:
    id = await alone.submit(timeout_s=1.0, retry={"max_attempts": attempts})
    young = await alone.submit(timeout_s=3600.0)
    started = await alone.execute(id)
    await alone.execute(young)
    await alone.sql("UPDATE tenure.job SET started_at = now() - interval '10 s' WHERE id = %s", id)
    assert await (await begin_watch(alone)).reaper.sweep() == 1
    assert await alone.state(id) is state
    assert await alone.claim_of(id) is None  # its worker sees that and stops
    assert await alone.outcomes(id) == ["timed_out"]
    answer = await alone.finish(id, started.fence, result="1")
    assert answer.verdict == "lost"
    assert await alone.state(young) is JobState.EXECUTING


async def test_many_workers_gone_at_once_put_the_brake_on(alone: Parts) -> None:
    ids = [await alone.submit(ttl_s=7.0 + n) for n in range(3)]
    for n, id in enumerate(ids):
        await alone.execute(id, worker=f"w{n}")
        await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    assert await watchman.reaper.sweep() == 3
    assert watchman.brakes == [9.0]
    assert sorted(watchman.suspects) == ["w0", "w1", "w2"]


async def test_losses_in_two_sweeps_shortly_after_each_other_count_together(alone: Parts) -> None:
    ids = [await alone.submit(ttl_s=7.0) for _ in range(3)]
    for n, id in enumerate(ids):
        await alone.execute(id, worker=f"w{n}")
    watchman = await begin_watch(alone)
    for lost, brakes in ((ids[:2], []), (ids[2:], [7.0])):
        for id in lost:
            await alone.lose_claim(id)
        assert await watchman.reaper.sweep() == len(lost)
        assert watchman.brakes == brakes


async def test_workers_may_report_before_timeouts_are_judged(alone: Parts) -> None:
    """They could not, while Postgres or every coordinator was away; what finished in time is not to be thrown away."""
    late, lost, canceled = [await alone.submit(timeout_s=1.0) for _ in range(3)]
    started, stopped = await alone.execute(late), await alone.execute(canceled)
    await alone.execute(lost)
    await alone.lose_claim(lost)
    await alone.canceler.cancel(canceled, "")
    await alone.sql("UPDATE tenure.job SET started_at = now() - interval '1 hour' WHERE id <> %s", canceled)
    await alone.sql("UPDATE tenure.job SET cancel_requested_at = now() - interval '1 hour' WHERE id = %s", canceled)
    reaper = await reaper_of(alone, reports_first_s=3600.0)
    assert await reaper.sweep() == 1
    assert await alone.state(lost) is JobState.RESTARTING
    assert (await alone.finish(late, started.fence)).verdict == "recorded"
    assert await alone.state(late) is JobState.COMPLETED
    assert (await alone.finish(canceled, stopped.fence, Outcome.CANCELED)).verdict == "recorded"
    assert (await alone.row(canceled)).error is None


async def test_a_claim_that_nobody_owns_for_a_while_is_given_up(alone: Parts) -> None:
    owned, idle, ended = [await alone.submit() for _ in range(3)]
    await alone.execute(owned)
    await alone.claim(idle)
    started = await alone.execute(ended)
    await alone.finisher.write(await alone.finisher._decide([Report(str(ended), started.fence, Outcome.COMPLETED)]))
    leases = {id: (await alone.claim_of(id)).lease for id in (idle, ended)}  # type: ignore[union-attr]
    reaper = await reaper_of(alone)
    assert await reaper.drop_orphans() == 0  # as yet
    assert await reaper.drop_orphans(orphaned_s=0.0) == 2
    assert [await alone.claim_of(id) is None for id in (owned, idle, ended)] == [False, True, True]
    assert await alone.etcd.time_to_live(leases[idle]) is None
    assert await alone.etcd.time_to_live(leases[ended]) is not None, "its handler may still run, under its slots"
    assert await reaper.drop_orphans(orphaned_s=0.0) == 0


async def test_a_claim_that_was_put_by_hand_is_given_up(alone: Parts) -> None:
    job = await alone.submit()
    await alone.etcd.txn(Txn((), (Put(alone.keys.claim(str(job)), b"mine"),)))
    assert await (await reaper_of(alone)).drop_orphans(orphaned_s=0.0) == 1
    assert await alone.claim_of(job) is None


async def test_a_deposed_leader_gives_up_no_claims(alone: Parts) -> None:
    job = await alone.submit()
    await alone.claim(job)
    reaper = await reaper_of(alone)
    await alone.etcd.txn(Txn((), (Put(alone.keys.leader, b"{}"),)))
    with pytest.raises(Deposed):
        await reaper.drop_orphans(orphaned_s=0.0)
    assert await alone.claim_of(job) is not None


async def test_jobs_that_end_during_a_sweep_are_no_sign_of_lost_workers(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of rows and of claims three workers finish: nobody is suspected, nothing is held back."""
    ids = [await alone.submit() for _ in range(4)]
    started = [await alone.execute(id, worker=f"w{n}") for n, id in enumerate(ids)]
    await alone.lose_claim(ids[3])
    watchman = await begin_watch(alone)
    listing = alone.etcd.list

    async def finish_then_list(*args: Any, **options: Any) -> Any:
        for id, attempt in zip(ids[:3], started[:3], strict=True):
            await alone.finish(id, attempt.fence, result="1")
        return await listing(*args, **options)

    monkeypatch.setattr(alone.etcd, "list", finish_then_list)
    assert await watchman.reaper.sweep() == 1
    assert watchman.suspects == ["w3"]
    assert watchman.brakes == []


async def test_a_leader_whose_term_is_over_reaps_nothing(alone: Parts) -> None:
    ids = [await alone.submit(max_crashes=crashes) for crashes in (1, 3)]
    for id in ids:
        await alone.execute(id)
        await alone.lose_claim(id)
    old = await begin_watch(alone, 10)
    new = await begin_watch(alone, 11)
    with pytest.raises(Deposed):
        await old.reaper.sweep()
    assert [await alone.state(id) for id in ids] == [JobState.EXECUTING] * 2
    assert await new.reaper.sweep() == 2


async def test_two_reapers_at_once_reap_each_attempt_once(alone: Parts) -> None:
    ids = [await alone.submit() for _ in range(20)]
    for id in ids:
        await alone.execute(id)
        await alone.lose_claim(id)
    watchman = await begin_watch(alone)
    assert sum(await asyncio.gather(*(watchman.reaper.sweep() for _ in range(3)))) == 20
    for id in ids:
        assert await alone.outcomes(id) == ["lost"]


async def test_a_key_that_is_no_claim_does_not_stop_the_sweep(alone: Parts) -> None:
    """Anybody with etcdctl can write one; it must not end the term, nor the coordinator."""
    id = await alone.submit()
    await alone.execute(id)
    await alone.lose_claim(id)
    await alone.etcd.txn(Txn((), (Put(alone.keys.claim("not-a-job"), b"{}"),)))
    assert await (await begin_watch(alone)).reaper.sweep() == 1


async def test_a_sweep_goes_through_many_pages(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.coordinator.reap.PAGE_JOBS", 3)
    ids = [await alone.submit() for _ in range(10)]
    for id in ids:
        await alone.execute(id)
    for id in ids[::2]:
        await alone.lose_claim(id)
    assert await (await begin_watch(alone)).reaper.sweep() == 5
    assert {await alone.state(id) for id in ids[1::2]} == {JobState.EXECUTING}


async def test_claims_that_no_row_owns_are_dropped_after_etcd_was_set_back(alone: Parts) -> None:
    owned, stray, finished = [await alone.submit() for _ in range(3)]
    await alone.execute(owned)
    await alone.claim(stray)
    started = await alone.execute(finished)
    await alone.finish(finished, started.fence)
    await alone.claim(finished)
    assert await (await begin_watch(alone)).reaper.drop_strays() == 2
    assert await alone.claim_of(owned) is not None
    assert await alone.claim_of(stray) is None
    assert await alone.claim_of(finished) is None
    assert await alone.state(owned) is JobState.EXECUTING


async def test_the_same_revision_on_another_lease_is_another_claim(alone: Parts) -> None:
    """After etcd was set back a revision comes again: only with its lease does it name one claim."""
    id = await alone.submit()
    await alone.execute(id)
    await alone.sql("UPDATE tenure.job SET lease = lease + 1 WHERE id = %s", id)
    assert await (await begin_watch(alone)).reaper.sweep() == 1
    assert await alone.claim_of(id) is not None
