"""Streamed submits, watching many jobs, deleting: the client against a real server in this process."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running, until
from tests.fixtures.network import ProxyFactory

from tenure.client import AsyncClient, NewJob, Retry, StreamedJob
from tenure.client.stream import MESSAGE_BYTES, WINDOW_BYTES
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.job_service import WATCH_GATHER_S, JobService
from tenure.coordinator.api.stream_submit import PIECE_BYTES, StreamedSubmit
from tenure.coordinator.group_commit import GROUP_BYTES
from tenure.model.errors import Conflict, InvalidInput, Locked, NotFound, WrongState
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState
from tenure.model.submit import Submitted
from tenure.store.postgres.database import Database, PoolOptions
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub


@dataclass
class Service:
    """A client of a running server, and the server's parts."""

    parts: Parts
    client: AsyncClient
    jobs: JobServiceStub
    server: GrpcServer


@pytest_asyncio.fixture
async def service(parts: Parts) -> AsyncIterator[Service]:
    jobs = parts.job_service()
    server = GrpcServer([jobs], listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    bodies = (parts.submitter.run(), jobs.run(), parts.waiters.watch(), parts.waiters.reread())
    async with (
        running(*bodies),
        AsyncClient(server.address) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Service(parts, client, JobServiceStub(channel), server)
        await server.stop(0)


async def _all(stream: AsyncIterator[StreamedJob]) -> list[StreamedJob]:
    return [one async for one in stream]


async def test_a_stream_is_answered_in_order_and_bad_jobs_fail_alone(service: Service) -> None:
    mark = str(uuid.uuid4())
    jobs = [NewJob(kind="k", payload=n, labels={"mark": mark}) for n in range(2_500)]
    jobs[7] = NewJob(kind="no spaces")
    jobs[8] = NewJob(kind="k", payload=object())  # the client itself cannot write it
    jobs[2_499] = NewJob(kind="k", depends_on=[str(uuid.uuid4())])
    made = await _all(service.client.submit_stream(jobs))
    assert [one.number for one in made] == list(range(2_500))
    assert {one.number for one in made if one.error is not None} == {7, 8, 2_499}
    bad = made[7].error
    assert isinstance(bad, InvalidInput)
    assert [violation.field for violation in bad.violations] == ["job.kind"]
    assert isinstance(made[2_499].error, InvalidInput)
    rows = await service.parts.sql(
        "SELECT id, payload::text FROM tenure.job WHERE labels @> jsonb_build_object('mark', %s::text)", mark
    )
    assert {str(row.id): int(row.payload) for row in rows} == {one.id: one.number for one in made if one.id}
    assert all(one.created for one in made if one.id)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"payload": {"é": 1}, "priority": -3, "ttl_s": 30, "timeout_s": 60, "max_crashes": 7},
        {"labels": {"b": "2", "a": "1"}, "limits": ["z", "a"], "requires": {"gpu": "yes"}, "route": "pool/x"},
        {"retry": Retry(max_attempts=5, backoff="fixed", initial_backoff_s=0.25, non_retryable=["ValueError"])},
        {"trigger": "any_finished", "upstream_failure": "fail", "namespace": "n"},
        {"ttl_s": 2.1, "timeout_s": 1_000_000.3},
        {"delay_s": 0.000_001_5},
        {"start_within_s": 60.0, "job_timeout_s": 3_600.0},
        {"unique_key": "u", "idempotency_key": "i"},
    ],
)
async def test_a_submit_is_answered_with_the_job_as_it_is_read(service: Service, asked: dict[str, Any]) -> None:
    one, *_, other = await asyncio.gather(
        service.client.submit("k", **asked), service.client.submit("other"), service.client.submit("another")
    )
    assert one == replace(await service.client.get(one.id), created=True)
    assert other == replace(await service.client.get(other.id), created=True)


async def test_a_plain_submit_is_answered_without_reading_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobService, "_read", None)
    assert (await service.client.submit("k", route="pool")).state is JobState.READY


