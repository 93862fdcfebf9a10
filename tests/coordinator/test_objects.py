"""Files of attempts in the object store, over HTTP as workers and readers move them: a folder, and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, object_signer_of, running, signer_of, until
from tests.fixtures.s3 import S3Server

from tenure.coordinator import uploads as uploads_module
from tenure.coordinator.access import called_by
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.artifacts import Artifacts
from tenure.coordinator.finish import LostResult, SavedResult, Verdict
from tenure.coordinator.leftovers import Leftovers
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.object_tokens import ObjectSigner, ObjectUrl, UploadToken
from tenure.coordinator.objects import access_to, recognize
from tenure.coordinator.rest import objects as rest_objects
from tenure.coordinator.rest.app import RestApi
from tenure.coordinator.runner_tokens import SessionToken
from tenure.coordinator.store_probe import StoreProbe
from tenure.coordinator.transfers import URL_S
from tenure.coordinator.uploads import ObjectAccess, Uploads
from tenure.model.access import Identity, Role
from tenure.model.clock import SystemClock
from tenure.model.errors import InvalidInput, NotFound, PermissionDenied, Unavailable, WrongState
from tenure.model.ids import new_id
from tenure.model.objects import HASH_CHARS, MIB, RESULT, WHOLE_BYTES, job_prefix, part_bytes_for, part_sizes
from tenure.model.states import JobState, Outcome
from tenure.probes.server import HttpServer, application
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.opening import open_store
from tenure.store.objects.s3 import S3Objects
from tenure.store.postgres.database import Database
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import worker_service_pb2 as pb

MAX_BYTES = 100 * MIB


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta(0)

    def wall(self) -> datetime:
        """Return a later time."""
        return datetime.now(UTC) + self.ahead


@dataclass
class Place:
    """The services of a coordinator over one store, and its HTTP."""

    parts: Parts
    access: ObjectAccess
    workers: WorkerService
    jobs: JobService
    clock: Later
    http: httpx.AsyncClient
    url: str
    rest: RestApi

    async def create(self, row: Any, name: str, data: bytes, **more: Any) -> pb.CreateUploadResponse:
        """Ask where a file goes."""
        asked = {"size_bytes": len(data), "sha256": hashlib.sha256(data).digest(), **more}
        request = pb.CreateUploadRequest(job_id=str(row.id), fence=row.fence, name=name, **asked)
        return await self.workers.CreateUpload(request, None)  # type: ignore[arg-type]

    async def complete(self, row: Any, upload: str, tags: list[str] | None = None) -> pb.Verdict:
        """Say that it was sent."""
        request = pb.CompleteUploadRequest(job_id=str(row.id), fence=row.fence, upload=upload, part_tags=tags or [])
        return (await self.workers.CompleteUpload(request, None)).verdict  # type: ignore[arg-type]

    async def send(self, plan: pb.CreateUploadResponse, data: bytes) -> list[str]:
        """Send a file whole, or in parts; return their tags."""
        if plan.url:
            answer = await self.http.put(plan.url, content=data, headers=dict(plan.headers))
            assert answer.is_success, answer.text
            return []
        tags = []
        for number, url in enumerate(plan.part_urls):
            start = number * plan.part_bytes
            answer = await self.http.put(url, content=data[start : start + plan.part_bytes])
            assert answer.is_success, answer.text
            tags.append(answer.headers["etag"])
        return tags

    async def save(self, row: Any, name: str, data: bytes, **more: Any) -> None:
        """Save a file."""
        plan = await self.create(row, name, data, **more)
        assert plan.verdict == pb.VERDICT_RECORDED
        tags = await self.send(plan, data)
        assert await self.complete(row, plan.upload, tags) == pb.VERDICT_RECORDED

    async def locate(self, job: uuid.UUID, name: str = "", attempt: int = 0) -> jobs_pb.CreateDownloadResponse:
        """Ask where a file is."""
        request = jobs_pb.CreateDownloadRequest(job_id=str(job), name=name, attempt=attempt)
        return await self.jobs.CreateDownload(request, None)  # type: ignore[arg-type]

    async def read(self, job: uuid.UUID, name: str = "", attempt: int = 0) -> bytes:
        """Read a file."""
        answer = await self.http.get((await self.locate(job, name, attempt)).url)
        assert answer.status_code == 200, answer.text
        return answer.content

    async def get(self, job: uuid.UUID) -> Any:
        """Read a job."""
        request = jobs_pb.GetJobRequest(id=str(job))
        return (await self.jobs.GetJob(request, None)).job  # type: ignore[arg-type]

    async def names(self, job: uuid.UUID) -> list[tuple[int, str]]:
        """List the files of a job."""
        request = jobs_pb.ListArtifactsRequest(job_id=str(job))
        listed = await self.jobs.ListArtifacts(request, None)  # type: ignore[arg-type]
        return [(one.attempt, one.name) for one in listed.artifacts]

    async def keys(self) -> list[str]:
        """List what is in the store."""
        return [one.key async for page in self.access.store.list("") for one in page]

    async def execute(self) -> Any:
        """Submit a job and start it."""
        id = await self.parts.submit(namespace="ns-a")
        return await self.parts.execute(id)


@pytest_asyncio.fixture(params=["folder", "s3"])
async def place(request: pytest.FixtureRequest, parts: Parts, tmp_path: Path) -> AsyncIterator[Place]:
    """A coordinator's services over an empty store."""
    if request.param == "folder":
        store = open_store((tmp_path / "objects").as_uri())
    else:
        server: S3Server = request.getfixturevalue("s3")
        store = open_store(server.store_url("x"), server.options)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        clock = Later()
        access = access_to(store, await object_signer_of(parts), clock)
        rest = RestApi(clock)
        http_server = HttpServer(application({}, REGISTRY, more=rest.routes()), listen="127.0.0.1:0", variable="X")
        http_server.bind()
        uploads, artifacts = Uploads(parts.db, MAX_BYTES), Artifacts(parts.db)
        uploads.objects = artifacts.objects = access
        workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads)
        jobs = parts.job_service(artifacts)
        workers.base_url = jobs.base_url = f"http://{http_server.address}"
        rest.open_objects(access)
        await stack.enter_async_context(running(http_server.run(), jobs.run()))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        yield Place(parts, access, workers, jobs, clock, http, workers.base_url, rest)


