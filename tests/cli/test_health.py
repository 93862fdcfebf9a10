"""``tenure health``: the sentence and the exit code, of processes that answer, refuse, hang or are not there."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.fixtures.certificates import Authority

from tenure.cli.health import LISTENS, _context, _url, main
from tenure.coordinator.settings import CoordinatorSettings
from tenure.worker.settings import WorkerSettings

ANSWERS = {
    "/livez": (200, b'{"status": "ok", "problems": {}}'),
    "/readyz": (503, b'{"status": "unavailable", "problems": {"etcd": "no endpoint answers", "start": "waiting"}}'),
    "/else/livez": (404, b"Not Found"),
}


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve the answers; the environment names nobody."""
    for variable, _ in LISTENS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("TENURE_TLS_CERT", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
@pytest.mark.parametrize("process", LISTENS)
def test_the_environment_says_whom_to_ask(
    port: int, host: str, process: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LISTENS[process][0], f"{host}:{port}")
    for arguments in ([], [process]):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"alive: http://127.0.0.1:{port}/livez\n"


def test_what_is_not_ready_says_why(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ready", f"http://127.0.0.1:{port}/"]) == 1
    said = capsys.readouterr().out
    assert said == f"not ready: etcd: no endpoint answers; start: waiting (http://127.0.0.1:{port}/readyz)\n"


def test_an_address_with_a_path_is_asked_as_it_is(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"http://127.0.0.1:{port}/livez", "--ready"]) == 0
    assert main([f"http://127.0.0.1:{port}/readyz"]) == 1
    alive, ready = capsys.readouterr().out.splitlines()
    assert alive == f"alive: http://127.0.0.1:{port}/livez"
    assert ready.startswith("not ready: etcd:")


def test_an_answer_of_somebody_else(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"http://127.0.0.1:{port}/else/livez"]) == 1
    assert "not alive: HTTP 404" in capsys.readouterr().out


def test_nobody_there(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:1"]) == 1
    assert "not alive: no answer:" in capsys.readouterr().out


def test_whoever_hangs_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main([f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.1"]) == 1
    assert "no answer: timed out" in capsys.readouterr().out


def test_whoever_trickles_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Each byte comes within the timeout, the answer never ends."""
    over = threading.Event()

    class Trickling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.02):
                self.wfile.write(b"x")

    with ThreadingHTTPServer(("127.0.0.1", 0), Trickling) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert main([f"http://127.0.0.1:{server.server_address[1]}", "--timeout", "0.3"]) == 1
        finally:
            over.set()
            server.shutdown()
    assert "no answer: timed out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker"], "TENURE_WORKER_HTTP_LISTEN is not set"),
        (["nowhere"], "is not an address"),
        (["http://h:x"], "Port"),
        (["http://h:1", "--timeout", "0"], "not above 0"),
        (["http://h:1", "--timeout", "inf"], "inf is not above 0 and at most 3600"),
        (["http://h:1", "--timeout", "nan"], "not above 0"),
    ],
)
def test_mistakes(port: int, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_defaults_are_those_of_the_settings() -> None:
    assert LISTENS["coordinator"][1] == CoordinatorSettings.model_fields["http_listen"].default
    assert LISTENS["worker"][1] == WorkerSettings.model_fields["worker_http_listen"].default


def test_it_imports_nothing_that_costs(port: int) -> None:
    script = (
        "import sys; from tenure.cli.entry import run\n"
        f"sys.argv = ['tenure', 'health', 'http://127.0.0.1:{port}']\n"
        "try: run()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([m for m in ('typer', 'click', 'rich', 'grpc', 'pydantic', 'structlog', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("host", ["fd00::1", "[fd00::1]"])
def test_an_address_of_ipv6_is_asked_in_brackets(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_HTTP_LISTEN", f"{host}:7071")
    assert _url("coordinator", "/livez") == "http://[fd00::1]:7071/livez"


@pytest.mark.parametrize("host", ["[::]", "::"])
def test_whoever_listens_on_every_address_of_ipv6(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_WORKER_HTTP_LISTEN", f"{host}:7072")
    assert _url("worker", "/livez") == "http://[::1]:7072/livez"


# -- TLS --


@pytest.fixture
def secure(authority: Callable[[str], Authority], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Authority]]:
    """Serve the answers over TLS, with a certificate for another name than 127.0.0.1; the environment says so."""
    ours = authority("ours")
    pair = ours.issue("/CN=coordinator", names="DNS:tenure.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    for name in ("TLS_CA", "TLS_SERVER_NAME", "WORKER_HTTP_LISTEN"):
        monkeypatch.delenv(f"TENURE_{name}", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TENURE_TLS_CERT", str(pair.cert))
        monkeypatch.setenv("TENURE_HTTP_LISTEN", f"0.0.0.0:{server.server_address[1]}")
        yield server.server_address[1], ours
        server.shutdown()


def test_a_coordinator_with_a_certificate_is_asked_over_https(
    secure: tuple[int, Authority], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port, ours = secure
    assert main([]) == 0
    assert capsys.readouterr().out == f"alive: https://127.0.0.1:{port}/livez\n"
    monkeypatch.setenv("TENURE_TLS_CA", str(ours.ca))
    assert main([]) == 0, "by loopback the authority is enough"
    monkeypatch.setenv("TENURE_TLS_SERVER_NAME", "tenure.example")
    assert main([f"https://127.0.0.1:{port}"]) == 0
    monkeypatch.setenv("TENURE_TLS_SERVER_NAME", "other.example")
    assert main([]) == 1
    assert "certificate verify failed" in capsys.readouterr().out


def test_another_authority_is_not_believed(
    secure: tuple[int, Authority],
    authority: Callable[[str], Authority],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TENURE_TLS_CA", str(authority("theirs").ca))
    assert main([]) == 1
    assert "certificate verify failed" in capsys.readouterr().out


def test_a_ca_that_is_none_is_named(
    secure: tuple[int, Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENURE_TLS_CA", str(tmp_path / "nothing.pem"))
    with pytest.raises(SystemExit):
        main([])
    assert "nothing.pem" in capsys.readouterr().err


def test_only_the_coordinators_address_is_asked_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_TLS_CERT", "cert.pem")
    monkeypatch.setenv("TENURE_HTTP_LISTEN", "0.0.0.0:7071")
    monkeypatch.setenv("TENURE_WORKER_HTTP_LISTEN", "0.0.0.0:7072")
    assert _url("worker", "/livez") == "http://127.0.0.1:7072/livez"
    monkeypatch.setenv("TENURE_WORKER_HTTP_LISTEN", "0.0.0.0:7071")  # the image
    assert _url("worker", "/livez") == "https://127.0.0.1:7071/livez"


@pytest.mark.parametrize("host", ["tenure.example", "10.0.0.7", "127.example"])
def test_what_is_far_is_verified_in_full(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENURE_TLS_CA", "TENURE_TLS_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    context = _context(host)
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
