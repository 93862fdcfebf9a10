"""A member over etcd's JSON gateway, by etcd3gw: for networks where only HTTP passes.

Owns: the session to one member and the threads that wait for it. etcd3gw gives the session (TLS, URLs, typed errors);
its watcher is not used: it loses errors and compactions, cannot resume, and cannot put an answer together that
arrives in pieces. The bodies are the JSON form of the same protobuf messages that the gRPC transport sends.

Slower than gRPC by far (a thread and an HTTP request per call). Deliberately without a policy: what is repeated, and
where, is decided in ``members``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import ConnectionTimeoutError, Etcd3Exception
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.faults import fault, unreachable
from tenure.store.etcd.member import KEEP_ALIVE, WATCH, CallFailed, Method
from tenure.store.etcd.options import Address, EtcdOptions

CALL_THREADS = 16
QUIET_S = 10.0
"""The gateway cannot be asked for progress: a watch this silent is opened again."""
CONNECT_TIMEOUT_S = 2.0
API_PATH = "/v3/"
"""Of etcd 3.4 and later."""
_NEEDS_LEADER = {"Grpc-Metadata-hasleader": "true"}
_UNAVAILABLE = 14
_NOT_FROM_ETCD = (ParseError, ValueError, TypeError)
"""What reading an answer raises that is no JSON, or not of etcd: the page of a proxy, say."""


class _Adapter(HTTPAdapter):
    """Finds dead connections by TCP keepalives, as a watch may have nothing to send for long."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
        options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 2)):
            if hasattr(socket, name):
                options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
        return super().init_poolmanager(*args, socket_options=options, **kwargs)


