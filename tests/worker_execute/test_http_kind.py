"""The http kind against real listeners, and the rules about where it may connect."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tenure.model.errors import ConfigurationError
from tenure.model.states import Outcome
from tenure.worker.handler import Handler
from tenure.worker.harness import Harness, Run
from tenure.worker.kinds.builtin import builtin
from tenure.worker.kinds.egress import EgressPolicy, EgressRefused, Resolver, check, refusal

LOOPBACK = EgressPolicy.allowing(["127.0.0.0/8"])


@dataclass
class Listener:
    """A real TCP listener with canned answers, which remembers what it was sent."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def listening(answer: bytes, *, then_wait: bool = False) -> AsyncIterator[Listener]:
    seen = Listener()
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-l")]
            seen.requests.append(head + (await reader.readexactly(length[0]) if length else b""))
            writer.write(answer)
            await writer.drain()
            if then_wait:
                await release.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield seen
        finally:
            release.set()


def answering(status: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def http(policy: EgressPolicy = LOOPBACK, resolver: Resolver | None = None) -> Handler:
    registry = builtin(egress=policy, resolver=resolver) if resolver else builtin(egress=policy)
    handler = registry.get("http")
    assert handler is not None
    return handler


async def request(handler: Handler, **payload: object) -> Run:
    return await Harness().run(handler, payload)


def resolving(*answers: list[str]) -> Resolver:
    """A resolver that gives the next answer each time it is asked, as a rebinding name server does."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_a_request_and_its_answer() -> None:
    async with listening(answering("200 OK", b'{"ok": true}', "X-Seen: yes\r\n")) as server:
        run = await request(
            http(),
            url=f"http://127.0.0.1:{server.port}/path?q=1#fragment",
            method="POST",
            headers={"X-Mine": "1"},
            body={"a": 1},
        )
    assert run.result["status"] == 200
    assert run.result["body"] == '{"ok": true}'
    assert run.result["headers"]["x-seen"] == "yes"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /path?q=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert {"X-Mine: 1", "Tenure-Attempt: 1", "Accept-Encoding: identity"} <= set(lines)
    assert body == b'{"a":1}'


async def test_the_checked_address_is_the_one_connected_to() -> None:
    """A name that answers well when checked and badly afterwards: asked once, so the second answer changes nothing."""
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async with listening(answering("204 No Content")) as server:
        run = await request(http(resolver=rebinding), url=f"http://name.example:{server.port}/")
    assert run.outcome is Outcome.COMPLETED
    assert asked == ["name.example"]
    assert f"Host: name.example:{server.port}".encode() in server.requests[0]


async def test_a_name_that_resolves_inside_reaches_nobody() -> None:
    async with listening(answering("200 OK")) as canary:
        for resolver in (resolving(["127.0.0.1"]), resolving(["93.184.216.34", "127.0.0.1"])):
            for scheme in ("http", "https"):
                run = await request(
                    http(EgressPolicy(allow_http=True), resolver), url=f"{scheme}://evil.example:{canary.port}/"
                )
                assert run.error is not None
                assert (run.error.type, run.ended.retryable) == ("EgressRefused", False)
    assert canary.connections == 0


async def test_redirects_are_not_followed() -> None:
    async with listening(answering("200 OK")) as canary:
        location = f"Location: http://127.0.0.1:{canary.port}/\r\n"
        async with listening(answering("302 Found", b"", location)) as server:
            run = await request(http(), url=f"http://127.0.0.1:{server.port}/")
    assert run.error is not None
    assert "redirects are not followed" in run.error.message
    assert not run.ended.retryable
    assert canary.connections == 0


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (404, False), (408, True), (409, False), (429, True), (500, True), (503, True)],
)
async def test_what_is_worth_another_attempt(status: int, retryable: bool) -> None:
    async with listening(answering(f"{status} X", b"because")) as server:
        run = await request(http(), url=f"http://127.0.0.1:{server.port}/")
    assert run.error is not None
    assert (run.error.type, run.ended.retryable) == ("HttpStatus", retryable)
    assert "because" in run.error.message


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(answering("200 OK")) as proxy, listening(answering("200 OK")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        run = await request(http(), url=f"http://127.0.0.1:{server.port}/")
    assert run.outcome is Outcome.COMPLETED
    assert (proxy.connections, server.connections) == (0, 1)


async def test_a_large_answer_is_cut_and_compression_is_not_undone() -> None:
    import gzip

    policy = EgressPolicy(allow_networks=LOOPBACK.allow_networks, max_response_bytes=100_000, max_body_bytes=1_000)
    async with listening(answering("200 OK", b"z" * 5_000_000)) as server:
        run = await request(http(policy), url=f"http://127.0.0.1:{server.port}/")
    assert (run.result["body"], run.result["is_cut"]) == ("z" * 1_000, True)
    bomb = gzip.compress(b"\0" * 10_000_000)
    async with listening(answering("200 OK", bomb, "Content-Encoding: gzip\r\n")) as server:
        run = await request(http(policy), url=f"http://127.0.0.1:{server.port}/")
    assert len(run.result["body"]) <= 1_000


async def test_an_answer_that_does_not_come() -> None:
    async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", then_wait=True) as server:
        run = await request(http(), url=f"http://127.0.0.1:{server.port}/", timeout_s=0.3)
    assert run.error is not None
    assert (run.error.type, run.ended.retryable) == ("HttpTimeout", True)


async def test_network_errors_are_worth_another_attempt() -> None:
    async with listening(b"") as server:
        pass
    refused = await request(http(), url=f"http://127.0.0.1:{server.port}/")

    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    unknown = await request(http(resolver=nothing), url="https://nowhere.example/")
    async with listening(b"gibberish\r\n\r\n") as server:
        broken = await request(http(), url=f"http://127.0.0.1:{server.port}/")
    for run in (refused, unknown, broken):
        assert run.error is not None
        assert (run.error.type, run.ended.retryable) == ("HttpError", True)


async def test_tls_names_the_host_not_the_address() -> None:
    """The handshake asks for the name; a listener without a certificate gets no request."""
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.read(4_096))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        run = await request(http(resolver=resolving(["127.0.0.1"])), url=f"https://named.example:{port}/secret")
    assert run.error is not None
    assert run.error.type == "HttpError"
    assert b"named.example" in seen
    assert b"secret" not in seen


@pytest.mark.parametrize(
    ("field_", "payload"),
    [
        ("headers", {"headers": {"Host": "evil"}}),
        ("headers", {"headers": {"Proxy-Authorization": "x"}}),
        ("headers", {"headers": {"Transfer-Encoding": "chunked"}}),
        ("headers", {"headers": {"A": "b\r\nC: d"}}),
        ("headers", {"headers": {"A\r\nB": "c"}}),
        ("method", {"method": "CONNECT"}),
        ("method", {"method": "get / HTTP/1.1\r\n"}),
        ("timeout_s", {"timeout_s": 0}),
        ("verify", {"verify": False}),
    ],
)
async def test_malformed_payloads(field_: str, payload: dict[str, object]) -> None:
    run = await request(http(), url="https://example.com/", **payload)
    assert run.error is not None
    assert run.error.type == "InvalidPayload"
    assert field_ in run.error.message


BAD_URLS = [
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "//example.com/",
    "https://",
    "https:///path",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "https://exam ple.com/",
    "https://example.com/\r\nHost: evil",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://[::1",
    "https://[fe80::1%25eth0]/",
    "http://example.com/",
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_urls_refused_before_a_connection(url: str) -> None:
    with pytest.raises(EgressRefused):
        await check(url, EgressPolicy(), resolving(["93.184.216.34"]))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "10.0.0.1",
        "192.168.1.1:5432",
        "172.16.0.1:2379",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ],
)
async def test_addresses_in_disguise(host: str) -> None:
    """Through the system's own resolver, which knows the odd ways to write a number."""
    with pytest.raises((EgressRefused, OSError)):
        await check(f"https://{host}/", EgressPolicy(), resolve_really())


def resolve_really() -> Resolver:
    from tenure.worker.kinds.egress import resolve

    return resolve


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("127.255.255.254", False),
        ("0.0.0.0", False),
        ("10.255.0.1", False),
        ("172.31.255.255", False),
        ("172.32.0.1", True),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("100.127.255.255", False),
        ("100.128.0.1", True),
        ("168.63.129.16", False),
        ("192.0.0.8", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::a00:1", False),
        ("2002:7f00:1::", False),
        ("2002:5db8:d822::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("100::1", False),
    ],
)
def test_which_addresses_are_public(address: str, is_public: bool) -> None:
    assert (refusal(ipaddress.ip_address(address)) is None) == is_public


async def test_what_is_allowed_by_name_or_network() -> None:
    policy = EgressPolicy.allowing(["10.0.0.0/8", "Hooks.Intranet"])
    for host, address, is_allowed in [
        ("a.example", "10.1.2.3", True),
        ("a.example", "::ffff:10.1.2.3", True),
        ("a.example", "192.168.0.1", False),
        ("hooks.intranet", "192.168.0.1", True),
        ("hooks.intranet.evil.example", "192.168.0.1", False),
    ]:
        expecting = contextlib.nullcontext() if is_allowed else pytest.raises(EgressRefused)
        with expecting:
            await check(f"https://{host}/", policy, resolving([address]))
    for bad in ("not a host", "10.0.0.0/33", ""):
        with pytest.raises(ConfigurationError):
            EgressPolicy.allowing([bad])


async def test_noop_and_sleep() -> None:
    registry = builtin()
    noop, sleep = registry.get("noop"), registry.get("sleep")
    assert noop is not None
    assert sleep is not None
    async with Harness() as harness:
        assert (await harness.run(noop, {"anything": [1]})).ended.result == "null"
        assert (await harness.run(sleep, {"seconds": 0})).outcome is Outcome.COMPLETED
        assert (await harness.run(sleep, {"seconds": 600}, cancel_after=0.05)).outcome is Outcome.CANCELED
        for payload in ({"seconds": -1}, {"seconds": "NaN"}, {}, {"seconds": 1, "more": 1}, None):
            run = await harness.run(sleep, payload)
            assert run.error is not None
            assert run.error.type == "InvalidPayload"