async def test_jobs_that_are_sent_together_are_each_written_or_refused(service: Service) -> None:
    parent = await service.client.submit("parent")
    mark = str(uuid.uuid4())
    asked = [
        job_pb2.JobSpec(kind="k"),
        job_pb2.JobSpec(kind="no spaces"),
        job_pb2.JobSpec(kind="k", idempotency_key=mark),
        job_pb2.JobSpec(kind="child", depends_on=[parent.id]),
        job_pb2.JobSpec(kind="child", depends_on=[mark]),
        job_pb2.JobSpec(kind="k", idempotency_key=mark, priority=1),
    ]
    answer: pb.SubmitEachResponse = await service.jobs.SubmitEach(pb.SubmitEachRequest(jobs=asked))
    states = [one.job.state for one in answer.jobs]
    refused = [(one.refusal.status, [bad.field for bad in one.refusal.fields]) for one in answer.jobs]
    assert states == [job_pb2.JOB_STATE_READY, 0, job_pb2.JOB_STATE_READY, job_pb2.JOB_STATE_WAITING, 0, 0]
    assert refused[1] == ("INVALID_ARGUMENT", ["job.kind"])
    assert refused[4] == ("INVALID_ARGUMENT", ["job.depends_on"])
    assert refused[5] == ("ALREADY_EXISTS", [])
    assert all(one.created for one in answer.jobs if one.HasField("job"))
    again: pb.SubmitEachResponse = await service.jobs.SubmitEach(pb.SubmitEachRequest(jobs=asked[2:3]))
    assert (again.jobs[0].job.id, again.jobs[0].created) == (answer.jobs[2].job.id, False)


