"""The parts of the dashboard alone: sessions, who may ask from where, how values are written, vendored files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tenure.client.overview import Figures
from tenure.client.records import Attempt, LogLine
from tenure.dashboard import charts, guard, render, sessions
from tenure.dashboard.live import ENDED, MAX_VIEWERS, Live, Produce
from tenure.dashboard.pages import job as job_page
from tenure.dashboard.pages.login import _own_path
from tenure.dashboard.places import Bounded, Places
from tenure.dashboard.sessions import Session, SessionKeys, SignIn
from tenure.dashboard.visit import Visit
from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded, PermissionDenied, Unauthenticated
from tenure.model.states import Outcome

CLOCK = SystemClock()
TEMPLATES = resources.files("tenure.dashboard") / "templates"


def _keys(*known: bytes, signing: int = 0) -> SessionKeys:
    keys = SessionKeys()
    keys.use(known or (secrets.token_bytes(32),), signing)
    return keys


def test_a_session_is_read_by_who_has_the_keys_and_by_nobody_else() -> None:
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    session = sessions.new_session(CLOCK, "tnr_secret")
    text = sessions.write(_keys(old), session)
    assert "tnr_secret" not in text and "tnr_secret" not in repr(session)
    assert sessions.read(_keys(new, old), text, Session, CLOCK) == session
    assert sessions.read(_keys(new, old, signing=1), text, Session, CLOCK) == session
    for other in (_keys(new), _keys()):
        assert sessions.read(other, text, Session, CLOCK) is None
    for bad in (None, "", "x", text[:-4] + "AAAA", text.swapcase(), "\u00e4", "A" * 100_000):
        assert sessions.read(_keys(old), bad, Session, CLOCK) is None


def test_a_session_that_has_expired_and_a_cookie_of_another_kind_are_no_session() -> None:
    keys = _keys()
    over = Session("c", int(CLOCK.wall().timestamp()) - 1, "t")
    assert sessions.read(keys, sessions.write(keys, over), Session, CLOCK) is None
    sign_in = SignIn("s", "n", "v", "/ui/", int(CLOCK.wall().timestamp()) + 60)
    assert sessions.read(keys, sessions.write(keys, sign_in), Session, CLOCK) is None
    assert sessions.read(keys, sessions.write(keys, sign_in), SignIn, CLOCK) == sign_in


def _request(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "t:1", **headers}.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": pairs, "query_string": b""})


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://t:1"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"origin": "http://t:1"}, True),
        ({"origin": "http://t:2"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_an_act_comes_from_this_very_origin(headers: dict[str, str], is_own: bool) -> None:
    if is_own:
        guard.require_same_origin(_request(**headers))
        return
    with pytest.raises(PermissionDenied):
        guard.require_same_origin(_request(**headers))


@pytest.mark.parametrize("given", ["", "x", "wanted ", "wante\u00e4"])
def test_an_act_has_the_text_of_its_session(given: str) -> None:
    guard.require_csrf("wanted", "wanted")
    for wanted in ("wanted", ""):
        with pytest.raises(PermissionDenied):
            guard.require_csrf(given, wanted)


def test_without_credentials_only_names_count_that_nobody_can_point_here() -> None:
    names = guard.Names(["tenure.example.com"])
    for host in ("127.0.0.1:7071", "localhost", "LOCALHOST:1", "[::1]:7071", "10.2.3.4", "Tenure.Example.com:443"):
        assert names.hold(host), host
    for host in (
        "",
        "[::1",
        "[x]",
        "evil.example",
        "evil.example:7071",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ):
        assert not names.hold(host), host


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/ui//evil", "/ui/\\evil", "/ui/\nx", "javascript:1", "/ui/login?x"],
)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert _own_path(path) == "/ui/"
    assert _own_path("/ui/jobs?kind=a&state=failed") == "/ui/jobs?kind=a&state=failed"


def test_what_jobs_say_comes_out_as_text() -> None:
    template = render.environment().from_string("{{ said }} {{ data | pretty }} {{ word | state }}")
    hostile = '<script>"\x1b[2J\u202e\x00\x9b'
    html = template.render(said=hostile, data={"<b>": hostile}, word="<i>")
    assert not any(sign in html for sign in ("<script", "<b>", "<i>", "\x1b", "\u202e", "\x00", "\x9b"))
    assert "&lt;script&gt;" in html and "\\x1b[2J" in html and "\\u202e" in html


def test_lengths_of_time_and_sizes_are_for_people() -> None:
    assert [render.span(one) for one in (0, 9.94, 61, 3_600, 90_061, -5, None)] == [
        "0.0 s", "9.9 s", "1 min 1 s", "1 h", "1 d 1 h", "-5.0 s", "–",
    ]  # fmt: skip
    assert [render.size(one) for one in (0, 1023, 1536, 5 << 20)] == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB"]
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert "20 s ago" in render.at(now - timedelta(seconds=20), now) and "in 1 min" in render.at(
        now + timedelta(seconds=60), now
    )


def test_a_lease_is_written_as_etcd_does() -> None:
    assert [render.lease(one) for one in (0x1234, 2**63 + 1, -(2**63) + 1, -1)] == [
        "0000000000001234", "8000000000000001", "8000000000000001", "ffffffffffffffff",
    ]  # fmt: skip


def test_a_preview_that_was_not_counted_says_that_all_are_meant() -> None:
    session = Session("c", 0)
    visit = Visit(cast(Any, SimpleNamespace(clock=CLOCK, asks=True)), _request(), session, cast(Any, None))
    asked = {"kind": "a&b", "label": ""}
    shown: dict[str, Any] = {
        "act": "cancel",
        "number": None,
        "executing": 0,
        "ids": (),
        "is_all": False,
        "asked": asked,
        "states": [],
    }
    soon = render.render("bulk.html", visit.context(**shown, is_long=False))
    assert "Cancel all matching jobs?" in soon and "all that match this filter" in soon
    assert 'href="/ui/jobs/all/cancel?count=yes&amp;kind=a%26b"' in soon
    late = render.render("bulk.html", visit.context(**shown, is_long=True))
    assert "in ten seconds" in late and "count-longer" not in late


def test_minutes_are_drawn_in_proportion_and_told_in_words() -> None:
    svg = charts.minutes([Figures(), Figures(completed=3, failed=1), Figures(completed=8)])
    assert svg.count('class="completed"') == 2 and svg.count('class="failed"') == 1
    assert "12 in all, 1 failed" in svg and "1 min ago: 3 completed, 1 failed" in svg


def _attempt(number: int, at: datetime, **more: Any) -> Attempt:
    told: dict[str, Any] = {
        "job_id": "j", "attempt": number, "fence": 100 + number, "worker": f"w{number}", "lease": 1,
        "claim_revision": 1, "outcome": Outcome.LOST, "error": None,
        "started_at": at, "finished_at": at + timedelta(seconds=5), **more,
    }  # fmt: skip
    return Attempt(**told)


def test_attempts_are_drawn_in_time_with_owner_and_fence() -> None:
    began = datetime(2026, 11, 22, 12, tzinfo=UTC)
    job: Any = SimpleNamespace(created_at=began, finished_at=None)
    attempts = [
        _attempt(1, began + timedelta(seconds=5)),
        _attempt(2, began + timedelta(seconds=20), worker='<b>"w"</b>\x1b', outcome=None, finished_at=None),
    ]
    svg = charts.timeline(job, attempts, began + timedelta(seconds=40))
    bars = re.findall(r'<rect class="bar (\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    left, width = charts.WIDTH / 40, charts.WIDTH / 40
    assert [name for name, _, _ in bars] == ["lost", "executing"]
    for (_, x, wide), (start, length) in zip(bars, ((5, 5), (20, 20)), strict=True):
        assert abs(float(x) - start * left) < 10 and abs(float(wide) - length * width) < 10
    assert "fence 101" in svg and "w1" in svg and "&lt;b&gt;" in svg
    assert "<b>" not in svg and "\x1b" not in svg
    assert "2 attempts within 40 s" in svg


def test_of_many_attempts_the_last_are_drawn_and_none_is_no_error() -> None:
    began = datetime(2026, 11, 22, 12, tzinfo=UTC)
    job: Any = SimpleNamespace(created_at=began, finished_at=began)
    many = [_attempt(number, began + timedelta(seconds=number)) for number in range(1, 101)]
    svg = charts.timeline(job, many, began)
    assert svg.count('class="bar') == charts.MAX_ATTEMPTS and "the first 70 are not drawn" in svg
    assert "not started yet" in charts.timeline(job, [], began)


def test_vendored_files_are_those_that_the_manifest_names() -> None:
    named = json.loads((render.STATIC / "vendored.json").read_text())
    scripts = {file.name for file in render.STATIC.iterdir() if file.name.endswith(".js")}
    assert scripts == {*named, "dashboard.js"}
    for name, told in named.items():
        assert hashlib.sha256((render.STATIC / name).read_bytes()).hexdigest() == told["sha256"]
        assert (render.STATIC / name.replace(".min.js", ".LICENSE")).is_file() and told["licence"] == "0BSD"


def test_what_checks_pages_is_what_the_manifest_names() -> None:
    folder = Path(__file__).parent / "vendor"
    for name, told in json.loads((folder / "vendored.json").read_text()).items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told["sha256"]
    assert (folder / "axe.LICENSE").is_file()


def test_templates_have_no_script_style_or_handler_inline() -> None:
    for name in render.environment().list_templates():
        render.environment().get_template(name)
        source = (TEMPLATES / name).read_text()
        assert " style=" not in source and "<style" not in source and "javascript:" not in source, name
        assert not any(f" on{event}=" in source for event in ("click", "load", "error", "submit", "change")), name
        assert "| safe" not in source and "hx-on" not in source, name
        assert all(" src=" in part.partition(">")[0] for part in source.split("<script")[1:]), name


class _Caller:
    role, namespaces = "viewer", ("*",)


def _visit(**more: Any) -> Any:
    async def caller() -> _Caller:
        return _Caller()

    return SimpleNamespace(caller=_Caller(), client=SimpleNamespace(caller=caller), **more)


def _stream(live: Live, produce: Produce) -> Any:
    return cast(StreamingResponse, live.watch(_visit(), "thing", produce, every_s=0.01)).body_iterator


async def test_viewers_share_a_poll_that_ends_with_the_last_of_them() -> None:
    live = Live(CLOCK)
    polls = 0

    async def produce() -> dict[str, str]:
        nonlocal polls
        polls += 1
        return {"n": "<p>\nsame</p>"}

    streams = [_stream(live, produce) for _ in range(20)]
    for stream in streams:
        assert await anext(stream) == b"retry: 2000\n\n"
    firsts = await asyncio.gather(*(anext(stream) for stream in streams))
    assert set(firsts) == {b"event: n\ndata: <p>\ndata: same</p>\n\n"}
    assert polls < 20
    for stream in streams:
        await stream.aclose()
    await asyncio.sleep(0)
    before = polls
    await asyncio.sleep(0.05)
    assert polls == before
    await live.close()


async def test_the_end_is_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(CLOCK)

    async def produce() -> dict[str, str]:
        return {"state": "over", ENDED: "yes"}

    async def lines() -> AsyncIterator[tuple[str, str]]:
        for number in range(3):
            await asyncio.sleep(0.02)
            yield "lines", str(number)

    answer = live.watch(_visit(), "thing", produce, every_s=0.01, beside=lines())
    told = [part async for part in cast(StreamingResponse, answer).body_iterator]
    text = "".join(part.decode() if isinstance(part, bytes) else str(part) for part in told)
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert sorted(names[:-1]) == ["lines", "lines", "lines", "state", "trouble"] and names[-1] == ENDED
    await live.close()


async def test_nothing_is_polled_any_more_when_it_is_closed() -> None:
    live = Live(CLOCK)
    began, ended = asyncio.Event(), asyncio.Event()

    async def produce() -> dict[str, str]:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # ends a little later than it is told to
            ended.set()
        return {}

    stream = _stream(live, produce)
    assert await anext(stream) == b"retry: 2000\n\n"
    watching = asyncio.ensure_future(anext(stream, None))
    await began.wait()
    await live.close()
    assert ended.is_set()
    assert await watching is None


async def test_a_poll_that_is_refused_ends_for_all_who_watch() -> None:
    live = Live(CLOCK)
    refused = asyncio.Event()

    async def produce() -> dict[str, str]:
        if refused.is_set():
            raise Unauthenticated("revoked")
        return {"n": "1"}

    streams = [_stream(live, produce) for _ in range(3)]
    for stream in streams:
        assert await anext(stream) == b"retry: 2000\n\n"
        assert await anext(stream) == b"event: n\ndata: 1\n\n"
    refused.set()
    left = await asyncio.gather(*(_rest(stream) for stream in streams))
    assert {part for told in left for part in told} <= {b"event: trouble\ndata: \n\n"}, "each begins anew"
    await live.close()


async def _rest(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [part async for part in stream]


async def test_viewers_are_bounded() -> None:
    live = Live(CLOCK)

    async def produce() -> dict[str, str]:
        return {"n": ""}

    streams: list[Any] = []
    with pytest.raises(BoundExceeded):
        for _ in range(MAX_VIEWERS + 1):
            stream = _stream(live, produce)
            await anext(stream)
            streams.append(stream)
    assert len(streams) == MAX_VIEWERS
    for stream in streams:
        await stream.aclose()
    await live.close()


async def test_a_log_that_comes_faster_than_it_is_taken_ends_with_its_viewer() -> None:
    class Chatty:
        async def logs(self, id: str, *, follow: bool, tail: int) -> AsyncIterator[LogLine]:
            while True:
                await asyncio.sleep(0)
                yield LogLine(
                    attempt=1, seq=1, at=CLOCK.wall(), level="info", message="m", fields={}, logger="", code=""
                )

    growing = job_page._growing(
        cast(Any, SimpleNamespace(client=Chatty(), dashboard=SimpleNamespace(clock=CLOCK))), "j"
    )
    assert (await anext(growing))[0] == "tail"
    await asyncio.sleep(0.5)  # so many come that its queue is full
    await cast(Any, growing).aclose()


async def test_requests_are_bounded_and_a_stream_counts_until_it_has_ended() -> None:
    places, entered, go_on = Places(1), asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        entered.set()
        yield b"first"
        await go_on.wait()

    async def page(request: Request) -> StreamingResponse:
        return StreamingResponse(stream())

    app = Starlette(routes=[Route("/", page, middleware=[Middleware(Bounded, places)])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://d") as http:
        first = asyncio.create_task(http.get("/"))
        await entered.wait()
        refused = await http.get("/")
        assert refused.status_code == 503 and "retry-after" in refused.headers
        assert "content-security-policy" in refused.headers
        go_on.set()
        assert (await first).text == "first"
        assert places.taken == 0
        assert (await http.get("/")).status_code == 200
