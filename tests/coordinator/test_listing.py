"""Listings of jobs over gRPC: pages of bounded work that find all there is, and what was deleted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running
from tests.coordinator.test_retain import DAY_S, ended, policy, retainer_of

from tenure.client import AsyncClient, JobState, NotFound
from tenure.coordinator import listing
from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.model.states import Outcome
from tenure.v1 import job_service_pb2 as pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub


@pytest_asyncio.fixture
async def client(alone: Parts) -> AsyncIterator[AsyncClient]:
    jobs = alone.job_service()
    server = GrpcServer((jobs, AuditService(alone.db)), listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with running(jobs.run(), alone.submitter.run()), AsyncClient(server.address) as made:
        yield made
        await server.stop(0)


async def test_what_is_rare_is_found_over_many_short_pages(
    alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "WINDOW_JOBS", 5)
    rare = set()
    for n in range(40):
        kind = "rare" if n in (3, 4, 22) else "k"
        id = await (alone.submit(kind=kind) if n % 4 == 0 else ended(alone, 3_600.0 * n, kind=kind))
        if kind == "rare":
            rare.add(str(id))
    assert {job.id async for job in client.list(kind="rare", page_size=2)} == rare
    assert len([job async for job in client.list(kind="rare", limit=2, page_size=2)]) == 2
    assert len([job async for job in client.list(page_size=3)]) == 40
    assert [job.id async for job in client.list(page_size=3)] == sorted(
        [job.id async for job in client.list(page_size=3)], reverse=True
    )
    stub = JobServiceStub(client._link._peer().channel)
    page = await stub.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(kind="none"), page_size=5))
    assert not page.jobs and page.next_page_token, "nothing yet, and there is more to look at"


async def test_jobs_are_listed_by_the_time_of_their_end(alone: Parts, client: AsyncClient) -> None:
    ids = [str(await ended(alone, days * DAY_S)) for days in (0.5, 1.5, 8.5, 30.5)]
    await alone.submit()
    now = datetime.now(UTC)

    async def between(most_days: float | None, least_days: float | None) -> list[str]:
        after = now - timedelta(days=most_days) if most_days is not None else None
        before = now - timedelta(days=least_days) if least_days is not None else None
        return [job.id async for job in client.list(finished_after=after, finished_before=before)]

    assert await between(2, None) == ids[:2]
    assert await between(None, 1) == ids[1:]
    assert await between(10, 1) == ids[1:3]
    assert await between(100, 90) == []
    assert len([job async for job in client.list()]) == 5


async def test_states_and_times_of_creation_find_the_same_as_before(alone: Parts, client: AsyncClient) -> None:
    old, failed = await ended(alone, 3 * DAY_S), await ended(alone, 2 * DAY_S, state="failed")
    ready = await alone.submit()
    assert [job.id async for job in client.list(states=["failed"])] == [str(failed)]
    assert [job.id async for job in client.list(states=["ready", "executing"])] == [str(ready)]
    assert [job.id async for job in client.list(states=["ready", "failed"])] == [str(ready), str(failed)]
    then = datetime.now(UTC) - timedelta(days=2.5)
    assert [job.id async for job in client.list(created_before=then)] == [str(old)]
    assert [job.id async for job in client.list(created_after=then)] == [str(ready), str(failed)]
    far = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    assert len([job async for job in client.list(created_after=far[0], created_before=far[1])]) == 3
    assert len([job async for job in client.list(finished_after=far[0], finished_before=far[1])]) == 2


async def test_deleted_jobs_are_listed_on_demand_until_retention_removes_them(
    alone: Parts, client: AsyncClient
) -> None:
    canceled = str(await alone.submit())
    await client.cancel(canceled, "wrong month")
    dead = await alone.submit()
    await alone.finish(dead, (await alone.execute(dead)).fence, Outcome.FAILED, retryable=False)
    for id in (canceled, str(dead)):
        assert (await client.get(id)).deleted_at is None
        deleted = await client.delete(id)
        assert deleted.deleted_at is not None
        again = await client.delete(id)
        assert again.deleted_at == deleted.deleted_at, "the first time counts"
    assert [job.id async for job in client.list()] == []
    shown = {job.id: job async for job in client.list(include_deleted=True)}
    assert {job.state for job in shown.values()} == {JobState.CANCELED, JobState.FAILED}
    assert all(job.deleted_at is not None for job in shown.values())
    letters = [job.id async for job in client.list(states=["failed", "canceled"], include_deleted=True)]
    assert set(letters) == set(shown)
    assert (await client.retry_many(all=True, preview=True)).retried == 0, "what was deleted is not retried with others"
    assert (await client.get(canceled)).reason == "wrong month"
    told = [entry.target async for entry in client.audit(action="jobs.delete")]
    assert set(told) == {canceled, str(dead)}
    gone = await ended(alone, 3 * DAY_S, deleted=True)
    await policy(alone, 2 * DAY_S)
    assert await (await retainer_of(alone)).round() == 1
    with pytest.raises(NotFound):
        await client.get(str(gone))
    removed = [entry.detail["first"] async for entry in client.audit(action="retention.remove")]
    assert removed == [str(gone)]
    assert len([job async for job in client.list(include_deleted=True)]) == 2
    assert uuid.UUID(canceled)