@pytest.mark.parametrize("jobs", [0, 1_001])
async def test_only_so_many_are_sent_together(service: Service, jobs: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.jobs.SubmitEach(pb.SubmitEachRequest(jobs=[job_pb2.JobSpec(kind="k")] * jobs))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_defect_met_by_one_job_is_told_to_it_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def submitted(specs: Sequence[JobSpec]) -> list[Submitted | Exception]:
        return [RuntimeError("a secret"), Submitted((await service.parts.submitter.submit(specs[1])).id, True)]

    monkeypatch.setattr(service.parts.submitter, "submit_together", submitted)
    answer: pb.SubmitEachResponse = await service.jobs.SubmitEach(
        pb.SubmitEachRequest(jobs=[job_pb2.JobSpec(kind="a"), job_pb2.JobSpec(kind="b")])
    )
    assert answer.jobs[0].refusal.status == "INTERNAL"
    assert "secret" not in answer.jobs[0].refusal.message
    assert answer.jobs[1].job.kind == "b"


async def test_what_one_of_several_jobs_meets_is_told_to_it_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await service.parts.submitter.submit(JobSpec(kind="k"))
    gone = Submitted(uuid.uuid4(), False)  # its key stands for a job that is kept no longer

    async def submitted(specs: Sequence[JobSpec]) -> list[Submitted | Exception]:
        return [Locked("somebody has locked the key"), gone, there._replace(written=None)]

    monkeypatch.setattr(service.parts.submitter, "submit_together", submitted)
    answer: pb.SubmitEachResponse = await service.jobs.SubmitEach(
        pb.SubmitEachRequest(jobs=[job_pb2.JobSpec(kind="k")] * 3)
    )
    assert [one.refusal.status for one in answer.jobs] == ["UNAVAILABLE", "NOT_FOUND", ""]
    assert answer.jobs[2].job.id == str(there.id)


@pytest.mark.parametrize(("kind", "bad"), [("not a kind", 10), ("not a kind", 600), ("nö", 600), ("x" * 5_000, 600)])
async def test_a_batch_with_many_bad_jobs_is_refused_with_as_many_as_there_is_room_for(
    service: Service, kind: str, bad: int
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await service.client.submit_many([NewJob(kind=kind)] * bad)
    fields = [violation.field for violation in refused.value.violations]
    assert fields == [f"jobs[{n}].kind" for n in range(len(fields))]
    assert len(fields) == 10 or ("more)" in refused.value.violations[-1].description and len(fields) > 10)


async def test_a_locked_key_holds_up_no_other_job_of_its_call(service: Service) -> None:
    key = str(uuid.uuid4())
    async with await psycopg.AsyncConnection.connect(service.parts.dsn) as connection:
        await connection.execute("SELECT tenure.submit_job('other', idempotency_key => %s)", [key])
        locked = asyncio.create_task(service.client.submit("k", idempotency_key=key))
        others = await asyncio.gather(*(service.client.submit("k") for _ in range(3)))
        assert not locked.done()
        await connection.rollback()
    assert len({job.id for job in (await locked, *others)}) == 4


async def test_jobs_that_are_sent_together_are_read_in_one_statement(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobService, "_read", None)
    later = await asyncio.gather(*(service.client.submit("k", delay_s=60.0) for _ in range(5)))
    assert len({job.id for job in later}) == 5


async def test_jobs_sent_together_that_need_a_transaction_of_their_own_do_not_wait_for_each_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = 0
    all_entered = asyncio.Event()
    submit_batch = service.parts.submitter.submit_batch

    async def submitted(specs: Sequence[JobSpec], **options: Any) -> list[Submitted]:
        nonlocal entered
        entered += 1
        if entered == 3:
            all_entered.set()
        await all_entered.wait()
        return await submit_batch(specs, **options)

    parent = await service.client.submit("parent")
    monkeypatch.setattr(service.parts.submitter, "submit_batch", submitted)
    children = await asyncio.gather(*(service.client.submit("child", depends_on=[parent.id]) for _ in range(3)))
    assert {job.state for job in children} == {JobState.WAITING}


async def test_a_stream_of_keys_makes_each_job_once(service: Service) -> None:
    mark = str(uuid.uuid4())
    jobs = [NewJob(kind="k", payload=n, idempotency_key=f"{mark}-{n}") for n in range(30)]
    first = await _all(service.client.submit_stream(jobs))
    second = await _all(service.client.submit_stream([*jobs, *jobs[:3]]))
    assert all(one.created for one in first)
    assert not any(one.created for one in second)
    assert [one.id for one in second] == [one.id for one in (*first, *first[:3])]
    [other] = await _all(service.client.submit_stream([NewJob(kind="other", idempotency_key=f"{mark}-0")]))
    assert isinstance(other.error, Conflict)


async def test_a_stream_of_large_jobs_is_written_in_small_groups(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    write = service.parts.submitter.submit_each

    async def measured(specs: Sequence[JobSpec]) -> list[Submitted | Exception]:
        groups.append(sum(len(spec.payload) for spec in specs))
        return await write(specs)

    monkeypatch.setattr(service.parts.submitter, "submit_each", measured)
    jobs = [job_pb2.JobSpec(kind="k", payload='"' + "x" * 200_000 + '"') for _ in range(100)]
    request = pb.StreamSubmitJobsRequest(jobs=jobs, sequences=range(100))
    answered: list[int] = []
    async for answer in service.jobs.StreamSubmitJobs(iter([request]), timeout=60):
        answered += [one.sequence for one in answer.jobs]
    assert answered == list(range(100))
    assert max(groups) <= GROUP_BYTES + PIECE_BYTES


async def test_a_stream_holds_so_many_bytes_and_no_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    write = service.parts.submitter.submit_each
    taken = 0

    async def held(specs: Sequence[JobSpec]) -> list[Submitted | Exception]:
        await gate.wait()
        return await write(specs)

    async def requests() -> AsyncIterator[pb.StreamSubmitJobsRequest]:
        nonlocal taken
        for taken in range(100):
            yield pb.StreamSubmitJobsRequest(
                jobs=[job_pb2.JobSpec(kind="k", payload='"' + "x" * 250_000 + '"')] * 2, sequences=[2 * taken] * 2
            )

    async def is_full() -> bool:
        return (taken + 2) * 500_000 > 2 * GROUP_BYTES

    answers: list[pb.StreamSubmitJobsResponse] = []

    async def answer(message: pb.StreamSubmitJobsResponse) -> None:
        answers.append(message)

    monkeypatch.setattr(service.parts.submitter, "submit_each", held)
    stream = StreamedSubmit(service.parts.submitter, service.parts.waiters)
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.serve(requests(), answer))
        await until(is_full)
        await asyncio.sleep(0.5)  # it would take more now
        assert taken * 500_000 <= 2 * GROUP_BYTES
        gate.set()
    assert sum(len(one.jobs) for one in answers) == 200


async def test_unique_keys_hold_within_a_stream(service: Service) -> None:
    key = str(uuid.uuid4())
    jobs = [
        NewJob(kind="k", unique_key=key),
        NewJob(kind="k", unique_key=key),
        NewJob(kind="k", unique_key=key, on_duplicate="existing"),
        NewJob(kind="k", unique_key=key, on_duplicate="replace"),
        NewJob(kind="k"),
    ]
    first, refused, met, replaced, plain = await _all(service.client.submit_stream(jobs))
    assert isinstance(refused.error, Conflict)
    assert (met.id, met.created) == (first.id, False)
    assert replaced.created and plain.created
    assert (await service.client.get(first.id or "")).replaced_by == replaced.id


async def test_a_stream_goes_on_where_it_broke(service: Service, proxy: ProxyFactory) -> None:
    mark = str(uuid.uuid4())
    taken = 0

    def jobs() -> Iterator[NewJob]:
        nonlocal taken
        for taken in range(1, 6_001):
            yield NewJob(kind="k", payload=taken - 1, labels={"mark": mark})

    between = await proxy(int(service.server.address.rpartition(":")[2]))
    made: list[StreamedJob] = []
    async with AsyncClient(between.address) as client:
        async for one in client.submit_stream(jobs()):
            made.append(one)
            if len(made) == 1_000:
                assert taken < 6_000  # it takes as much as is under way, not all
                assert await between.cut()
    assert [one.number for one in made] == list(range(6_000))
    assert not [one for one in made if one.error is not None]
    [row] = await service.parts.sql(
        "SELECT count(*) FROM tenure.job WHERE labels @> jsonb_build_object('mark', %s::text)", mark
    )
    assert row.count == 6_000


async def test_a_slow_source_holds_up_neither_the_loop_nor_what_it_gave(service: Service) -> None:
    answered = threading.Event()

    def jobs() -> Iterator[NewJob]:
        yield NewJob(kind="k")
        assert answered.wait(30)
        yield NewJob(kind="k")

    made: list[StreamedJob] = []
    async for one in service.client.submit_stream(jobs()):
        made.append(one)
        answered.set()
    assert [(one.number, one.error) for one in made] == [(0, None), (1, None)]


async def test_large_jobs_of_a_source_fit_into_messages(service: Service) -> None:
    taken = 0

    def jobs() -> Iterator[NewJob]:
        nonlocal taken
        while taken < 300:
            taken += 1
            yield NewJob(kind="k", payload="x" * 250_000)

    made: list[StreamedJob] = []
    async for one in service.client.submit_stream(jobs()):
        assert (taken - len(made)) * 250_000 <= WINDOW_BYTES + 3 * MESSAGE_BYTES
        made.append(one)
    assert [(one.number, one.error) for one in made] == [(number, None) for number in range(300)]


async def test_what_the_jobs_raise_is_raised_after_what_was_sent(service: Service) -> None:
    def jobs() -> Iterator[NewJob]:
        yield NewJob(kind="k")
        raise LookupError("no more")

    made: list[StreamedJob] = []
    with pytest.raises(LookupError):
        async for one in service.client.submit_stream(jobs()):
            made.append(one)
    assert len(made) == 1


@pytest.mark.parametrize(
    "request_",
    [
        pb.StreamSubmitJobsRequest(),
        pb.StreamSubmitJobsRequest(jobs=[job_pb2.JobSpec(kind="k")]),
        pb.StreamSubmitJobsRequest(jobs=[job_pb2.JobSpec(kind="k")] * 1_001, sequences=range(1_001)),
    ],
    ids=["empty", "unnumbered", "too-many"],
)
async def test_a_message_that_is_none_ends_the_stream(service: Service, request_: pb.StreamSubmitJobsRequest) -> None:
    call = service.jobs.StreamSubmitJobs(iter([request_]), timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in call:
            pass
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_ends_when_its_coordinator_stops(service: Service) -> None:
    hold = asyncio.Event()

    async def requests() -> AsyncIterator[pb.StreamSubmitJobsRequest]:
        yield pb.StreamSubmitJobsRequest(jobs=[job_pb2.JobSpec(kind="k")], sequences=[7])
        await hold.wait()

    call = service.jobs.StreamSubmitJobs(requests(), timeout=30)
    answer = await call.read()
    assert [one.sequence for one in answer.jobs] == [7]
    service.parts.waiters.close()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_says_unavailable_when_postgres_is_gone(service: Service) -> None:
    async with Database(
        "postgresql://nobody@127.0.0.1:1/none", PoolOptions(min_size=0, max_size=1, wait_s=0.2)
    ) as gone:
        service.parts.submitter._new_jobs._database = gone
        call = service.jobs.StreamSubmitJobs(
            iter([pb.StreamSubmitJobsRequest(jobs=[job_pb2.JobSpec(kind="k")], sequences=[0])]), timeout=30
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_many_jobs_are_watched_to_their_end(service: Service) -> None:
    parts = service.parts
    ids = [await parts.submit() for _ in range(3)]
    seen: list[tuple[str, JobState]] = []

    async def watch() -> None:
        async for job in service.client.watch_many([*map(str, ids), str(ids[0])]):
            seen.append((job.id, job.state))

    async with running(_ends(watch(), done := asyncio.Event())):
        await until(lambda: _true(len(seen) == 3))
        assert {state for _, state in seen} == {JobState.READY}
        fence = (await parts.execute(ids[0])).fence
        await until(lambda: _true((str(ids[0]), JobState.EXECUTING) in seen))
        await parts.finish(ids[0], fence)
        await parts.canceler.cancel(ids[1], "")
        await parts.canceler.cancel(ids[2], "")
        async with asyncio.timeout(30):
            await done.wait()
    assert [state for id, state in seen if id == str(ids[0])] == ["ready", "executing", "completed"]
    assert sorted(state for id, state in seen if id != str(ids[0])) == ["canceled", "canceled", "ready", "ready"]


async def test_large_jobs_are_watched_in_several_messages(service: Service) -> None:
    ids: set[str] = set()
    for _ in range(4):  # together more than one message may hold
        jobs = [NewJob(kind="k", payload="x" * 250_000, delay_s=3_600) for _ in range(75)]
        ids |= {one.id for one in await service.client.submit_many(jobs)}
    seen: set[str] = set()
    async for job in service.client.watch_many(ids):
        assert len(str(job.payload)) == 250_000
        seen.add(job.id)
        if seen == ids:
            break


async def test_a_watch_of_many_reads_no_more_often_than_is_useful(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = service.parts
    ids = [one.id for one in await service.client.submit_many([NewJob(kind="k", delay_s=3_600) for _ in range(50)])]
    reads, fetch, told = 0, parts.db.fetch, asyncio.Event()

    async def counted(name: str, params: Any = None) -> Any:
        nonlocal reads
        reads += name == "marks_of"
        return await fetch(name, params)

    async def watch() -> None:
        async for _ in service.client.watch_many(ids):
            told.set()

    monkeypatch.setattr(parts.db, "fetch", counted)
    watching = asyncio.ensure_future(watch())
    await told.wait()
    loop = asyncio.get_running_loop()
    since, before = loop.time(), reads
    for id in ids:
        await parts.canceler.cancel(uuid.UUID(id), "")
    await watching
    assert reads - before <= (loop.time() - since) / WATCH_GATHER_S + 1


async def _true(value: bool) -> bool:
    return value


async def _ends(body: object, done: asyncio.Event) -> None:
    await body  # type: ignore[misc]
    done.set()


async def test_watching_what_is_not_there_is_refused(service: Service) -> None:
    id = str(await service.parts.submit())
    for ids, error in (([id, str(uuid.uuid4())], NotFound), (["x"], InvalidInput), ([id] * 2, None)):
        watching = service.client.watch_many(ids)
        if error is not InvalidInput:
            assert (await anext(watching)).id == id, "what is there is shown first"
        if error is not None:
            with pytest.raises(error):
                await anext(watching)
    with pytest.raises(InvalidInput):
        await anext(service.client.watch_many([str(uuid.uuid4()) for _ in range(1_001)]))


async def test_a_deleted_job_is_hidden_and_can_still_be_read(service: Service) -> None:
    kind = f"k{uuid.uuid4().hex}"
    id = await service.parts.submit(kind=kind)
    with pytest.raises(WrongState, match="only one that has ended"):
        await service.client.delete(str(id))
    assert [job.id async for job in service.client.list(kind=kind)] == [str(id)]
    await service.parts.canceler.cancel(id, "")
    gone = await service.client.delete(str(id))
    assert gone.deleted_at is not None
    assert (await service.client.delete(str(id))).deleted_at == gone.deleted_at
    assert (await service.client.get(str(id))).deleted_at == gone.deleted_at
    assert [job.id async for job in service.client.list(kind=kind)] == []
    assert [job.id async for job in service.client.list(kind=kind, include_deleted=True)] == [str(id)]
    assert (await service.client.retry_many(kind=kind, states=["canceled"])).retried == 0
    with pytest.raises(NotFound):
        await service.client.delete(str(uuid.uuid4()))


async def test_a_client_is_told_whose_job_it_met(service: Service) -> None:
    key = str(uuid.uuid4())
    first = await service.client.submit("k", unique_key=key)
    met = await service.client.submit("k", unique_key=key, on_duplicate="existing")
    assert (first.created, met.created, met.id, first.unique_key) == (True, False, first.id, key)
    [batched] = await service.client.submit_many([NewJob(kind="k", unique_key=key, on_duplicate="existing")])
    assert (batched.created, batched.id) == (False, first.id)
    with pytest.raises(Conflict, match=first.id):
        await service.client.submit("k", unique_key=key)
    with pytest.raises(InvalidInput):
        await service.client.submit("k", unique_key=key, on_duplicate="odd")