only_folder = pytest.mark.parametrize("place", ["folder"], indirect=True)
only_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


async def test_a_file_is_saved_and_read(place: Place) -> None:
    row = await place.execute()
    data = os.urandom(300_000)
    await place.save(row, "report.bin", data, content_type="application/pdf")
    await place.save(row, "empty", b"")
    id = uuid.UUID(row.id)
    assert await place.names(id) == [(1, "empty"), (1, "report.bin")]
    assert await place.read(id, "report.bin") == data
    assert await place.read(id, "empty") == b""
    found = await place.locate(id, "report.bin")
    assert found.artifact.sha256 == hashlib.sha256(data).digest()
    assert (found.artifact.size_bytes, found.artifact.content_type) == (300_000, "application/pdf")
    assert (await place.http.get(found.url)).headers["content-disposition"] == 'attachment; filename="report.bin"'
    assert (await place.http.get(found.url)).headers["content-type"] == "application/pdf"
    hashes = {name: hashlib.sha256(one).hexdigest()[:16] for name, one in (("report.bin", data), ("empty", b""))}
    assert await place.keys() == sorted(f"{job_prefix('ns-a', id)}1/{hash}-{name}" for name, hash in hashes.items())


async def test_a_file_of_the_same_name_takes_the_place_of_the_first(place: Place) -> None:
    row = await place.execute()
    await place.save(row, "a", b"first")
    await place.save(row, "a", b"second")
    assert await place.read(uuid.UUID(row.id), "a") == b"second"


async def test_an_upload_that_was_never_completed_overwrites_no_file_of_its_name(place: Place) -> None:
    """A zombie, or a try that was given up, whose bytes arrive after another upload of the name was completed."""
    row = await place.execute()
    id = uuid.UUID(row.id)
    late, result = await place.create(row, "a", b"late"), await place.create(row, RESULT, b'"late"')
    await place.save(row, "a", b"right")
    await place.save(row, RESULT, b'"right"')
    for plan, data in ((late, b"late"), (result, b'"late"')):
        await place.send(plan, data)
    assert await place.read(id, "a") == b"right"
    large = SavedResult(7, hashlib.sha256(b'"right"').digest())
    await place.parts.finish(id, row.fence, large=large)
    for plan, data in ((late, b"late"), (result, b'"late"')):  # its job has ended, and its URLs are still good
        await place.send(plan, data)
        assert await place.complete(row, plan.upload) == pb.VERDICT_LOST
    assert await place.read(id, "a") == b"right" and await place.read(id) == b'"right"'
    # What came to nothing, and what was given up in the midst, goes with the job.
    await Leftovers(place.parts.db, place.access.store, SystemClock()).round()
    assert len(await place.keys()) == 4
    await place.parts.sql("INSERT INTO tenure.object_to_delete (id, namespace) VALUES (%s, 'ns-a')", id)
    await Leftovers(place.parts.db, place.access.store, SystemClock()).round()
    assert await place.keys() == []


