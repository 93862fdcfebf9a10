"""LimitService, PoolService, NamespaceService and ExplainJob over gRPC, on real stores."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from tests.coordinator.conftest import Parts, running
from tests.coordinator.test_grpc import refused

from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.hint import EVERYWHERE
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.claims import ClaimRequest, claim_batch
from tenure.store.etcd.port import Put, Txn
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import limit_service_pb2 as limits_pb
from tenure.v1 import namespace_service_pb2 as namespaces_pb
from tenure.v1 import pool_service_pb2 as pools_pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub
from tenure.v1.limit_service_pb2_grpc import LimitServiceStub
from tenure.v1.namespace_service_pb2_grpc import NamespaceServiceStub
from tenure.v1.pool_service_pb2_grpc import PoolServiceStub


class Services:
    """The stubs, and the parts behind them."""

    def __init__(self, parts: Parts, channel: grpc.aio.Channel) -> None:
        self.parts = parts
        self.jobs = JobServiceStub(channel)
        self.limits = LimitServiceStub(channel)
        self.pools = PoolServiceStub(channel)
        self.namespaces = NamespaceServiceStub(channel)

    async def put(self, **limit: Any) -> limits_pb.Limit:
        """Define a limit."""
        answer = await self.limits.PutLimit(limits_pb.PutLimitRequest(limit=limits_pb.Limit(**limit)))
        made: limits_pb.Limit = answer.limit
        return made


@pytest_asyncio.fixture
async def services(alone: Parts) -> AsyncIterator[Services]:
    jobs = alone.job_service()
    made = (
        jobs,
        LimitService(alone.db, alone.etcd, alone.keys, alone.hints, alone.audit),
        PoolService(alone.db, alone.etcd, alone.keys, alone.lanes, alone.hints, alone.canceler, alone.audit),
        NamespaceService(alone.db, alone.hints, alone.audit),
    )
    server = GrpcServer(made, listen="127.0.0.1:0", with_reflection=True)
    await server.start()
    async with running(jobs.run()), grpc.aio.insecure_channel(server.address) as channel:
        yield Services(alone, channel)
        await server.stop(0)


async def test_a_limit_is_put_changed_listed_and_deleted(services: Services) -> None:
    parts = services.parts
    await services.put(name="db", concurrent=2)
    made = await services.put(name="scan:*", concurrent=1, rate=10, interval=Duration(seconds=60), burst=3)
    assert (made.concurrent, made.rate, made.interval.seconds, made.burst) == (1, 10, 60, 3)
    changed = await services.put(name="db", rate=5)
    assert (changed.HasField("concurrent"), changed.rate, changed.interval.seconds) == (False, 5, 1)
    assert parts.hinted == [EVERYWHERE] * 3
    lease = (await parts.etcd.grant(60.0)).lease
    await claim_batch(parts.etcd, parts.keys, [ClaimRequest("j", lease, b"{}", ("scan:acme/0", "db/1"))])
    await parts.etcd.txn(Txn((), (Put(parts.keys.slots + "by hand", b"", lease),)))
    listed = await services.limits.ListLimits(limits_pb.ListLimitsRequest())
    assert [limit.name for limit in listed.limits] == ["db", "scan:*"]
    assert {use.name: use.held for use in listed.uses} == {"db": 1, "scan:acme": 1}
    one = await services.limits.GetLimit(limits_pb.GetLimitRequest(name="scan:*"))
    assert [(use.name, use.held) for use in one.uses] == [("scan:acme", 1)]
    for deleted in (True, False):
        answer = await services.limits.DeleteLimit(limits_pb.DeleteLimitRequest(name="db"))
        assert answer.deleted is deleted
    code, _, _ = await refused(services.limits.GetLimit(limits_pb.GetLimitRequest(name="db")))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({}, "limit.name"),
        ({"name": "a"}, "limit.concurrent"),
        ({"name": "a\x00", "concurrent": 1}, "limit.name"),
        ({"name": "a", "rate": 1, "interval": Duration(seconds=-1)}, "limit.interval"),
        ({"name": "a", "concurrent": 1, "burst": 1}, "limit.burst"),
    ],
)
async def test_a_bad_limit_is_refused_and_nothing_written(services: Services, limit: Any, field: str) -> None:
    request = limits_pb.PutLimitRequest(limit=limits_pb.Limit(**limit))
    code, fields, _ = await refused(services.limits.PutLimit(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields
    assert await services.parts.db.fetch("limits") == []


async def test_pauses_and_pools(services: Services) -> None:
    parts = services.parts
    await parts.register("w1", pools=("default",))
    await parts.lanes.register_pools(["default"])
    executing = await parts.submit(route="default/x/deep")
    await parts.execute(executing)
    await parts.submit(route="default/x")
    subject = pools_pb.PauseSubject(pool="default/x")
    for _ in range(2):  # once more with another reason
        answer = await services.pools.Pause(pools_pb.PauseRequest(subject=subject, reason="closed"))
        assert answer.executing == 1
    [pause] = (await services.pools.ListPauses(pools_pb.ListPausesRequest())).pauses
    assert (pause.subject.pool, pause.reason, pause.executing) == ("default/x", "closed", 1)
    pools = {pool.path: pool for pool in (await services.pools.ListPools(pools_pb.ListPoolsRequest())).pools}
    assert {path: (p.workers, p.ready, p.executing, p.paused) for path, p in pools.items()} == {
        "default": (1, 1, 1, False),
        "default/x": (1, 1, 1, True),
    }
    for resumed in (True, False):
        assert (await services.pools.Resume(pools_pb.ResumeRequest(subject=subject))).resumed is resumed
    await services.pools.Pause(pools_pb.PauseRequest(subject=pools_pb.PauseSubject(kind="k")))
    await services.pools.Pause(pools_pb.PauseRequest(subject=pools_pb.PauseSubject(namespace="default")))
    found = (await services.pools.ListPauses(pools_pb.ListPausesRequest())).pauses
    assert [(p.subject.WhichOneof("subject"), p.executing) for p in found] == [("kind", 1), ("namespace", 1)]


async def test_a_pause_that_is_resumed_before_it_is_answered_says_so(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, subject = services.parts.db, pools_pb.PauseSubject(kind="k")
    fetch = database.fetch

    async def resumed_meanwhile(name: str, params: Any = None) -> Any:
        if name == "pauses":
            await fetch("resume", {"subject": "kind", "name": "k"})
        return await fetch(name, params)

    monkeypatch.setattr(database, "fetch", resumed_meanwhile)
    code, _, message = await refused(services.pools.Pause(pools_pb.PauseRequest(subject=subject)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "resumed" in message


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pools_pb.PauseRequest(), "subject"),
        (pools_pb.PauseRequest(subject=pools_pb.PauseSubject(pool="A//b")), "subject.pool"),
        (pools_pb.PauseRequest(subject=pools_pb.PauseSubject(kind="")), "subject.kind"),
        (pools_pb.PauseRequest(subject=pools_pb.PauseSubject(namespace="a b")), "subject.namespace"),
        (pools_pb.PauseRequest(subject=pools_pb.PauseSubject(kind="k"), reason="x" * 513), "reason"),
        (pools_pb.PauseRequest(subject=pools_pb.PauseSubject(kind="k"), reason="\x00"), "reason"),
    ],
)
async def test_a_bad_pause_is_refused(services: Services, request_: pools_pb.PauseRequest, field: str) -> None:
    code, fields, _ = await refused(services.pools.Pause(request_))
    assert (code, list(fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_namespaces(services: Services) -> None:
    update, get = services.namespaces.UpdateNamespace, services.namespaces.GetNamespace
    unset = await get(namespaces_pb.GetNamespaceRequest(name="acme"))
    assert unset.namespace.weight == 1
    made = await update(
        namespaces_pb.UpdateNamespaceRequest(namespace=namespaces_pb.Namespace(name="acme", weight=2.5))
    )
    assert made.namespace.weight == 2.5
    kept = await update(namespaces_pb.UpdateNamespaceRequest(namespace=namespaces_pb.Namespace(name="acme")))
    assert kept.namespace.weight == 2.5
    listed = await services.namespaces.ListNamespaces(namespaces_pb.ListNamespacesRequest())
    assert [(one.name, one.weight) for one in listed.namespaces] == [("acme", 2.5)]
    for ageing, kept_s in ((Duration(seconds=90), 90), (None, 90), (Duration(), None)):
        asked = namespaces_pb.Namespace(name="acme", ageing=ageing)
        told = (await update(namespaces_pb.UpdateNamespaceRequest(namespace=asked))).namespace
        assert (told.ageing.seconds if told.HasField("ageing") else None, told.weight) == (kept_s, 2.5)
    for backlog, kept in ((5, 5), (None, 5), (0, None)):
        asked = namespaces_pb.Namespace(name="acme", backlog=backlog)
        told = (await update(namespaces_pb.UpdateNamespaceRequest(namespace=asked))).namespace
        assert (told.backlog if told.HasField("backlog") else None, told.weight) == (kept, 2.5)
    for rate, kept_rate in ((2.5, 2.5), (None, 2.5), (0.0, None)):
        asked = namespaces_pb.Namespace(name="acme", submit_rate=rate, submit_burst=7)
        told = (await update(namespaces_pb.UpdateNamespaceRequest(namespace=asked))).namespace
        assert (told.submit_rate if told.HasField("submit_rate") else None, told.submit_burst) == (kept_rate, 7)
    for bad, field in (
        ({"name": "a", "submit_rate": -1.0}, "namespace.submit_rate"),
        ({"name": "a", "submit_rate": math.nan}, "namespace.submit_rate"),
        ({"name": "a", "submit_rate": math.inf}, "namespace.submit_rate"),
        ({"name": "a", "submit_rate": 1e-300}, "namespace.submit_rate"),
        ({"name": "a", "submit_burst": -1}, "namespace.submit_burst"),
        ({"name": "a", "submit_burst": 2**62}, "namespace.submit_burst"),
        ({"name": "a", "backlog": -1}, "namespace.backlog"),
        ({"name": "A"}, "namespace.name"),
        ({"name": "a", "weight": 0}, "namespace.weight"),
        ({"name": "a", "ageing": Duration(nanos=1)}, "namespace.ageing"),
        ({"name": "a", "ageing": Duration(seconds=-1)}, "namespace.ageing"),
        ({"name": "a", "ageing": Duration(seconds=367 * 86_400)}, "namespace.ageing"),
    ):
        request = namespaces_pb.UpdateNamespaceRequest(namespace=namespaces_pb.Namespace(**bad))
        code, fields, _ = await refused(update(request))
        assert (code, list(fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_a_job_is_explained(services: Services) -> None:
    parts = services.parts

    async def why(id: object) -> tuple[str, list[str]]:
        answer = await services.jobs.ExplainJob(jobs_pb.ExplainJobRequest(id=str(id)))
        return answer.summary, [one.code for one in answer.obstacles]

    id = await parts.submit(limits=("db",), requires={"gpu": "yes"})
    child = await parts.submit(depends_on=(str(id),))
    later = await parts.submit(delay_s=3_600)
    assert (await why(id))[1] == ["no_worker"]
    assert await why(child) == (f"it waits for 1 job that it depends on: {id}", ["waiting"])
    await parts.register("w1", capacity=2, labels={"gpu": "yes"})
    assert await why(id) == (
        "nothing is in its way: it waits for its turn behind jobs of a higher priority or an earlier time",
        [],
    )
    assert (await why(later))[1] == ["not_due"]
    await services.put(name="db", concurrent=0)
    assert (await why(id))[1] == ["limit"]
    await parts.etcd.txn(Txn((), (Put(parts.keys.hold(str(id)), b'{"reason":"broken"}'),)))
    assert (await why(id))[1] == ["held", "limit"]
    started = await parts.execute(later)
    assert (await why(later))[0] == "it executes on worker w1, attempt 1"
    await parts.finish(later, started.fence)
    assert await why(later) == ("it is completed", [])
    code, _, _ = await refused(services.jobs.ExplainJob(jobs_pb.ExplainJobRequest(id=str(id).replace("-", "0")[:36])))
    assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


async def test_removing_a_pool_cancels_its_jobs_and_forgets_it(services: Services) -> None:
    parts = services.parts
    await parts.lanes.register_pools(["p", "p/q", "pq"])
    subject = pools_pb.PauseSubject(pool="p/q")
    await services.pools.Pause(pools_pb.PauseRequest(subject=subject))
    executing = await parts.submit(route="p")
    started = await parts.execute(executing, worker="w0")
    idle = [await parts.submit(route=route) for route in ("p", "p/q/r", "p/q")]
    other = await parts.submit(route="pq")
    preview = await services.pools.RemovePool(pools_pb.RemovePoolRequest(pool="p", preview=True))
    assert (preview.canceled, preview.asked, preview.removed) == (3, 1, False)
    worker = await parts.register("w1", pools=("p/q",))
    refusal = await refused(services.pools.RemovePool(pools_pb.RemovePoolRequest(pool="p")))
    assert refusal[0] is grpc.StatusCode.FAILED_PRECONDITION
    await parts.etcd.revoke(worker)
    first = await services.pools.RemovePool(pools_pb.RemovePoolRequest(pool="p", reason="moved"))
    assert (first.canceled, first.asked, first.left, first.removed) == (3, 1, 1, False)
    assert {await parts.state(id) for id in idle} == {JobState.CANCELED}
    assert await parts.state(other) is JobState.READY
    await parts.finish(executing, started.fence, Outcome.CANCELED)
    last = await services.pools.RemovePool(pools_pb.RemovePoolRequest(pool="p"))
    assert (last.left, last.removed) == (0, True)
    assert [pool.path for pool in (await services.pools.ListPools(pools_pb.ListPoolsRequest())).pools] == ["pq"]
    assert not (await services.pools.ListPauses(pools_pb.ListPausesRequest())).pauses
    code, fields, _ = await refused(services.pools.RemovePool(pools_pb.RemovePoolRequest(pool="/")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(fields) == ["pool"]
