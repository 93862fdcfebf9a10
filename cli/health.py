"""``tenure health``: ask a process on this machine whether it lives, or is ready. Its exit code is the answer.

For health checks of containers, `helm test` and scripts. Imports little beyond the standard library (see ``entry``), so
it parses its own arguments. Proxies of the environment are not used: a probe is for what is near.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from tenure.model.listen import is_loopback

LISTENS = {
    "coordinator": ("TENURE_HTTP_LISTEN", "127.0.0.1:7071"),
    "worker": ("TENURE_WORKER_HTTP_LISTEN", ""),
}
"""The setting that tells where a process serves, and its default."""
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}
"""Where to ask whoever listens on every address."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_TIMEOUT_S = 3_600


def main(arguments: Sequence[str]) -> int:
    """Ask, and say the answer in a sentence; return 0 for yes, 1 for no or for no answer."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        url = _url(asked.who, "/readyz" if asked.ready else "/livez")
        connection = _connection(url, asked.timeout)
    except ValueError as exc:
        parser.error(str(exc))
    path = urlsplit(url).path
    word = "ready" if path.endswith("/readyz") else "alive"
    problem = _problem_within(asked.timeout, connection, path)
    print(f"{word}: {url}" if problem is None else f"not {word}: {problem} ({url})")  # noqa: T201 - not typer's echo
    return 0 if problem is None else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tenure health",
        usage="tenure health [OPTIONS] [coordinator|worker|URL]",
        description="Ask a process whether it lives (/livez), or is ready (/readyz). Exits 0 for yes and 1 for no.",
    )
    parser.add_argument(
        "who",
        nargs="?",
        default="worker" if os.environ.get(LISTENS["worker"][0]) else "coordinator",
        metavar="coordinator|worker|URL",
        help="whom to ask: at TENURE_HTTP_LISTEN, at TENURE_WORKER_HTTP_LISTEN, or at an address such as "
        "http://127.0.0.1:7071 or http://127.0.0.1:7071/readyz (default: the worker if it has an address, else the "
        "coordinator)",
    )
    parser.add_argument("--ready", action="store_true", help="ask whether it is ready, not only whether it lives")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="how long to wait (default: 5)")
    return parser


def _url(who: str, probe: str) -> str:
    if who not in LISTENS:
        return who if urlsplit(who).path.strip("/") else who.rstrip("/") + probe
    variable, default = LISTENS[who]
    listen = os.environ.get(variable) or default
    if not listen:
        raise ValueError(f"{variable} is not set: this worker serves no probes")
    host, _, port = listen.rpartition(":")
    near = LOOPBACK.get(host, host)
    # A worker speaks no TLS. In the image both have one address, and the check cannot tell which process it is in.
    is_coordinators = listen == (os.environ.get(LISTENS["coordinator"][0]) or LISTENS["coordinator"][1])
    scheme = "https" if is_coordinators and os.environ.get("TENURE_TLS_CERT") else "http"
    return f"{scheme}://{f'[{near}]' if ':' in near and not near.startswith('[') else near}:{port}{probe}"


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """Build the connection, not opened yet.

    Raises:
        ValueError: no URL, or no timeout.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:7071")
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ValueError(f"--timeout: {timeout_s:g} is not above 0 and at most {MAX_TIMEOUT_S}")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    return _Secure(parts.hostname, parts.port, timeout=timeout_s, context=_context(parts.hostname))


class _Secure(http.client.HTTPSConnection):
    """Expects the name TENURE_TLS_SERVER_NAME in the certificate, where that is set."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._expecting = context
        self._name = os.environ.get("TENURE_TLS_SERVER_NAME") or host

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._expecting.wrap_socket(self.sock, server_hostname=self._name)


def _context(host: str) -> ssl.SSLContext:
    """Return whom to trust: certificates of TENURE_TLS_CA, else of public authorities.

    What is asked by loopback seldom has that in its certificate, so that its name is verified only where it is set;
    and without a CA nothing is: whoever can take that port can stop the process, too.

    Raises:
        ValueError: the CA's file cannot be used.
    """
    ca = os.environ.get("TENURE_TLS_CA") or None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as exc:
        raise ValueError(f"TENURE_TLS_CA: {ca} cannot be used: {exc}") from exc
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # set from Python 3.13 on; many a private authority fails it
    if is_loopback(f"{host}:0"):
        context.check_hostname = bool(ca and os.environ.get("TENURE_TLS_SERVER_NAME"))
        if ca is None:
            context.verify_mode = ssl.CERT_NONE
    return context


def _problem_within(timeout_s: float, connection: http.client.HTTPConnection, path: str) -> str | None:
    """Ask, but wait no longer: a connection's own timeout is for each read, and none is for the name's look-up."""
    problems: list[str | None] = ["no answer: timed out"]
    asking = threading.Thread(target=lambda: problems.append(_problem(connection, path)), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return problems[-1]


def _problem(connection: http.client.HTTPConnection, path: str) -> str | None:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(MAX_ANSWER_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return f"no answer: {exc or type(exc).__name__}"
    finally:
        connection.close()
    if answer.status == http.client.OK:
        return None
    try:
        return "; ".join(f"{name}: {problem}" for name, problem in json.loads(text)["problems"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {answer.status}"  # somebody else's answer
