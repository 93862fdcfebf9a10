"""A worker's uploads to a real S3 server: URLs that expire, a server that goes away, a claim that is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fixtures.s3 import S3Server

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import SystemClock
from tenure.model.errors import InvalidInput, NotFound, OwnershipLost, Unavailable, WrongState
from tenure.model.states import Outcome
from tenure.store.objects.opening import open_store
from tenure.store.objects.s3 import S3Objects
from tenure.v1.transfer import Files
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Assignment, Ended, LostResult, SavedResult
from tenure.worker.large_results import LargeResults, is_large
from tenure.worker.link import Report, Started
from tenure.worker.upload import Plan, Uploader, Wanted

MIB = 1024 * 1024
STARTED = Started(Assignment("job", 1, 7, "default", "k", "default", "null"), 1, 1)


class Calls:
    """What a coordinator does, over a real store; parts are small, and the first URLs may be old ones."""

    def __init__(self, store: S3Objects) -> None:
        self.store = store
        self.part_bytes = 0
        self.first_expires_s = 60.0
        self.trusted = float("inf")
        self.created: list[str] = []
        self.on_create: Callable[[], object] = lambda: None

    async def create_upload(self, started: Started, wanted: Wanted) -> Plan:
        """Sign; URLs that are good for a second are given when they are not any more."""
        self.on_create()
        expires_s = 60.0 if self.created else self.first_expires_s
        self.created.append(wanted.upload)
        if not self.part_bytes:
            url, headers = await self.store.sign_put(
                wanted.name,
                expires_s=expires_s,
                size_bytes=wanted.size_bytes,
                sha256=wanted.sha256,
                content_type=wanted.content_type,
            )
            return Plan("whole", url, headers)
        upload = wanted.upload or await self.store.begin_parts(wanted.name, content_type=wanted.content_type)
        whole, rest = divmod(wanted.size_bytes, self.part_bytes)
        sizes = [self.part_bytes] * whole + [rest]
        urls = await self.store.sign_parts(wanted.name, upload, sizes, expires_s=expires_s)
        if expires_s <= 1:
            await asyncio.sleep(2.5)
        return Plan(upload, part_bytes=self.part_bytes, part_urls=urls)

    async def complete_upload(self, started: Started, upload: str, tags: Sequence[str]) -> None:
        """End."""
        if upload != "whole":
            await self.store.end_parts("a", upload, tags)
        if await self.store.head("a") is None:
            raise NotFound("it was not sent")

    def trusted_until(self, started: Started) -> float:
        """Return what the test says."""
        return self.trusted


@pytest_asyncio.fixture
async def calls(s3: S3Server) -> AsyncIterator[Calls]:
    store = open_store(s3.store_url(), s3.options)
    assert isinstance(store, S3Objects)
    yield Calls(store)
    await store.close()


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.close()


@pytest.fixture
def uploader(calls: Calls, files: Files) -> Uploader:
    return Uploader(calls, files, SystemClock())


async def test_urls_that_have_expired_are_asked_for_again(calls: Calls, uploader: Uploader, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(11 * MIB)
    await asyncio.to_thread(path.write_bytes, data)
    calls.part_bytes, calls.first_expires_s = 5 * MIB, 1.0
    saved = await uploader.upload(STARTED, "a", path, "a/b")
    assert await calls.store.get("a") == data
    assert saved.size_bytes == len(data)
    first, again = calls.created
    assert (first, bool(again)) == ("", True)


async def test_a_server_that_is_away_for_a_moment_is_tried_again(own_s3: Callable[[], S3Server], files: Files) -> None:
    server = await asyncio.to_thread(own_s3)
    store = open_store(server.store_url(), server.options)
    assert isinstance(store, S3Objects)
    calls = Calls(store)
    again = asyncio.Event()
    calls.on_create = lambda: again.set() if calls.created else None
    await asyncio.to_thread(server.kill)

    async def back() -> None:
        await again.wait()
        await asyncio.to_thread(server.start)

    async with asyncio.TaskGroup() as group:
        group.create_task(back())
        saved = await Uploader(calls, files, SystemClock()).upload(STARTED, "a", b"data", "a/b")
    assert saved.size_bytes == 4
    assert await store.get("a") == b"data"
    await store.close()


async def test_a_claim_that_is_lost_ends_it(calls: Calls, uploader: Uploader) -> None:
    def lose() -> None:
        calls.trusted = float("-inf")

    calls.on_create, calls.part_bytes = lose, 5 * MIB
    with pytest.raises(OwnershipLost):
        await uploader.upload(STARTED, "a", bytes(6 * MIB), "a/b")
    assert await calls.store.head("a") is None


async def test_what_is_no_file_is_told(calls: Calls, uploader: Uploader, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
        with pytest.raises(InvalidInput, match="path"):
            await uploader.upload(STARTED, "a", path, "a/b")
    assert calls.created == []


async def test_a_file_that_changes_meanwhile_is_not_saved(calls: Calls, uploader: Uploader, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for changed in (b"y" * 1_000, b"y" * 10):
        await asyncio.to_thread(path.write_bytes, b"x" * 1_000)
        calls.on_create = lambda changed=changed: path.write_bytes(changed)  # type: ignore[misc]
        with pytest.raises(InvalidInput):
            await uploader.upload(STARTED, "a", path, "a/b")
    assert await calls.store.head("a") is None


# -- large results --


class Uploading:
    """A link that does with an upload what the test says."""

    def __init__(self, outcome: Exception | None = None, takes_s: float = 0.0) -> None:
        self.outcome = outcome
        self.takes_s = takes_s

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, until: float = float("inf")
    ) -> Artifact:
        """Take long, fail, or not."""
        await asyncio.sleep(self.takes_s)
        if self.outcome is not None:
            raise self.outcome
        return Artifact(name, len(source) if isinstance(source, bytes) else 0, "00" * 32)


async def delivered(link: Uploading, *, within_s: float = 60.0) -> Ended:
    reports: asyncio.Queue[Report] = asyncio.Queue()
    clock = SystemClock()
    results = LargeResults(link, clock, reports.put_nowait)  # type: ignore[arg-type]
    running = asyncio.create_task(results.run())
    results.add(Report(STARTED, Ended(Outcome.COMPLETED, "x" * 70_000)), until=clock.monotonic() + within_s)
    report = await asyncio.wait_for(reports.get(), 30)
    running.cancel()
    return report.ended


async def test_whatever_becomes_of_an_upload_the_end_is_reported() -> None:
    ended = await delivered(Uploading())
    assert ended == Ended(Outcome.COMPLETED, large=SavedResult(70_000, "00" * 32))
    for problem in (Unavailable("away"), OwnershipLost("lost"), InvalidInput([]), RuntimeError("odd \0")):
        ended = await delivered(Uploading(problem))
        assert (ended.outcome, ended.result) == (Outcome.COMPLETED, None)
        assert isinstance(ended.large, LostResult)
        assert ended.large.size_bytes == 70_000
        assert "\0" not in ended.large.reason
    ended = await delivered(Uploading(WrongState("no object store")))
    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None
    assert (ended.error.type, ended.retryable) == ("ResultTooLarge", False)


async def test_an_upload_ends_before_the_leader_would_end_the_attempt() -> None:
    ended = await delivered(Uploading(takes_s=600), within_s=0.5)
    assert isinstance(ended.large, LostResult)
    assert "in time" in ended.large.reason


def test_which_results_are_large() -> None:
    bound = DEFAULT_BOUNDS.result_bytes
    for text, large in (
        (None, False),
        ("null", False),
        ("x" * bound, False),
        ("x" * (bound + 1), True),
        ("ü" * (bound // 2), False),
        ("ü" * (bound // 2 + 1), True),
        ("\U0001f600" * (bound // 4), False),
        ("\U0001f600" * (bound // 4 + 1), True),
    ):
        assert is_large(Ended(Outcome.COMPLETED, text)) is large
