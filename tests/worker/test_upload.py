"""A worker's uploads to a real S3 server: URLs that expire, a server that goes away, a claim that is lost."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fixtures.s3 import S3Server

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import SystemClock
from tenure.model.errors import InvalidInput, NotFound, OwnershipLost, Unavailable, WrongState
from tenure.model.objects import RESULT
from tenure.model.states import Outcome
from tenure.store.objects.opening import open_store
from tenure.store.objects.s3 import S3Objects
from tenure.v1.transfer import THREADS, Files, UrlExpired
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Assignment, Ended, LostResult, SavedResult
from tenure.worker.large_results import AT_ONCE, LargeResults, is_large
from tenure.worker.link import Report, Started, UnknownCall
from tenure.worker.upload import Plan, Uploader, Wanted, Watch

MIB = 1024 * 1024
STARTED = Started(Assignment("job", 1, 7, "default", "k", "default", "null"), 1, 1)


class Calls:
    """What a coordinator does, over a real store; parts are small, and the first URLs may be old ones."""

    def __init__(self, store: S3Objects) -> None:
        self.store = store
        self.part_bytes = 0
        self.named = ""
        self.first_expires_s = 60.0
        self.trusted = float("inf")
        self.created: list[str] = []
        self.on_create: Callable[[], object] = lambda: None

    async def create_upload(self, started: Started, wanted: Wanted) -> Plan:
        """Sign; URLs that are good for a second are given when they are not any more."""
        self.on_create()
        expires_s = 60.0 if self.created else self.first_expires_s
        self.created.append(wanted.upload)
        self.named = wanted.name
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
        if await self.store.head(self.named) is None:
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

    gets_on = False

    def __init__(self, outcome: Exception | None = None, takes_s: float = 0.0) -> None:
        self.outcome = outcome
        self.takes_s = takes_s

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, watch: Watch | None = None
    ) -> Artifact:
        """Take long, fail, or not."""
        for moment in range(round(self.takes_s / 0.05)):
            if watch is not None and self.gets_on:
                watch.reached(moment + 1)
            await asyncio.sleep(0.05)
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
    ended = await delivered(Uploading(UnknownCall("of an older release")))
    assert ended.error is not None and (ended.outcome, ended.retryable) == (Outcome.FAILED, True)
    ended = await delivered(Uploading(WrongState("no object store")))
    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None
    assert (ended.error.type, ended.retryable) == ("ResultTooLarge", False)


async def test_an_upload_ends_before_the_leader_would_end_the_attempt() -> None:
    ended = await delivered(Uploading(takes_s=600), within_s=0.5)
    assert isinstance(ended.large, LostResult)
    assert "in time" in ended.large.reason


async def test_an_upload_that_gets_on_is_not_cut_and_one_that_does_not_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.worker.large_results.PATIENCE_S", 0.5)
    going, standing = Uploading(takes_s=1.5), Uploading(takes_s=600)
    going.gets_on = True
    assert isinstance((await delivered(going)).large, SavedResult)
    ended = await delivered(standing)
    assert isinstance(ended.large, LostResult) and "did not get on" in ended.large.reason


async def test_the_time_in_the_queue_is_not_that_of_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.worker.large_results.PATIENCE_S", 1.0)
    link, clock = Uploading(takes_s=0.7), SystemClock()
    reports: asyncio.Queue[Report] = asyncio.Queue()
    results = LargeResults(link, clock, reports.put_nowait)  # type: ignore[arg-type]
    running = asyncio.create_task(results.run())
    for _ in range(3 * AT_ONCE):
        results.add(Report(STARTED, Ended(Outcome.COMPLETED, "x" * 70_000)), until=clock.monotonic() + 60)
    ends = [await asyncio.wait_for(reports.get(), 30) for _ in range(3 * AT_ONCE)]
    running.cancel()
    assert all(isinstance(one.ended.large, SavedResult) for one in ends)


async def test_a_result_does_not_wait_behind_large_files(calls: Calls, files: Files, tmp_path: Path) -> None:
    """Files take all places of theirs, for good: a pipe that nobody writes to is no file that ends."""
    uploader = Uploader(calls, files, SystemClock())
    held = threading.Event()
    waiting = [asyncio.get_running_loop().run_in_executor(files._threads, held.wait) for _ in range(2 * THREADS)]
    try:
        saved = await asyncio.wait_for(uploader.upload(STARTED, RESULT, b"{}", "a/b"), 30)
        assert saved.size_bytes == 2
    finally:
        held.set()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "RequestTimeout", Unavailable),
        (400, "ExpiredToken", UrlExpired),
        (403, "RequestTimeTooSkewed", UrlExpired),
        (400, "InvalidDigest", InvalidInput),
        (503, "SlowDown", Unavailable),
    ],
)
async def test_what_a_store_says_decides_whether_a_file_is_sent_again(
    files: Files, status: int, code: str, error: type[Exception]
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = f"<Error><Code>{code}</Code></Error>"
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(error) as caught:
            await files.put(f"http://127.0.0.1:{port}/", b"data", start=0, length=4, headers={})
    assert type(caught.value) is error


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
