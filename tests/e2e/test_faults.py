"""What happens to jobs when something dies. The long and random mixtures are in the chaos suite."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.e2e.conftest import Setting, either_link

from tenure.cli.embedded.etcd import EtcdCluster
from tenure.client import AsyncClient, NewJob
from tenure.model.errors import Unavailable
from tenure.model.fence import epoch_of
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import HoldValue, Keyspace
from tenure.store.etcd.port import Delete, Put, Txn


@either_link
async def test_a_killed_workers_job_runs_elsewhere(stage: Setting) -> None:
    """SIGKILL: the claim expires, the attempt is recorded as lost, and another worker starts the job."""
    on = await stage(workers=2)
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=2)
    first = await on.executing(job.id)
    assert first.claim is not None
    on.member(first.claim.worker).kill()
    second = await on.executing(job.id, attempt=2)
    assert second.claim is not None
    assert second.claim.worker != first.claim.worker
    assert second.fence > first.fence
    assert (second.crashes, second.errors) == (1, 0)
    lost, executing = await on.client.attempts(job.id)
    assert (lost.outcome, lost.worker) == ("lost", first.claim.worker)
    assert executing.outcome is None


@either_link
async def test_a_paused_worker_can_change_nothing(stage: Setting) -> None:
    """SIGSTOP past the TTL, then SIGCONT: the zombie's end is refused, its process handler was killed meanwhile."""
    on = await stage(workers=2)
    job = await on.client.submit("process-hold-on", {"seconds": 4}, ttl_s=2)
    first = await on.executing(job.id)
    assert first.claim is not None
    zombie = on.member(first.claim.worker)

    async def at_work() -> bool:
        return bool(on.lines(job.id))

    await on.until(at_work)
    zombie.pause(tree=False)
    second = await on.executing(job.id, attempt=2)
    zombie.resume()
    done = await on.client.wait(job.id)
    assert (done.state, done.attempt, done.fence) == ("completed", 2, second.fence)
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["lost", "completed"]
    last_of_first = max(line.at for line in on.lines(job.id) if line.attempt == 1)
    first_of_second = min(line.at for line in on.lines(job.id) if line.attempt == 2)
    assert last_of_first < first_of_second, "the watchdog kills the handler of a stopped worker before the take-over"


@either_link
async def test_a_poison_job_ends(stage: Setting) -> None:
    """A job whose worker dies each time fails after ``max_crashes``, with its story."""
    on = await stage(workers=3)
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=2, max_crashes=2)
    for attempt in (1, 2):
        executing = await on.executing(job.id, attempt=attempt)
        assert executing.claim is not None
        on.member(executing.claim.worker).kill()
    done = await on.client.wait(job.id)
    assert (done.state, done.crashes, done.errors) == ("failed", 2, 0)
    assert "lost its worker 2 times" in done.reason


@either_link
async def test_any_coordinator_may_die(stage: Setting) -> None:
    """The leader is killed while jobs flow; the other one leads, and nothing is lost or doubled."""
    on = await stage(coordinators=2, workers=2)
    cluster = await on.client.cluster()
    leader = next(one for one in on.deployment.coordinators if one.id == cluster.leader)
    before = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(500)])
    leader.kill()
    after = [await on.client.submit("trace", n) for n in range(20)]
    done = await on.client.wait_many([*(job.id for job in before), *(job.id for job in after)])
    assert {job.state for job in done} == {"completed"}
    assert set(on.runs()) == {job.id for job in done}
    assert (await on.client.cluster()).leader != cluster.leader


async def test_a_leader_that_steps_down_is_followed_at_once(stage: Setting) -> None:
    """SIGTERM: the key is deleted, not left to expire (the TTL is an hour)."""
    on = await stage(coordinators=2, env={"TENURE_LEADER_TTL_S": "3600"})
    cluster = await on.client.cluster()
    leader = next(one for one in on.deployment.coordinators if one.id == cluster.leader)
    await asyncio.to_thread(leader.stop, 20.0)
    job = await on.client.submit("trace", 1)
    assert (await on.client.wait(job.id)).state == "completed"


@either_link
async def test_a_worker_drains(stage: Setting) -> None:
    """SIGTERM: what runs may finish, nothing new is taken, and the process ends."""
    on = await stage(workers=1)
    job = await on.client.submit("hold-on", {"seconds": 1.5})
    await on.executing(job.id)
    (worker,) = on.deployment.workers
    worker.terminate()
    later = await on.client.submit("trace", 1)
    done = await on.client.wait(job.id)
    assert (done.state, done.attempt) == ("completed", 1)
    assert await asyncio.to_thread(worker.wait, 20.0)
    assert worker.exit_code == 0
    assert (await on.client.get(later.id)).state == "ready"