async def test_uploads_that_are_begun_are_counted_and_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 3)
    row = await place.execute()
    first = await place.create(row, "a", b"0")
    await place.create(row, "a", b"0", upload=first.upload)  # its URLs anew: the same one
    await place.save(row, "a", b"1")
    await place.create(row, "b", b"2")
    with pytest.raises(InvalidInput, match="begin 3 uploads"):
        await place.create(row, "c", b"3")
    [counted] = await place.parts.sql("SELECT attempt, begun FROM tenure.upload WHERE job_id = %s", uuid.UUID(row.id))
    assert (counted.attempt, counted.begun) == (1, 4)


async def test_no_artifact_forbids_the_result_of_its_attempt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "MAX_ARTIFACTS", 2)
    monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 3)
    monkeypatch.setattr(uploads_module, "MAX_RESULT_UPLOADS", 2)
    row = await place.execute()
    await place.save(row, RESULT, b'"early"')
    await place.save(row, "a", b"1")
    await place.save(row, "b", b"2")
    for _ in range(3):
        with pytest.raises(InvalidInput):
            await place.create(row, "c", b"3")
    await place.save(row, RESULT, b'"late"')
    with pytest.raises(InvalidInput, match="begin 5 uploads"):
        await place.create(row, RESULT, b'"too late"')
    with pytest.raises(InvalidInput, match="a result may be"):
        await place.create(row, RESULT, b"", size_bytes=16 * MIB + 1)


@only_s3
async def test_parts_of_an_upload_that_was_given_up_go_with_the_job(place: Place, s3: S3Server) -> None:
    row, other = await place.execute(), await place.execute()
    store = place.access.store
    assert isinstance(store, S3Objects)

    async def uploads() -> set[str]:
        listed = await asyncio.to_thread(s3.client().list_multipart_uploads, Bucket=store.bucket)
        keys = [one["Key"] for one in listed.get("Uploads", ())]  # the bucket holds those of other tests, too
        return {id for id in (row.id, other.id) if any(f"/{id}/" in key for key in keys)}

    data = bytes(WHOLE_BYTES + 1)
    for one in (row, other):
        plan = await place.create(one, "large", data)
        assert (await place.http.put(plan.part_urls[0], content=data[: plan.part_bytes])).is_success
    assert await uploads() == {row.id, other.id}
    await place.parts.sql("INSERT INTO tenure.object_to_delete (id, namespace) VALUES (%s, 'ns-a')", uuid.UUID(row.id))
    await Leftovers(place.parts.db, store, SystemClock()).round()
    assert await uploads() == {other.id}


@only_s3
async def test_a_large_file_goes_in_parts_and_its_urls_can_be_had_again(place: Place) -> None:
    row = await place.execute()
    data = os.urandom(WHOLE_BYTES + 5)
    plan = await place.create(row, "large", data)
    assert not plan.url
    assert len(plan.part_urls) == 3
    again = await place.create(row, "large", data, upload=plan.upload)
    assert again.part_urls != plan.part_urls or again.upload == plan.upload
    tags = await place.send(again, data)
    assert await place.names(uuid.UUID(row.id)) == []
    assert await place.complete(row, plan.upload, tags) == pb.VERDICT_RECORDED
    # An answer that was lost: said again.
    assert await place.complete(row, plan.upload, tags) == pb.VERDICT_RECORDED
    assert await place.read(uuid.UUID(row.id), "large") == data
    other = await place.create(row, "other", data)
    with pytest.raises(PermissionDenied):
        await place.create(row, "large", data, upload=other.upload)


def test_parts_are_few_enough() -> None:
    for size in (WHOLE_BYTES + 1, 5 * 1024**3, 5 * 1024**3 + 1, 1024**4):
        part = part_bytes_for(size)
        sizes = part_sizes(size, part)
        assert sum(sizes) == size
        assert len(sizes) <= 500
        assert all(5 * MIB <= one <= 5 * 1024**3 for one in sizes[:-1])
    assert part_bytes_for(WHOLE_BYTES) == 0


