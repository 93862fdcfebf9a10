"""TLS on both listeners of a coordinator: what is refused by whom, whose certificate it is, and how one is renewed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from structlog.testing import capture_logs
from tests.connect_proxy import ConnectProxy
from tests.coordinator.conftest import running, until
from tests.fixtures.certificates import Authority, Pair

from tenure.client import AsyncClient
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.hint import Hints
from tenure.model.clock import SystemClock
from tenure.model.errors import ConfigurationError, Unavailable
from tenure.probes import tls as module
from tenure.probes.server import HttpServer
from tenure.probes.tls import ServerTLS, subjects
from tenure.v1 import runner_api
from tenure.v1.bearer import Bearer
from tenure.v1.cluster_service_pb2 import HintReadyResponse
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceServicer, add_ClusterServiceServicer_to_server
from tenure.v1.dial import TLS, Dialer, tls_from_environment
from tenure.v1.worker_service_pb2 import StartAttemptsRequest, StartAttemptsResponse
from tenure.v1.worker_service_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from tenure.worker.coordinators import Coordinators
from tenure.worker.remote.api import Api
from tenure.worker.remote.tls import RunnerTLS

PATIENCE_S = 30.0
Authorities = Callable[[str], Authority]


@dataclass
class Listening:
    """Both listeners, with one certificate of ``ours``."""

    ours: Authority
    pair: Pair
    tls: ServerTLS
    grpc: str
    http: str


Listen = Callable[..., Any]


async def _whose(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.scope["state"]["subjects"]))


async def _session(request: Request) -> JSONResponse:
    """Answer a runner, whose next call needs a connection of its own."""
    name = request.scope["state"]["subjects"].get("x509_common_name", ("",))[0]
    session = {"session": "token", "runner": name, "lease": "1", "ttl_s": 9.0, "is_new": True}
    return JSONResponse(session, headers={"connection": "close"})


@pytest.fixture
async def listen(authority: Authorities) -> AsyncIterator[Listen]:
    """Start both: ``await listen(days=-1, …)`` with arguments of ``Authority.issue`` and of ``ServerTLS``."""
    async with AsyncExitStack() as stack:

        async def start(*, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 1, **settings: Any) -> Listening:
            ours = authority("ours")
            pair = ours.issue("/CN=coordinator", names=names, days=days)
            if settings.pop("mutual", False):
                settings["client_ca_file"] = ours.ca
            tls = ServerTLS(pair.cert, pair.key, **settings)
            grpc_server = GrpcServer((), listen="127.0.0.1:0", with_reflection=False, tls=tls)
            await grpc_server.start()
            stack.push_async_callback(grpc_server.stop, 0)
            await grpc_server.set_serving(True)
            session = Route(f"{runner_api.PREFIX}session", _session, methods=["POST"])
            app = Starlette(routes=[Route("/livez", _whose), session])
            http_server = HttpServer(app, listen="127.0.0.1:0", variable="TENURE_HTTP_LISTEN", tls=tls)
            http_server.bind()
            await stack.enter_async_context(running(http_server.run()))
            return Listening(ours, pair, tls, grpc_server.address, http_server.address)

        yield start


async def ask_grpc(address: str, tls: TLS | None, *, dialer: Dialer | None = None) -> str | None:
    """Ask for the health over a new connection: None if all is well, else what is wrong."""
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    async with (dialer or Dialer(tls)).channel(address, options) as channel:
        try:
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            answer = await call
        except grpc.aio.AioRpcError as exc:
            assert exc.code() is grpc.StatusCode.UNAVAILABLE
            return exc.details() or "unavailable"
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    return None


def _context(tls: TLS) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


async def whose(address: str, tls: TLS) -> dict[str, list[str]]:
    """Return what the application over HTTP knows of its client. Raises ``httpx.TransportError``."""
    async with httpx.AsyncClient(verify=_context(tls), timeout=PATIENCE_S, trust_env=False) as client:
        told: dict[str, list[str]] = (await client.get(f"https://{address}/livez")).json()
        return told


async def ask_http(address: str, tls: TLS) -> str | None:
    """The same over HTTP."""
    try:
        await whose(address, tls)
    except httpx.TransportError as exc:
        return str(exc) or type(exc).__name__
    return None


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "_CA", "_CLIENT_CERT", "_CLIENT_KEY", "_SERVER_NAME"):
        monkeypatch.delenv(f"TENURE_TLS{name}", raising=False)


async def test_who_knows_the_authority_is_served(listen: Listen) -> None:
    on = await listen()
    assert await ask_grpc(on.grpc, TLS(ca_file=on.ours.ca)) is None
    assert await whose(on.http, TLS(ca_file=on.ours.ca)) == {}


async def test_plaintext_is_refused(listen: Listen) -> None:
    on = await listen()
    assert await ask_grpc(on.grpc, None) is not None
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://{on.http}/livez")


def _handshake(address: str, ca: Path, version: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse already
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return secure.version()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("listener", ["grpc", "http"])
async def test_tls_is_1_2_or_later(listen: Listen, listener: str) -> None:
    on = await listen()
    address = getattr(on, listener)
    assert await asyncio.to_thread(_handshake, address, on.ours.ca, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert await asyncio.to_thread(_handshake, address, on.ours.ca, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ssl.SSLError, match=r"EOF|(?i:protocol.version)"):
            await asyncio.to_thread(_handshake, address, on.ours.ca, old)


async def test_another_authority_is_refused_by_clients(listen: Listen, authority: Authorities) -> None:
    on = await listen()
    other = TLS(ca_file=authority("theirs").ca)
    assert "certificate" in str(await ask_grpc(on.grpc, other)).lower()
    assert "certificate verify failed" in str(await ask_http(on.http, other))
    public = TLS()
    assert await ask_grpc(on.grpc, public) is not None
    assert "certificate verify failed" in str(await ask_http(on.http, public))


async def test_a_client_is_told_what_is_wrong_with_its_tls(listen: Listen, authority: Authorities) -> None:
    on = await listen()
    elsewhere = TLS(ca_file=on.ours.ca, server_name="workers.example")
    for shown, next_step in (
        (None, "set TENURE_TLS_CA"),
        (TLS(ca_file=authority("theirs").ca), "of another authority than TENURE_TLS_CA"),
        (elsewhere, "TENURE_TLS_SERVER_NAME"),
    ):
        async with AsyncClient(on.grpc, tls=shown, timeout_s=5.0) as client:
            with pytest.raises(Unavailable) as refused:
                await client.workers()
        assert next_step in str(refused.value.hint), refused.value


async def test_a_wrong_name_is_refused_by_clients(listen: Listen) -> None:
    on = await listen(names="DNS:coordinators.example")
    assert await ask_grpc(on.grpc, TLS(ca_file=on.ours.ca)) is not None
    assert "certificate verify failed" in str(await ask_http(on.http, TLS(ca_file=on.ours.ca)))
    assert await ask_grpc(on.grpc, TLS(ca_file=on.ours.ca, server_name="coordinators.example")) is None
    assert await ask_grpc(on.grpc, TLS(ca_file=on.ours.ca, server_name="workers.example")) is not None


async def test_an_expired_certificate_is_refused_by_clients(listen: Listen) -> None:
    on = await listen(days=-1)
    assert "certificate" in str(await ask_grpc(on.grpc, TLS(ca_file=on.ours.ca))).lower()
    assert "expired" in str(await ask_http(on.http, TLS(ca_file=on.ours.ca)))


def _showing(on: Listening, pair: Pair | None) -> TLS:
    if pair is None:
        return TLS(ca_file=on.ours.ca)
    return TLS(ca_file=on.ours.ca, cert_file=pair.cert, key_file=pair.key)


async def test_client_certificates(listen: Listen, authority: Authorities) -> None:
    on = await listen(mutual=True, require_client=True)
    client = on.ours.issue("/O=x/CN=ada", names="DNS:ada.example,URI:spiffe://x/ada")
    assert await ask_grpc(on.grpc, _showing(on, client)) is None
    assert await whose(on.http, _showing(on, client)) == {
        "x509_subject": ["CN=ada,O=x"],
        "x509_common_name": ["ada"],
        "x509_subject_alternative_name": ["ada.example", "spiffe://x/ada"],
    }
    assert await whose(on.http, _showing(on, None)) == {}, "over HTTP it need not be shown: probes have none"
    stranger, expired = authority("theirs").issue("/O=x/CN=ada"), on.ours.issue("/O=x/CN=ada", days=-1)
    for refused in (None, stranger, expired):
        assert await ask_grpc(on.grpc, _showing(on, refused)) is not None
    for refused in (stranger, expired):
        assert await ask_http(on.http, _showing(on, refused)) is not None


@pytest.mark.parametrize(
    "subject", ["/C=NO/O=x, y/OU=a/CN=ada", "/O=x+OU=y/CN=#a=b;c", "/DC=example/O= Bl\u00e5 <x> /CN=\u65e5,CN=root"]
)
async def test_what_grpc_calls_a_subject_http_does_too(listen: Listen, subject: str) -> None:
    on = await listen(mutual=True, require_client=True)
    client = on.ours.issue(subject, names="DNS:ada.example")
    seen: list[Any] = []

    class Looking(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: Any, context: Any) -> Any:
            seen.append(context.auth_context())
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Looking(), server)
    port = server.add_secure_port("127.0.0.1:0", on.tls.grpc_credentials())
    await server.start()
    assert await ask_grpc(f"127.0.0.1:{port}", _showing(on, client)) is None
    await server.stop(0)
    told = await whose(on.http, _showing(on, client))
    assert {name: [one.decode() for one in seen[0][name]] for name in told} == told


async def test_grpc_asks_for_no_certificate_unless_it_demands_one(listen: Listen) -> None:
    on = await listen(mutual=True)
    assert await ask_grpc(on.grpc, _showing(on, None)) is None
    assert await whose(on.http, _showing(on, on.ours.issue("/CN=ada"))) != {}


def test_nobody_is_nobody() -> None:
    assert subjects(None) == {} and subjects({}) == {}
    assert subjects({"subject": ((("commonName", "a,CN=root"),),)})["x509_subject"] == (r"CN=a\,CN=root",)


def _serial(address: str, ca: Path) -> bytes:
    """Return the certificate that a listener shows."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return shown