@either_link
async def test_what_outlives_the_drain_is_handed_back(stage: Setting) -> None:
    """After the grace period the attempt is released: no error, no crash, and another worker has it."""
    on = await stage(workers=2, args=("--grace", "1s"))
    job = await on.client.submit("hold-on", {"seconds": 600})
    first = await on.executing(job.id)
    assert first.claim is not None
    on.member(first.claim.worker).terminate()
    second = await on.executing(job.id, attempt=2)
    assert (second.errors, second.crashes) == (0, 0)
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["released", None]


@either_link
async def test_a_hold_stops_a_job_and_keeps_it_stopped(stage: Setting) -> None:
    """The kill switch in etcd; taken away, the job goes on."""
    on = await stage(workers=2)
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))
    job = await on.client.submit("hold-on", {"seconds": 600})
    await on.executing(job.id)
    await etcd.txn(Txn((), (Put(keys.hold(job.id), HoldValue("runaway").to_json()),)))

    async def stopped() -> bool:
        return (await on.client.get(job.id)).state == "ready" and await etcd.get(keys.claim(job.id)) is None

    await on.until(stopped)
    other = await on.client.submit("trace", 1)  # dispatch has gone round at least once when this one is done
    await on.client.wait(other.id)
    assert (await on.client.get(job.id)).attempt == 1
    await etcd.txn(Txn((), (Delete(keys.hold(job.id)),)))
    again = await on.executing(job.id, attempt=2)
    assert (again.errors, again.crashes) == (0, 0)
    await etcd.close()


@either_link
async def test_a_revoked_claim_moves_the_job(stage: Setting) -> None:
    """An operator takes a job away; it restarts, and nobody is blamed."""
    on = await stage(workers=2)
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=2)
    first = await on.executing(job.id)
    assert await on.client.revoke_claim(job.id)
    second = await on.executing(job.id, attempt=2)
    assert second.fence > first.fence
    assert (second.errors, second.crashes) == (0, 0)
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["released", None]


@pytest.mark.parametrize("by", ["deleting the claim", "revoking its lease"])
async def test_a_claim_taken_with_etcds_own_tools_is_no_crash(stage: Setting, by: str) -> None:
    """The worker lives, so the attempt is released, and the job restarts once the old TTL has passed."""
    on = await stage(workers=2)
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=2, max_crashes=1)
    first = await on.executing(job.id)
    claim = await etcd.get(keys.claim(job.id))
    assert claim is not None
    if by == "revoking its lease":
        await etcd.revoke(claim.lease)
    else:
        await etcd.txn(Txn((), (Delete(claim.key),)))
    second = await on.executing(job.id, attempt=2)
    assert second.fence > first.fence
    assert (second.errors, second.crashes) == (0, 0)
    attempts = await on.client.attempts(job.id)
    assert [one.outcome for one in attempts] == ["released", None]
    assert attempts[0].finished_at is not None and attempts[1].started_at is not None
    assert (attempts[1].started_at - attempts[0].finished_at).total_seconds() >= 2
    await etcd.close()


@either_link
async def test_a_cancel_reaches_a_worker_whose_session_had_lapsed(stage: Setting) -> None:
    """Nobody could be asked when the cancel came; the sweep reminds the worker once it is back."""
    on = await stage(workers=1, env={"TENURE_WORKER_SESSION_TTL_S": "2"})
    (worker,) = on.deployment.workers
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=30)
    await on.executing(job.id)
    worker.pause(tree=False)
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))

    async def lapsed() -> bool:
        return await etcd.get(keys.worker(worker.id)) is None

    await on.until(lapsed)
    await on.client.cancel(job.id)
    worker.resume()
    assert (await on.client.wait(job.id)).state == "canceled"
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["canceled"]
    await etcd.close()


@either_link
async def test_postgres_restarts_under_load(stage: Setting) -> None:
    """Connections are cut; running jobs keep their claims and report when it is back."""
    on = await stage(own_stores=True, workers=2)
    running = await on.client.submit("hold-on", {"seconds": 3})
    await on.executing(running.id)
    before = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(200)])
    assert on.deployment.postgres is not None
    await asyncio.to_thread(on.deployment.postgres.restart)
    after = await on.client.submit("trace", "after")
    done = await on.client.wait_many([running.id, *(job.id for job in before), after.id])
    assert {job.state for job in done} == {"completed"}
    assert (await on.client.get(running.id)).attempt == 1