async def test_an_old_fence_saves_nothing_and_the_winners_file_stays(place: Place) -> None:
    zombie = await place.execute()
    id = uuid.UUID(zombie.id)
    plan = await place.create(zombie, "a", b"zombie's")
    lost = await place.create(zombie, RESULT, b'"zombie"')
    await place.parts.finish(id, zombie.fence, Outcome.RELEASED)
    winner = await place.parts.execute(id)
    await place.save(winner, "a", b"winner's")
    # The zombie still has its URLs; what it sends lies under its own attempt, and nobody records it.
    await place.send(plan, b"zombie's")
    await place.send(lost, b'"zombie"')
    assert await place.complete(zombie, plan.upload) == pb.VERDICT_LOST
    assert (await place.create(zombie, "b", b"x")).verdict == pb.VERDICT_LOST
    with pytest.raises(PermissionDenied):
        await place.complete(winner, plan.upload)
    assert await place.names(id) == [(2, "a")]
    assert await place.read(id, "a") == b"winner's"
    assert (await place.parts.finish(id, zombie.fence, large=SavedResult(8, b"\0" * 32))).verdict is Verdict.LOST


async def test_what_was_not_sent_is_not_there(place: Place) -> None:
    row = await place.execute()
    plan = await place.create(row, "a", b"data")
    with pytest.raises(NotFound):
        await place.complete(row, plan.upload)
    assert await place.names(uuid.UUID(row.id)) == []
    with pytest.raises(NotFound):
        await place.locate(uuid.UUID(row.id), "a")


async def test_only_what_was_announced_is_taken(place: Place) -> None:
    row = await place.execute()
    data = os.urandom(100_000)
    plan = await place.create(row, "a", data)
    for sent in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1]), b""):
        answer = await place.http.put(plan.url, content=sent, headers=dict(plan.headers))
        assert answer.status_code in (400, 403), answer.text
    assert await place.keys() == []


@only_folder
@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\x00b", "a\nb", "ä", ".hidden", "-rf", "a" * 129),
        *("a%2fb", "_log.jsonl.gz", "_result", "a.", "a b", "con:x", "\u202ea"),
    ],
)
async def test_names_that_are_none(place: Place, name: str) -> None:
    row = await place.execute()
    with pytest.raises(InvalidInput, match="name"):
        await place.create(row, name, b"x")
    if name:
        with pytest.raises(InvalidInput, match="name"):
            await place.locate(uuid.UUID(row.id), name)


async def test_bounds_are_named(place: Place) -> None:
    row = await place.execute()
    for more, field in (
        ({"size_bytes": MAX_BYTES + 1}, "size_bytes"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"sha256": b"short"}, "sha256"),
        ({"content_type": "text/html\r\nX: y"}, "content_type"),
        ({"content_type": "nonsense"}, "content_type"),
    ):
        with pytest.raises(InvalidInput, match=field):
            await place.create(row, "a", b"x", **more)
    await place.parts.sql(
        "INSERT INTO tenure.artifact (job_id, attempt, name, size_bytes, sha256, content_type) "
        "SELECT %s, 1, 'n' || n, 1, sha256('x'), 'a/b' FROM generate_series(1, 1000) n",
        uuid.UUID(row.id),
    )
    with pytest.raises(InvalidInput, match="1000"):
        await place.create(row, "one-more", b"x")
    await place.save(row, "n7", b"again")


async def test_a_large_result_is_where_the_job_says(place: Place) -> None:
    row = await place.execute()
    id = uuid.UUID(row.id)
    data = b'"' + b"x" * 100_000 + b'"'
    await place.save(row, RESULT, data, content_type="application/json")
    digest = hashlib.sha256(data).digest()
    finished = await place.parts.finish(id, row.fence, large=SavedResult(len(data), digest))
    assert finished.verdict is Verdict.RECORDED
    again = await place.parts.finish(id, row.fence, large=SavedResult(len(data), digest))
    assert again.verdict is Verdict.REPEATED
    job = await place.get(id)
    assert (job.result, job.result_object.size_bytes, job.result_object.sha256) == ("", len(data), digest)
    assert not job.HasField("result_lost")
    assert await place.read(id) == data
    assert (await place.locate(id)).artifact.is_result