async def _is_shown(address: str, ca: Path, wanted: Pair) -> bool:
    return await asyncio.to_thread(_serial, address, ca) == _der(wanted)


def _der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


async def test_a_renewed_certificate_is_shown_without_a_restart(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    on = await listen()
    ca = TLS(ca_file=on.ours.ca)
    async with running(on.tls.watch()), httpx.AsyncClient(verify=_context(ca), timeout=PATIENCE_S) as before:
        assert (await before.get(f"https://{on.http}/livez")).status_code == 200
        for _ in range(2):
            renewed = on.ours.issue("/CN=coordinator")
            on.pair.replace(renewed)
            for address in (on.grpc, on.http):
                await until(partial(_is_shown, address, on.ours.ca, renewed))
        assert (await before.get(f"https://{on.http}/livez")).status_code == 200, "connections stay"
        assert await ask_grpc(on.grpc, ca) is None


async def test_a_broken_renewal_keeps_what_was(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    on = await listen()
    first = _der(on.pair)
    old_key, renewed = on.pair.key.read_bytes(), on.ours.issue("/CN=coordinator")

    async def shown() -> set[bytes]:
        return {await asyncio.to_thread(_serial, address, on.ours.ca) for address in (on.grpc, on.http)}

    for cert, key in (
        (renewed.cert.read_bytes(), old_key),  # half of it is there
        (b"no certificate\n", renewed.key.read_bytes()),
        (b"", b""),
    ):
        on.pair.cert.write_bytes(cert)
        on.pair.key.write_bytes(key)
        with capture_logs() as logs:
            on.tls.reread()
            on.tls.reread()
        (entry,) = [one for one in logs if one["log_level"] == "error"]  # said once
        assert entry["event"] == "certificate_not_renewed" and str(on.pair.cert) in entry["error"]
        assert await shown() == {first}
    on.pair.key.unlink()
    on.tls.reread()
    assert await shown() == {first}
    on.pair.replace(renewed)
    on.tls.reread()
    assert await shown() == {_der(renewed)}


async def test_a_renewed_client_authority_is_the_one_that_counts(listen: Listen, authority: Authorities) -> None:
    on = await listen(mutual=True, require_client=True)
    theirs = authority("theirs")
    mine, its = on.ours.issue("/CN=ada"), theirs.issue("/CN=ada")
    known = on.ours.ca.with_name("known.pem")
    known.write_bytes(on.ours.ca.read_bytes())
    tls = {
        name: TLS(ca_file=known, cert_file=one.cert, key_file=one.key) for name, one in (("mine", mine), ("its", its))
    }
    for served in ("mine", "its"):
        for name, shown in tls.items():
            assert (await ask_grpc(on.grpc, shown) is None) is (name == served), (served, name)
            assert (await ask_http(on.http, shown) is None) is (name == served), (served, name)
        on.ours.ca.write_bytes(theirs.ca.read_bytes())
        on.tls.reread()


def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, authority: Authorities) -> None:
    ours = authority("ours")
    pair, other = ours.issue("/CN=a"), ours.issue("/CN=b")
    nothing, nonsense = tmp_path / "nothing.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    for cert, key, named in (
        (nothing, pair.key, nothing),
        (pair.cert, nothing, nothing),
        (nonsense, pair.key, nonsense),
        (pair.cert, other.key, other.key),
    ):
        with pytest.raises(ConfigurationError, match=named.name):
            ServerTLS(cert, key)
    for ca in (nothing, nonsense):
        with pytest.raises(ConfigurationError, match=ca.name):
            ServerTLS(pair.cert, pair.key, client_ca_file=ca)