class HttpMember:
    """``member.Member`` over the gateway of one member."""

    def __init__(self, address: Address, options: EtcdOptions) -> None:
        self.name = address.target
        self._client = Etcd3Client(
            host=address.host,
            port=address.port,
            protocol="https" if address.tls else "http",
            ca_cert=str(options.ca_file) if options.ca_file else None,
            cert_cert=str(options.cert_file) if options.cert_file else None,
            cert_key=str(options.key_file) if options.key_file else None,
            timeout=options.timeout_s,
            api_path=API_PATH,
        )
        # Said with every request: the environment (REQUESTS_CA_BUNDLE) would win over the session's own setting.
        self._verify: str | bool = str(options.ca_file) if options.ca_file else True
        self._client.session.mount(self._client.base_url, _Adapter(pool_connections=1, pool_maxsize=2 * CALL_THREADS))
        self._threads = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="etcd-http")
        self._watches: set[HttpWatchStream] = set()

    def _headers(self, token: str | None, needs_leader: bool) -> dict[str, str]:
        headers = dict(_NEEDS_LEADER) if needs_leader else {}
        if token:
            headers["Grpc-Metadata-token"] = token
        return headers

    async def _in_thread(self, work: Callable[[], Any], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as exc:
            raise CallFailed(unreachable("no answer in time", self.name, sent=True)) from exc

    async def call(self, method: Method, request: Any, *, timeout_s: float, token: str | None) -> Any:
        """Send a request and return its answer. Raises ``CallFailed``."""
        url = self._client.get_url(method.http)
        headers = self._headers(token, method.needs_leader)

        def work() -> Any:
            body = MessageToDict(request, use_integers_for_enums=True)
            try:
                answer = self._client.post(url, json=body, headers=headers, verify=self._verify)
                return _parse(answer, method)
            except Etcd3Exception as exc:
                raise self._failed(exc) from exc
            except (requests.RequestException, *_NOT_FROM_ETCD) as exc:
                raise CallFailed(unreachable(str(exc), self.name, sent=True)) from exc

        return await self._in_thread(work, timeout_s)

    def _failed(self, exc: Etcd3Exception) -> CallFailed:
        told = self.refusal(exc.detail_text or "")
        if told is not None:
            return told
        cause = exc.__context__
        never_sent = isinstance(cause, requests.ConnectTimeout) or (
            isinstance(cause, requests.ConnectionError)
            and bool(cause.args)
            and isinstance(getattr(cause.args[0], "reason", None), NewConnectionError)
        )
        reason = "timeout" if isinstance(exc, ConnectionTimeoutError) else str(cause or exc.detail_text)
        return CallFailed(unreachable(reason, self.name, sent=not never_sent))

    def refusal(self, text: str) -> CallFailed | None:
        """Read the body of a refusal, or the ``error`` member of a stream; None if it is not from etcd."""
        try:
            told = json.loads(text)
        except ValueError:
            return None
        if not isinstance(told, dict):
            return None
        if isinstance(told.get("error"), dict):
            told = told["error"]
        code = told.get("code", told.get("grpc_code"))
        code = code if isinstance(code, int) else _UNAVAILABLE  # a proxy's may be anything
        return CallFailed(fault(code, str(told.get("message") or told.get("error") or text), self.name))

    def post_stream(
        self, method: Method, body: bytes, token: str | None, *, read_timeout_s: float, stream: bool
    ) -> requests.Response:
        """Send a streaming request; blocks the calling thread. Raises ``CallFailed``."""
        try:
            response = self._client.session.post(
                self._client.get_url(method.http),
                data=body,
                headers={**self._headers(token, True), "Content-Type": "application/json"},
                stream=stream,
                verify=self._verify,
                timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
            )
        except requests.RequestException as exc:
            raise CallFailed(unreachable(str(exc), self.name, sent=True)) from exc
        if response.status_code != requests.codes["ok"]:
            text = response.text
            response.close()
            raise self.refusal(text) or CallFailed(unreachable(text[:200], self.name, sent=True))
        return response

    def keep_alive(self, token: str | None) -> HttpKeepAliveStream:
        """Return a way to send KeepAlives."""
        return HttpKeepAliveStream(self, token)

    def watch(self, token: str | None) -> HttpWatchStream:
        """Return a new stream for one watch."""
        stream = HttpWatchStream(self, token, self._watches.discard)
        self._watches.add(stream)
        return stream

    async def close(self) -> None:
        """End watches and close connections; threads still waiting end by their timeouts."""
        for stream in list(self._watches):
            stream.close()
        self._client.session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class HttpKeepAliveStream:
    """``member.KeepAliveStream``: one POST per batch, of JSON objects one behind the other."""

    def __init__(self, member: HttpMember, token: str | None) -> None:
        self._member = member
        self._token = token

    async def exchange(self, leases: Sequence[int]) -> AsyncIterator[rpc.LeaseKeepAliveResponse]:
        """Send all, then read all."""

        def work() -> list[rpc.LeaseKeepAliveResponse]:
            body = b"".join(b'{"ID":"%d"}' % lease for lease in leases)
            response = self._member.post_stream(KEEP_ALIVE, body, self._token, read_timeout_s=10.0, stream=False)
            return [parse_result(self._member, line, KEEP_ALIVE) for line in response.content.splitlines() if line]

        answers = await self._member._in_thread(work, 10.0)
        for answer in answers:
            yield answer
        if len(answers) < len(leases):
            raise CallFailed(unreachable("ended the KeepAlive stream", self._member.name, sent=True))

    def close(self) -> None:
        """Nothing is kept open between batches."""


class HttpWatchStream:
    """``member.WatchStream``: a POST whose answer never ends, read by a thread of its own."""

    quiet_s = QUIET_S

    def __init__(self, member: HttpMember, token: str | None, closed: Callable[[HttpWatchStream], None]) -> None:
        self._member = member
        self._token = token
        self._on_closed = closed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="etcd-http-watch")
        self._response: requests.Response | None = None
        self._lines: Iterator[bytes] = iter(())
        self._is_closed = False

    async def open(self, request: rpc.WatchCreateRequest) -> None:
        """Send the request."""
        body = json.dumps({"create_request": MessageToDict(request)}).encode()

        def work() -> None:
            # The socket's timeout is a net below the watch's own patience.
            response = self._member.post_stream(WATCH, body, self._token, read_timeout_s=3 * QUIET_S, stream=True)
            self._response = response
            self._lines = _lines(response)
            if self._is_closed:
                self._shut_down()

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def read(self) -> rpc.WatchResponse | None:
        """Return the next answer, None at the end."""
        line = await asyncio.get_running_loop().run_in_executor(self._thread, self._next_line)
        if line is None:
            return None
        answer: rpc.WatchResponse = parse_result(self._member, line, WATCH)
        return answer

    def _next_line(self) -> bytes | None:
        try:
            return next(self._lines, None)
        except (requests.RequestException, OSError, AttributeError, ValueError) as exc:
            # AttributeError, ValueError: what urllib3 makes of a connection shut down under it.
            raise CallFailed(unreachable(str(exc), self._member.name, sent=True)) from exc

    async def ask(self) -> bool:
        """The gateway has no way to ask."""
        return False

    def close(self) -> None:
        """Shut the connection down, which wakes the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        self._on_closed(self)
        self._shut_down()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _shut_down(self) -> None:
        if self._response is not None:
            with contextlib.suppress(OSError, AttributeError, ValueError, RuntimeError):  # it has ended already
                self._response.raw.shutdown()


def _lines(response: requests.Response) -> Iterator[bytes]:
    """Put answers together again: they end with a newline, but may arrive in pieces."""
    pending = b""
    for chunk in response.iter_content(chunk_size=None):
        pending += chunk
        *complete, pending = pending.split(b"\n")
        yield from (line for line in complete if line.strip())


def parse_result(member: HttpMember, line: bytes, method: Method) -> Any:
    """Read one answer of a stream. Raises ``CallFailed`` if it is an error or not from etcd."""
    try:
        told = json.loads(line)
        if isinstance(told, dict) and "result" in told:
            return _parse(told["result"], method)
        refused = member.refusal(line.decode())
    except _NOT_FROM_ETCD:
        refused = None
    raise refused or CallFailed(unreachable(repr(line[:200]), member.name, sent=True))


def _parse(answer: Any, method: Method) -> Any:
    """Return an answer as its message. Raises one of ``_NOT_FROM_ETCD``: each answer of etcd has a header."""
    if "header" not in answer:
        raise ValueError(f"not an answer of etcd: {str(answer)[:200]}")
    return ParseDict(answer, method.response(), ignore_unknown_fields=True)


def open_members(addresses: Sequence[Address], options: EtcdOptions) -> list[HttpMember]:
    """Prepare a session for each member; nothing is sent yet."""
    return [HttpMember(address, options) for address in addresses]