async def test_a_large_result_is_read_by_who_waited_for_it_and_nobody_else(place: Place) -> None:
    row, stranger = await place.execute(), await place.execute()
    id, data = uuid.UUID(row.id), b'"' + b"x" * 100_000 + b'"'
    child_id = await place.parts.submit(namespace="ns-a", depends_on=(row.id,))
    await place.save(row, RESULT, data, content_type="application/json")
    await place.parts.finish(id, row.fence, large=SavedResult(len(data), hashlib.sha256(data).digest()))
    child = await place.parts.execute(child_id)

    async def ask(of: Any, **more: Any) -> pb.ReadUpstreamResponse:
        request = pb.ReadUpstreamRequest(**{"job_id": str(of.id), "fence": of.fence, **more})
        return await place.workers.ReadUpstream(request, None)  # type: ignore[arg-type]

    [listed] = (await ask(child)).jobs
    assert (listed.result, listed.result_object.size_bytes, listed.result_url) == ("", len(data), "")
    [one] = (await ask(child, result_of=row.id)).jobs
    assert one.result_object.sha256 == hashlib.sha256(data).digest()
    assert (await place.http.get(one.result_url)).content == data
    assert not (await ask(child, result_of=str(stranger.id))).jobs
    assert not (await ask(stranger, result_of=row.id)).jobs
    assert (await ask(child, result_of=row.id, fence=child.fence - 1)).verdict == pb.VERDICT_LOST


async def test_a_result_that_was_not_saved_is_not_claimed(place: Place) -> None:
    row = await place.execute()
    id = uuid.UUID(row.id)
    await place.save(row, RESULT, b'"other"')
    refused = await place.parts.finish(id, row.fence, large=SavedResult(100_000, b"\1" * 32))
    assert refused.verdict is Verdict.INVALID
    assert (await place.get(id)).state == 3
    with pytest.raises(NotFound, match="executing"):
        await place.locate(id)


async def test_a_lost_result_completes_its_job_and_is_told(place: Place) -> None:
    row, other = await place.execute(), await place.execute()
    id = uuid.UUID(row.id)
    done = await place.parts.finish(id, row.fence, large=LostResult(100_000, "no room"))
    assert done.state is JobState.COMPLETED
    await place.parts.finish(uuid.UUID(other.id), other.fence, result='{"small": 1}')
    job = await place.get(id)
    assert (job.result, job.result_lost.reason, job.result_lost.size_bytes) == ("", "no room", 100_000)
    with pytest.raises(NotFound, match="no room"):
        await place.locate(id)
    assert (await place.get(uuid.UUID(other.id))).result == '{"small": 1}'
    with pytest.raises(NotFound, match="with the job"):
        await place.locate(uuid.UUID(other.id))
    assert await place.names(id) == []


@only_folder
async def test_a_result_that_is_kept_with_its_job_costs_no_statement_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await place.execute()
    id = uuid.UUID(row.id)
    asked: list[str] = []
    fetch, transaction = Database.fetch, Database.transaction

    async def note(self: Database, name: str, params: Any = None) -> Any:
        asked.append(name)
        return await fetch(self, name, params)

    async def note_all(self: Database, statements: Any) -> Any:
        asked.extend(one.name for one in statements)
        return await transaction(self, statements)

    monkeypatch.setattr(Database, "fetch", note)
    monkeypatch.setattr(Database, "transaction", note_all)
    await place.parts.finish(id, row.fence, result='{"small": 1}')
    await place.get(id)
    assert asked == ["end_attempts", "settle_parents", "jobs_with_parents"]


async def test_a_zombie_loses_nobodys_result(place: Place) -> None:
    zombie = await place.execute()
    id = uuid.UUID(zombie.id)
    await place.parts.finish(id, zombie.fence, Outcome.RELEASED)
    winner = await place.parts.execute(id)
    assert (await place.parts.finish(id, zombie.fence, large=LostResult(1, "zombie"))).verdict is Verdict.LOST
    assert (await place.parts.finish(id, winner.fence, result='"won"')).verdict is Verdict.RECORDED
    job = await place.get(id)
    assert (job.result, job.HasField("result_lost")) == ('"won"', False)


