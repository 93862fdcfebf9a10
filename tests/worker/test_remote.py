"""A runner's side of the wire, against servers and proxies that do not answer as a coordinator does."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.coordinator.rest.app import MAX_BODY_BYTES
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded, InvalidInput, TenureError, Unavailable
from tenure.model.states import Outcome
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.v1 import runner_api as wire
from tenure.v1.bearer import Bearer
from tenure.worker.execute.call import Ended
from tenure.worker.link import Report, Started
from tenure.worker.remote.api import Api
from tenure.worker.remote.leases import RemoteLeases, RemoteSessions
from tenure.worker.remote.link import RemoteLink

PATIENCE_S = 30.0
Answer = Callable[[str, bytes], Awaitable[bytes]]
"""Of a path and a body: the bytes of a whole response."""


def response(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """Write an HTTP response; the length may be a lie."""
    stated = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {stated}\r\nconnection: close\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """Serve HTTP by hand; yield the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        path = head.split(" ")[1].rpartition("/")[2]
        try:
            whole = await answer(path, body)
            for byte_or_all in whole.split(b"\x00"):  # a zero byte: a moment's pause
                writer.write(byte_or_all)
                await writer.drain()
                await asyncio.sleep(0.05 if b"\x00" in whole else 0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def calling(*urls: str) -> AsyncIterator[Api]:
    """Give what calls these addresses."""
    api = Api(urls, SystemClock(), bearer=Bearer())
    try:
        yield api
    finally:
        await api.close()


STRANGE = {
    "a page of a proxy": response(b"<html>Please log in</html>", headers="content-type: text/html\r\n"),
    "cut off": response(b'{"leases": [{"ttl_s": 1', length=23),
    "less than was promised": response(b'{"leases": [', length=5_000),
    "not unpacked": response(b"<html>no gzip at all</html>", headers="content-encoding: gzip\r\n"),
    "no text": response(b'{"leases": [{"ttl_s": 9, "stop": "\xff"}]}'),
    "another number of leases": response(b'{"leases": []}'),
    "elsewhere": response(b"", status="302 Found", headers="location: http://127.0.0.1:1/\r\n"),
    "bad gateway": response(b"<html>Bad gateway</html>", status="502 Bad Gateway"),
    "an error of a proxy": response(b"<html>Sorry</html>", status="500 Internal Server Error"),
    "too many for a proxy": response(b"slow down", status="429 Too Many Requests"),
    "nobody behind a proxy": response(b"error code: 521", status="521 Web Server Is Down"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_whatever_answers_a_renewal_it_counts_as_not_answered(strange: str) -> None:
    """A keeper of leases that an answer ends would take the runner and all of its jobs with it."""

    async def answer(path: str, body: bytes) -> bytes:
        return STRANGE[strange]

    async with answering(answer) as url, calling(url) as api:
        leases = RemoteLeases(api)
        leases.hold(1, "token")
        assert await leases.renew([1], timeout_s=5.0) == []


@pytest.mark.parametrize("strange", set(STRANGE) - {"elsewhere", "another number of leases"})
async def test_another_coordinator_is_asked_when_something_on_the_way_answered(strange: str) -> None:
    """The outcome is unknown: the first may have done it. All but ``once`` may be repeated."""

    async def odd(path: str, body: bytes) -> bytes:
        return STRANGE[strange]

    async def well(path: str, body: bytes) -> bytes:
        return response(b'{"attempts": []}')

    async with answering(odd) as first, answering(well) as second, calling(first, second) as api:
        api._urls = [first, second]
        started, _ = await api.call("start", wire.Start(("token",)), wire.Started)
        assert started == wire.Started()


async def test_a_renewal_that_trickles_in_ends_in_time() -> None:
    """One batch is outstanding at a time: one that does not end would keep every lease from its next renewal."""

    async def answer(path: str, body: bytes) -> bytes:
        return b"\x00".join([bytes([byte]) for byte in response(b" " * 400 + b'{"leases": [{"ttl_s": 9}]}')])

    async with answering(answer) as url, calling(url) as api:
        leases = RemoteLeases(api)
        leases.hold(1, "token")
        async with asyncio.timeout(10.0):  # byte by byte it takes 25 s
            assert await leases.renew([1], timeout_s=0.5) == []


async def test_a_newer_token_is_shown_from_then_on() -> None:
    shown: list[list[str]] = []

    async def answer(path: str, body: bytes) -> bytes:
        shown.append(msgspec.json.decode(body)["tokens"])
        leases = [{"ttl_s": 9}, {"ttl_s": 9, "token": "newer"}] if len(shown) == 1 else [{"ttl_s": 9}, {"ttl_s": 9}]
        return response(msgspec.json.encode({"leases": leases}))

    async with answering(answer) as url, calling(url) as api:
        leases = RemoteLeases(api)
        told: list[str] = []
        leases.hold(1, "one")
        leases.hold(2, "two", told.append)
        for _ in range(2):
            assert len(await leases.renew([1, 2], timeout_s=PATIENCE_S)) == 2
        assert (shown, told) == ([["one", "two"], ["one", "newer"]], ["newer"])


async def test_a_runner_whose_session_is_of_a_key_that_is_gone_opens_another() -> None:
    shown: list[str] = []

    async def answer(path: str, body: bytes) -> bytes:
        shown.append(msgspec.json.decode(body)["session"])
        if shown[-1]:
            refusal = b'{"error": {"status": "PERMISSION_DENIED", "message": "signed by nobody"}}'
            return response(refusal, status="403 Forbidden")
        session = {"session": f"s{len(shown)}", "runner": "far-1", "lease": "1", "ttl_s": 9, "is_new": True}
        return response(msgspec.json.encode(session))

    value = WorkerValue(("default",), ("k",), 1, {})
    async with answering(answer) as url, calling(url) as api:
        sessions = RemoteSessions(api, RemoteLeases(api))
        grant = await sessions.open("far", value, 9.0)
        assert await sessions.change("far", value, grant.lease, 9.0) is not None
        assert (shown, await sessions.token()) == (["", "s1", ""], "s3")


async def test_a_refusal_on_the_way_is_told_as_such() -> None:
    async def answer(path: str, body: bytes) -> bytes:
        return STRANGE["elsewhere"]

    async with answering(answer) as url, calling(url) as api:
        with pytest.raises(TenureError, match="HTTP 302") as refused:
            await api.call("start", wire.Start(("token",)), wire.Started)
        assert not isinstance(refused.value, Unavailable)


@pytest.mark.parametrize(
    ("status", "name", "error"), [("500", "INTERNAL", TenureError), ("429", "RESOURCE_EXHAUSTED", BoundExceeded)]
)
async def test_what_a_coordinator_itself_says_is_no_outage(status: str, name: str, error: type[TenureError]) -> None:
    async def answer(path: str, body: bytes) -> bytes:
        said = {"error": {"status": name, "message": "as the test wishes"}}
        return response(msgspec.json.encode(said), status=f"{status} No")

    async with answering(answer) as url, calling(url) as api:
        with pytest.raises(TenureError, match="as the test wishes") as refused:
            await api.call("start", wire.Start(("token",)), wire.Started)
        assert type(refused.value) is error


@pytest.mark.parametrize("body", [b"<html>", b'{"error": {"status": "RESOURCE_EXHAUSTED", "message": "too long"}}'])
async def test_what_is_too_long_for_something_on_the_way_is_not_sent_again(body: bytes) -> None:
    async def answer(path: str, asked: bytes) -> bytes:
        return response(body, status="413 Payload Too Large")

    async with answering(answer) as url, calling(url) as api:
        with pytest.raises(InvalidInput, match="413"):
            await api.call("logs", wire.AppendLogs(()), wire.AppendedAll)


# -- the link --


class Coordinator:
    """Answers as a coordinator does, and notes what it was asked; ``claims`` is what the next poll gives."""

    def __init__(self) -> None:
        self.claims: list[int] = []
        self.polls_refused = 0
        self.started: list[str] = []
        self.released: list[str] = []
        self.finishes: list[tuple[int, int]] = []
        """Of each call that reported: how many, and its size in bytes."""
        self.opened = 0
        self.failing_finishes = 0

    async def answer(self, path: str, body: bytes) -> bytes:
        """Answer a call."""
        served: Any = getattr(self, path)(body)
        if isinstance(served, bytes):
            return served
        return response(msgspec.json.encode(served))

    def session(self, body: bytes) -> Any:
        self.opened += 1
        return wire.Session("session", "far-1", "1", 60.0, True)

    def claim(self, body: bytes) -> Any:
        if self.polls_refused:
            self.polls_refused -= 1
            problem = wire.Refusal(wire.Problem("NOT_FOUND", "the session is gone"))
            return response(msgspec.json.encode(problem), status="404 Not Found")
        numbers, self.claims = self.claims, []
        return wire.Polled(
            tuple(wire.Claim(f"claim-{n}", f"job-{n}", "default", "k", "default", f"{n:x}", 60.0) for n in numbers)
        )

    def start(self, body: bytes) -> Any:
        texts = msgspec.json.decode(body, type=wire.Start).claims
        self.started += texts
        numbers = [int(text.partition("-")[2]) for text in texts]
        return wire.Started(
            tuple(
                wire.Attempt(
                    f"attempt-{n}", f"claim-{n}", f"job-{n}", 1, str(n), "default", "k", "default", f"{n:x}", 60.0,
                    msgspec.Raw(b"null"),
                )
                for n in numbers
            )
        )  # fmt: skip

    def release(self, body: bytes) -> Any:
        self.released += msgspec.json.decode(body, type=wire.Release).tokens
        return wire.Done()

    def finish(self, body: bytes) -> Any:
        reports = msgspec.json.decode(body, type=wire.Finish).reports
        self.finishes.append((len(reports), len(body)))
        if len(self.finishes) in range(2, 2 + self.failing_finishes):
            return response(b"", status="503 Service Unavailable")
        verdict = "repeated" if len(self.finishes) > 2 + self.failing_finishes else "recorded"
        return wire.FinishedAll(tuple(wire.Finished(verdict) for _ in reports))  # type: ignore[arg-type]


class Linked:
    """A link on a scripted coordinator."""

    def __init__(self, api: Api, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.room = 10_000
        self.touched = 0
        leases = RemoteLeases(api)
        sessions = RemoteSessions(api, leases)
        self.sessions = sessions
        self.keeper = LeaseKeeper(leases, SystemClock())
        self.link = RemoteLink(
            api, sessions, leases, self.keeper, SystemClock(),
            room=lambda: self.room, stop=lambda job, fence, cause: None, touch=self._touch,
        )  # fmt: skip

    def _touch(self) -> None:
        self.touched += 1

    async def started(self, count: int) -> list[Started]:
        """Take so many attempts."""
        taken: list[Started] = []
        async for batch in self.link.attempts():
            taken += batch
            self.room -= len(batch)
            if len(taken) >= count:
                break
        return taken


@asynccontextmanager
async def linked() -> AsyncIterator[Linked]:
    """Run a link."""
    coordinator = Coordinator()
    async with answering(coordinator.answer) as url, calling(url) as api:
        one = Linked(api, coordinator)
        await one.sessions.open("far", WorkerValue(("default",), ("k",), 10_000, {}), 60.0)
        task = asyncio.ensure_future(one.link.receive())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_more_claims_than_a_call_takes_are_started_and_let_go_of() -> None:
    async with linked() as one:
        one.coordinator.claims = list(range(1, 2_502))
        async with asyncio.timeout(PATIENCE_S):
            await one.started(2_501)
        assert one.link.claims == 2_501
        assert not await one.link.close()
        assert len(one.coordinator.released) == 2_501


async def test_claims_that_have_a_place_do_not_wait_for_those_that_have_none() -> None:
    async with linked() as one:
        one.room = 3
        one.coordinator.claims = [1, 2, 3, 4]
        async with asyncio.timeout(PATIENCE_S):
            await one.started(3)
            assert one.coordinator.released == []
            while one.coordinator.released != ["claim-4"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len(one.coordinator.started) == 3


async def test_large_reports_travel_in_calls_that_a_coordinator_takes() -> None:
    """Together they may be longer than a body may be; refused as a whole they would come again for ever."""
    async with linked() as one:
        one.coordinator.claims = list(range(1, 501))
        one.coordinator.failing_finishes = 1
        async with asyncio.timeout(PATIENCE_S):
            started = await one.started(500)
            result = '"' + "x" * (DEFAULT_BOUNDS.result_bytes - 2) + '"'
            reports = [Report(each, Ended(Outcome.COMPLETED, result)) for each in started]
            assert all(answer.recorded for answer in await one.link.finish(reports))
        assert one.link.claims == 0
        assert max(size for _, size in one.coordinator.finishes) <= MAX_BODY_BYTES
        assert sum(count for count, _ in one.coordinator.finishes) > 500, "not exercised: no page was sent again"


async def test_a_poll_that_finds_no_session_has_it_opened_again() -> None:
    """The lease may live, and be renewed, while nobody is shown on it: nothing else would tell."""
    async with linked() as one:
        one.coordinator.polls_refused = 1
        async with asyncio.timeout(PATIENCE_S):
            while not one.touched:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


# -- the example in another language --

RUNNER_JS = Path(__file__).resolve().parents[2] / "examples" / "runner_node" / "runner.js"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("is_late", [False, True])
async def test_the_node_runner_begins_nothing_late_and_reports_until_it_is_recorded(is_late: bool) -> None:
    coordinator = Coordinator()
    coordinator.claims = [1]
    reports: list[Any] = []
    progress: list[bytes] = []

    async def answer(path: str, body: bytes) -> bytes:
        served: Any
        if path == "start":
            await asyncio.sleep(3.0 if is_late else 0.0)  # longer than the TTL
            attempt = {"attempt_token": "a", "job_id": "j", "fence": "1", "kind": "node-echo", "ttl_s": 2, "payload": 1}
            served = {"attempts": [attempt]}
        elif path == "renew":
            served = {"leases": [{"ttl_s": 60} for _ in msgspec.json.decode(body)["tokens"]]}
        elif path == "progress":
            progress.append(body)
            served = {}
        elif path == "finish":
            reports.extend(msgspec.json.decode(body)["reports"])
            served = {"reports": [{"verdict": "recorded" if len(reports) > 1 else "locked"}]}
        else:
            return await coordinator.answer(path, body)
        return response(msgspec.json.encode(served))

    async with answering(answer) as url:
        env = {**os.environ, "TENURE_RUNNER_URL": url}
        runner = await asyncio.create_subprocess_exec("node", str(RUNNER_JS), env=env)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(reports) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            runner.kill()
            await runner.wait()
    assert bool(progress) is not is_late, "the handler says so as it begins"
    assert {report["outcome"] for report in reports} == {"released" if is_late else "completed"}