# -- clients --


async def test_a_renewed_client_certificate_is_read_after_a_failure(listen: Listen) -> None:
    on = await listen(mutual=True, require_client=True)
    client = on.ours.issue("/CN=ada", days=-1)
    dialer = Dialer(_showing(on, client))
    assert await ask_grpc(on.grpc, None, dialer=dialer) is not None
    assert not dialer.reread()
    client.replace(on.ours.issue("/CN=ada"))
    assert dialer.reread() and not dialer.reread()
    assert await ask_grpc(on.grpc, None, dialer=dialer) is None
    client.key.unlink()
    assert not dialer.reread()
    assert await ask_grpc(on.grpc, None, dialer=dialer) is None, "what was read last is kept"


async def test_hints_go_to_other_coordinators_over_mutual_tls(listen: Listen) -> None:
    on = await listen(mutual=True, require_client=True)
    hinted: asyncio.Queue[list[int]] = asyncio.Queue()

    class Leading(ClusterServiceServicer):
        async def HintReady(self, request: Any, context: Any) -> Any:
            hinted.put_nowait(sorted(request.lanes))
            return HintReadyResponse()

    server = grpc.aio.server()
    add_ClusterServiceServicer_to_server(Leading(), server)
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', on.tls.grpc_credentials())}"
    await server.start()
    other = on.ours.issue("/CN=coordinator-2", days=-1)
    hints = Hints(lambda: address, lambda lanes: False, tls=_showing(on, other))
    async with running(hints.run()), asyncio.timeout(PATIENCE_S):
        hints.ready([1])
        other.replace(on.ours.issue("/CN=coordinator-2"))
        while hinted.empty():
            hints.ready([7])  # any may be lost; the certificate is read anew after one that was
            await asyncio.sleep(0.05)
        assert 7 in await hinted.get()
    await server.stop(0)