async def test_without_an_object_store_nothing_is_promised(parts: Parts) -> None:
    uploads, artifacts = Uploads(parts.db, MAX_BYTES), Artifacts(parts.db)
    workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads)
    row = await parts.execute(await parts.submit())
    request = pb.CreateUploadRequest(job_id=row.id, fence=row.fence, name="a", sha256=b"\0" * 32)
    with pytest.raises(WrongState, match="no object store"):
        await workers.CreateUpload(request, None)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await artifacts.find(uuid.UUID(row.id), "default", "a", 0)


async def test_what_is_of_another_namespace_is_not_there(place: Place) -> None:
    row = await place.execute()
    id = uuid.UUID(row.id)
    await place.save(row, "a", b"secret")
    with called_by(Identity("v", Role.VIEWER, namespaces=("ns-b",))):
        for call in (place.locate(id, "a"), place.names(id)):
            with pytest.raises(NotFound, match="does not exist"):
                await call
    with called_by(Identity("v", Role.VIEWER, namespaces=("ns-a",))):
        assert (await place.locate(id, "a")).artifact.size_bytes == 6


# -- tried out for tenure doctor --


async def test_a_store_that_works_is_tried_out_and_nothing_is_left(place: Place) -> None:
    probe = StoreProbe(place.clock)
    assert await probe.steps() == [], "no store"
    probe.objects, probe.base_url = place.access, place.url
    before = await place.keys()
    steps = await probe.steps()
    assert [step.name for step in steps] == ["write", "clock", "read", "fetch by a signed URL", "delete"]
    assert not any(step.problem for step in steps), steps
    assert await place.keys() == before


async def test_a_clock_that_is_wrong_and_an_address_that_nobody_serves_are_told(place: Place) -> None:
    probe = StoreProbe(place.clock)
    probe.objects, probe.base_url = place.access, "http://127.0.0.1:1"
    place.clock.ahead = timedelta(minutes=5)
    steps = {step.name: step for step in await probe.steps()}
    assert "s behind" in steps["clock"].problem
    if isinstance(place.access.store, FolderObjects):
        assert "no answer" in steps["fetch by a signed URL"].problem
    assert not steps["delete"].problem


# -- the coordinators' own URLs --


def token_of(url: str) -> str:
    return url.rpartition("/")[2]


@only_folder
async def test_a_url_is_good_for_its_object_and_method_alone(place: Place) -> None:
    row = await place.execute()
    id = uuid.UUID(row.id)
    await place.save(row, "a", b"of a")
    await place.save(row, "b", b"of b")
    get, put = (await place.locate(id, "a")).url, (await place.create(row, "c", b"of c")).url
    assert (await place.http.put(get, content=b"of a")).status_code == 403
    assert (await place.http.get(put)).status_code == 403
    for method in ("DELETE", "POST", "PATCH"):
        assert (await place.http.request(method, get)).status_code == 405
    text = token_of(get)
    key = f"{job_prefix('ns-a', id)}1/b"
    forged = ObjectSigner(b"another key").sign(ObjectUrl("GET", key, 2**40, 4, b"", "a/b", "b"))
    sessions = await signer_of(place.parts)
    session = sessions.sign(SessionToken("runner", "r", 1, ("default",)))
    upload = place.access.signer.sign(UploadToken(row.id, row.fence, "b", key, 4, b"", "a/b"))
    cut = [text[:-1], text[1:], text + "A", text[:40] + ("A" if text[40] != "A" else "B") + text[41:]]
    for bad in (*cut, forged, session, upload, "x", "..", "%2e%2e", "ns-a", key.replace("/", "%2f")):
        answer = await place.http.get(f"{place.url}/v1/objects/{bad}")
        assert answer.status_code in (403, 404), (bad, answer.text)
        assert b"of b" not in answer.content
    for path in ("", "/", "/v1/objects", "/v1/objects/", f"/v1/objects/{key}", "/v1/objects/../../etc/passwd"):
        assert (await place.http.get(f"{place.url}{path}")).status_code in (403, 404)


@only_folder
async def test_a_url_expires(place: Place) -> None:
    row = await place.execute()
    await place.save(row, "a", b"of a")
    get, put = (await place.locate(uuid.UUID(row.id), "a")).url, (await place.create(row, "c", b"of c")).url
    place.clock.ahead = timedelta(minutes=11)
    for answer in (await place.http.get(get), await place.http.put(put, content=b"of c")):
        assert answer.status_code == 403
        assert "expired" in answer.text
    assert await place.names(uuid.UUID(row.id)) == [(1, "a")]