@either_link
async def test_etcd_restarts_under_load(stage: Setting) -> None:
    """The data stays; every lease begins anew, so that nothing running is lost."""
    on = await stage(own_stores=True, workers=2)
    running = await on.client.submit("hold-on", {"seconds": 3})
    await on.executing(running.id)
    assert on.deployment.etcd is not None
    await asyncio.to_thread(on.deployment.etcd.restart)
    after = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(100)])
    done = await on.client.wait_many([running.id, *(job.id for job in after)])
    assert {job.state for job in done} == {"completed"}


async def test_a_coordinator_stops_when_told(stage: Setting) -> None:
    """SIGTERM ends it cleanly; a client that talks to it is told Unavailable."""
    on = await stage(coordinators=1, workers=0)
    (coordinator,) = on.deployment.coordinators
    await asyncio.to_thread(coordinator.stop, 20.0)
    assert coordinator.exit_code == 0
    async with AsyncClient(on.deployment.coordinator_addresses[0], timeout_s=1.0) as client:
        with pytest.raises(Unavailable):
            await client.cluster()


@either_link
async def test_etcd_may_be_lost_whole(stage: Setting) -> None:
    """Its data erased: the epoch rises, what ran is released or reaped, and the queue goes on from Postgres."""
    on = await stage(own_stores=True, coordinators=2, workers=2)
    assert on.deployment.etcd is not None
    running = [await on.client.submit("hold-on", {"seconds": 3}, ttl_s=2) for _ in range(5)]
    before = [await on.executing(job.id) for job in running]
    await asyncio.to_thread(on.deployment.etcd.kill)
    await asyncio.to_thread(on.deployment.etcd.erase)
    await asyncio.to_thread(on.deployment.etcd.start)
    later = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(100)])
    done = await on.client.wait_many([*(job.id for job in running), *(job.id for job in later)])
    assert {job.state for job in done} == {"completed"}
    assert (await on.client.cluster()).epoch == 2
    again = await on.client.wait(running[0].id)
    if again.attempt > 1:  # it may also have finished in time: then its first fence stands
        assert epoch_of(again.fence) == 2
    assert {epoch_of(job.fence) for job in before} == {1}
    assert set(on.runs().values()) == {1}


async def test_a_member_of_etcd_may_die(stage: Setting, etcd_cluster: EtcdCluster) -> None:
    """Three members, the leading one killed while jobs run: nothing is lost, and what runs goes on."""
    on = await stage(etcd_endpoints=etcd_cluster.endpoints, coordinators=2, workers=2)
    running = await on.client.submit("hold-on", {"seconds": 4}, ttl_s=5)
    await on.executing(running.id)
    before = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(200)])
    leader = await asyncio.to_thread(etcd_cluster.leader)
    await asyncio.to_thread(etcd_cluster.kill, leader)
    after = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(200)])
    done = await on.client.wait_many([running.id, *(job.id for job in before), *(job.id for job in after)])
    assert {job.state for job in done} == {"completed"}
    assert (await on.client.get(running.id)).attempt == 1
    assert set(on.runs()) == {job.id for job in (*before, *after)}


async def test_etcd_may_be_set_back(stage: Setting, tmp_path: Path) -> None:
    """Restored from an older snapshot: claims that had been released are back, and block nobody."""
    on = await stage(own_stores=True, coordinators=2, workers=2)
    etcd = on.deployment.etcd
    assert etcd is not None
    old = await on.client.submit("hold-on", {"seconds": 2}, ttl_s=60)
    await on.executing(old.id)
    data = next(on.deployment.folder.path.glob("etcd/*/member")).parent
    await asyncio.to_thread(etcd.stop)
    shutil.copytree(data, tmp_path / "snapshot")
    await asyncio.to_thread(etcd.start)
    assert (await on.client.wait(old.id)).state == "completed"
    between = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(50)])
    await on.client.wait_many([job.id for job in between])
    watcher = connect(etcd.endpoints)
    reached = (await watcher.status()).revision
    await watcher.close()

    async def remembered() -> bool:  # the leader looks once a second
        return bool(await on.postgres("SELECT etcd_revision FROM tenure.cluster") >= reached)

    await on.until(remembered)
    await asyncio.to_thread(etcd.kill)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "snapshot", data)
    await asyncio.to_thread(etcd.start)
    later = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(50)])
    done = await on.client.wait_many([job.id for job in later])
    assert {job.state for job in done} == {"completed"}
    assert {epoch_of(job.fence) for job in done} == {2}

    async def released() -> bool:  # the record comes first, the claim goes second
        return await on.client.claims() == []

    await on.until(released)