async def test_workers_read_a_renewed_certificate_after_a_failure(listen: Listen) -> None:
    on = await listen(mutual=True, require_client=True)

    class Answering(WorkerServiceServicer):
        async def StartAttempts(self, request: Any, context: Any) -> Any:
            return StartAttemptsResponse()

    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(Answering(), server)
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', on.tls.grpc_credentials())}"
    await server.start()
    mine = on.ours.issue("/CN=worker", days=-1)
    coordinators = Coordinators(lambda: [address], SystemClock(), tls=_showing(on, mine))
    with pytest.raises(Unavailable):
        await coordinators.call("StartAttempts", StartAttemptsRequest(), timeout_s=1.0)
    mine.replace(on.ours.issue("/CN=worker"))
    assert (
        await coordinators.call("StartAttempts", StartAttemptsRequest(), timeout_s=PATIENCE_S)
        == StartAttemptsResponse()
    )
    await coordinators.close()
    await server.stop(0)


class Runner:
    """Calls by HTTPS as a runner does."""

    def __init__(self, on: Listening, tls: TLS) -> None:
        self._api = Api([f"https://{on.http}"], SystemClock(), bearer=Bearer(), tls=RunnerTLS(tls))

    async def shows(self, *, timeout_s: float = PATIENCE_S, once: bool = False) -> str:
        """Call; return whose certificate the coordinator saw. Raises ``Unavailable``."""
        request = runner_api.OpenSession(runner_api.Runner("far", ("default",), ("k",), 1))
        session, _ = await self._api.call("session", request, runner_api.Session, timeout_s=timeout_s, once=once)
        return session.runner

    async def is_refused(self) -> bool:
        """Call, not for long."""
        try:
            await self.shows(timeout_s=1.0)
        except Unavailable:
            return True
        return False

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()