@only_folder
async def test_what_a_browser_is_told_keeps_it_from_running_anything(place: Place) -> None:
    row = await place.execute()
    await place.save(row, "evil.html", b"<script>alert(1)</script>", content_type="text/html")
    url = (await place.locate(uuid.UUID(row.id), "evil.html")).url
    headers = (await place.http.get(url)).headers
    assert headers["content-disposition"] == 'attachment; filename="evil.html"'
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "no-store" in headers["cache-control"]
    assert (await place.http.head(url)).headers["content-length"] == "25"


@only_folder
async def test_a_sender_that_goes_away_leaves_nothing(place: Place) -> None:
    row = await place.execute()
    data = os.urandom(5_000_000)
    plan = await place.create(row, "a", data)
    host, _, port = place.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT /v1/objects/{token_of(plan.url)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data[:2_000_000])
    await writer.drain()
    folder = Path(place.access.store._root)  # type: ignore[attr-defined]

    async def parts_are(number: int) -> bool:
        return len(os.listdir(folder / ".part")) == number

    await until(lambda: parts_are(1))
    writer.transport.abort()
    await until(lambda: parts_are(0))
    assert await place.keys() == []
    await place.send(plan, data)
    assert await place.complete(row, plan.upload) == pb.VERDICT_RECORDED


@only_folder
async def test_a_reader_that_goes_away_is_read_for_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await place.execute()
    await place.save(row, "large", bytes(MIB) * 90)
    read = 0
    stream = FolderObjects.stream

    async def counting(self: FolderObjects, key: str) -> AsyncGenerator[bytes, None]:
        nonlocal read
        async with aclosing(stream(self, key)) as pieces:
            async for piece in pieces:
                read += len(piece)
                yield piece
        read = -1  # the whole of it

    monkeypatch.setattr(FolderObjects, "stream", counting)
    url = (await place.locate(uuid.UUID(row.id), "large")).url
    async with place.http.stream("GET", url) as answer:
        async for _ in answer.aiter_raw():
            break
    await asyncio.sleep(0.5)
    assert 0 < read < 80 * MIB


@only_folder
async def test_transfers_beyond_the_bound_wait_their_turn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await place.execute()
    await place.save(row, "a", b"x")
    plan = await place.create(row, "b", b"x")
    url = (await place.locate(uuid.UUID(row.id), "a")).url
    objects = place.rest._objects
    objects._uploads.most = 0
    assert (await place.http.put(plan.url, content=b"x")).status_code == 503
    assert (await place.http.get(url)).status_code == 200, "neither keeps the other out"
    objects._uploads.most, objects._downloads.most = 64, 0
    assert (await place.http.put(plan.url, content=b"x")).status_code == 201
    assert (await place.http.get(url)).status_code == 503


@only_folder
async def test_no_job_takes_all_places_and_no_artifact_that_of_a_result(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = place.rest._objects
    row, other = await place.execute(), await place.execute()
    sent = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x"
        await sent.wait()
        yield b"x"

    async def put(of: Any, name: str) -> int:
        plan = await place.create(of, name, b"xx")
        headers = {"content-length": "2"}
        return (await place.http.put(plan.url, content=slowly(), headers=headers)).status_code

    async def are_sent() -> bool:
        return objects._uploads._under_way == rest_objects.MAX_UPLOADS_OF_JOB

    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(put(row, f"a{n}")) for n in range(rest_objects.MAX_UPLOADS_OF_JOB)]
        await until(are_sent)
        for name in ("one-more", f"no{RESULT}", f"no-{RESULT}", f"{'0' * HASH_CHARS}-{RESULT}"):
            plan = await place.create(row, name, b"xx")
            assert (await place.http.put(plan.url, content=b"xx")).status_code == 503, name
        await place.save(other, "a", b"x")
        objects._uploads.most = 0
        await place.save(row, RESULT, b'"x"')
        sent.set()
    assert [one.result() for one in slow] == [201] * len(slow)
    assert not objects._uploads._owners and not objects._results._owners


@only_folder
async def test_who_reads_or_sends_too_slowly_is_cut_off_and_gives_its_place_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little now and then is too little, whatever came before."""
    monkeypatch.setattr(rest_objects, "STRETCH_S", 1.0)
    row = await place.execute()
    data = os.urandom(8 * MIB) * 4
    await place.save(row, "large", data)
    plan = await place.create(row, "other", data)

    async def slowly() -> AsyncIterator[bytes]:
        yield data[: 8 * MIB]
        while True:
            await asyncio.sleep(0.2)
            yield b"x"

    with suppress(httpx.HTTPError):  # whether it reads the answer before the connection ends is a matter of luck
        answer = await place.http.put(plan.url, content=slowly(), headers={"content-length": str(len(data))})
        assert answer.status_code == 503 and "slowly" in answer.text
    taken = 0
    with pytest.raises(httpx.HTTPError):
        async with place.http.stream("GET", (await place.locate(uuid.UUID(row.id), "large")).url) as stream:
            async for piece in stream.aiter_raw(16 * 1024):
                taken += len(piece)
                if 8 * MIB < taken < 9 * MIB:
                    await asyncio.sleep(0.1)
    objects = place.rest._objects

    async def are_free() -> bool:
        return objects._uploads._under_way == 0 == objects._downloads._under_way

    await until(are_free)


@only_folder
async def test_an_upload_ends_while_its_objects_are_still_looked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rest_objects.MOST_S + URL_S < 3_600, "see leftovers"
    monkeypatch.setattr(rest_objects, "MOST_S", 1.0)
    row = await place.execute()
    data = os.urandom(4 * MIB)
    plan = await place.create(row, "a", data)

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(data), MIB):
            yield data[start : start + MIB]
            await asyncio.sleep(0.6)

    with suppress(httpx.HTTPError):  # as above
        answer = await place.http.put(plan.url, content=slowly(), headers={"content-length": str(len(data))})
        assert answer.status_code == 503 and "not all there" in answer.text
    assert await place.keys() == []


@only_folder
async def test_a_slow_store_is_not_the_senders_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_objects, "STRETCH_S", 0.5)
    keep = FolderObjects._keep

    def slowly(self: FolderObjects, *given: Any) -> None:
        time.sleep(1.0)
        keep(self, *given)

    monkeypatch.setattr(FolderObjects, "_keep", slowly)
    row = await place.execute()
    await place.save(row, "a", b"x" * MIB)


@only_folder
async def test_a_large_file_goes_through_a_coordinator_in_pieces(place: Place) -> None:
    row = await place.execute()
    data = os.urandom(MIB) * 64

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(data), MIB):
            yield data[start : start + MIB]

    plan = await place.create(row, "large", data)
    answer = await place.http.put(plan.url, content=slowly(), headers={"content-length": str(len(data))})
    assert answer.is_success, answer.text
    assert await place.complete(row, plan.upload) == pb.VERDICT_RECORDED
    digest = hashlib.sha256()
    async with place.http.stream("GET", (await place.locate(uuid.UUID(row.id), "large")).url) as stream:
        async for piece in stream.aiter_raw():
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_a_folder_that_is_not_mounted_at_the_start_is_not_taken_for_the_store(
    alone: Parts, tmp_path: Path
) -> None:
    """Nothing of it is forgotten meanwhile; a store that was in use before there were ids is taken as it is."""
    root, job = tmp_path / "objects", new_id()
    before = FolderObjects(root)
    key = f"{job_prefix('default', job)}1/left"
    await before.put(key, b"x")
    await recognize(before, alone.db)
    await alone.sql("INSERT INTO tenure.object_to_delete (id, namespace) VALUES (%s, 'default')", job)

    root.rename(tmp_path / "unmounted")
    store = FolderObjects(root)
    await recognize(store, alone.db)
    leftovers = Leftovers(alone.db, store, alone.clock)
    with pytest.raises(Unavailable, match="not the one that the database knows"):
        await leftovers.round()
    root.rename(tmp_path / "what lay below")
    (tmp_path / "unmounted").rename(root)
    assert await store.get(key) == b"x"
    await leftovers.round()
    assert await store.head(key) is None
    for one in (before, store):
        await one.close()


async def test_a_folder_that_takes_no_id_is_used_without(alone: Parts, tmp_path: Path) -> None:
    class Bare(FolderObjects):
        async def mark(self) -> str:
            raise Unavailable("Operation not supported")

    store = Bare(tmp_path / "objects")
    await recognize(store, alone.db)
    await store.put("a/b", b"x")
    assert await alone.sql("SELECT 1 FROM tenure.cluster WHERE object_store_id IS NOT NULL") == []
    await store.close()