Far = Callable[[Listening, TLS], Runner]


@pytest.fixture
async def far(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    """Make a runner: ``far(on, tls)``."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with AsyncExitStack() as stack:

        def make(on: Listening, tls: TLS) -> Runner:
            runner = Runner(on, tls)
            stack.push_async_callback(runner.close)
            return runner

        yield make


async def test_a_runner_reads_a_renewed_certificate_after_a_failure(listen: Listen, far: Far) -> None:
    on = await listen(mutual=True)
    mine = on.ours.issue("/CN=far", days=-1)
    runner = far(on, _showing(on, mine))
    assert await runner.is_refused()
    mine.replace(on.ours.issue("/CN=far"))
    assert await runner.shows() == "far"
    mine.key.write_bytes(b"nonsense")
    assert await runner.shows() == "far", "what was read last is kept"


async def test_a_runner_reads_a_renewed_authority_after_a_failure(
    listen: Listen, far: Far, authority: Authorities
) -> None:
    on = await listen()
    known = on.ours.ca.with_name("known.pem")
    known.write_bytes(on.ours.ca.read_bytes())
    runner = far(on, TLS(ca_file=known))
    assert await runner.shows() == ""
    theirs = authority("theirs")
    on.pair.replace(theirs.issue("/CN=coordinator"))
    on.tls.reread()
    assert await runner.is_refused()
    known.write_bytes(theirs.ca.read_bytes())
    with pytest.raises(Unavailable):
        await runner.shows(once=True)  # a poll is asked once; it has the files read all the same
    assert await runner.shows(once=True) == ""


@pytest.mark.parametrize("through_a_proxy", [False, True])
async def test_a_runner_expects_the_name_that_it_is_told(
    listen: Listen, far: Far, monkeypatch: pytest.MonkeyPatch, through_a_proxy: bool
) -> None:
    on = await listen(names="DNS:coordinators.example")
    async with ConnectProxy(on.http, [on.http], host="127.0.0.1") as proxy:
        if through_a_proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
            monkeypatch.setenv("NO_PROXY", "")
        assert await far(on, TLS(ca_file=on.ours.ca, server_name="coordinators.example")).shows() == ""
        assert await far(on, TLS(ca_file=on.ours.ca, server_name="workers.example")).is_refused()
        assert await far(on, TLS(ca_file=on.ours.ca)).is_refused()
        assert (proxy.taken > 0) is through_a_proxy


def test_the_files_of_a_runner_are_named_at_the_start(tmp_path: Path, authority: Authorities) -> None:
    nothing = tmp_path / "nothing.pem"
    pair = authority("ours").issue("/CN=far")
    for tls in (TLS(ca_file=nothing), TLS(cert_file=pair.cert, key_file=nothing)):
        with pytest.raises(ConfigurationError) as refused:
            RunnerTLS(tls)
        assert str(nothing) in str(refused.value.hint)


def test_the_environment_chooses_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tls_from_environment() is None
    monkeypatch.setenv("TENURE_TLS", "true")
    assert tls_from_environment() == TLS()
    monkeypatch.setenv("TENURE_TLS", "perhaps")
    with pytest.raises(ConfigurationError, match="TENURE_TLS is refused"):
        tls_from_environment()
    monkeypatch.setenv("TENURE_TLS", "false")
    monkeypatch.setenv("TENURE_TLS_CLIENT_CERT", "cert.pem")
    with pytest.raises(ConfigurationError, match="over TLS only"):
        tls_from_environment()
    monkeypatch.setenv("TENURE_TLS_CA", str(tmp_path / "nothing.pem"))
    with pytest.raises(ConfigurationError, match="both"):
        AsyncClient()
    monkeypatch.delenv("TENURE_TLS_CLIENT_CERT")
    with pytest.raises(ConfigurationError, match=r"nothing\.pem"):
        AsyncClient()


@pytest.mark.parametrize(
    ("address", "warned"), [("127.0.0.1:7070", False), ("[::1]:7070", False), ("tenure.example:7070", True)]
)
async def test_a_token_in_the_open_is_warned_of(
    address: str, warned: bool, authority: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient(address, token="t0ken"):
        pass
    assert ("token_in_the_open" in caplog.text) is warned
    assert "t0ken" not in caplog.text
    caplog.clear()
    async with AsyncClient(address, token="t0ken", tls=TLS(ca_file=authority("ours").ca)), AsyncClient(address):
        pass
    assert not caplog.records
