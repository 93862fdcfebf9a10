"""Moving files to and from signed URLs over HTTP, in pieces: for workers and for clients.

In threads of its own, with blocking calls: hashing, disks and TLS delay no event loop. Invariant: memory is bounded by
a piece for each transfer, and every step by a timeout. A URL carries its own right: no credentials of ours are shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import ssl
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx

from tenure.model.errors import FieldViolation, InvalidInput, NotFound, TenureError, Unavailable

PIECE_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 30.0
ANSWER_S = 120.0
"""After the last byte: a store may have much to put together."""
THREADS = 4
_AGAIN = frozenset({408, 409, 425, 429})
_CODE = re.compile("<Code>([A-Za-z]+)</Code>")
"""What S3 says beside a status, which is 400 for much that another try mends."""
_NOT_FOR_GOOD = frozenset({"RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable"})
_EXPIRED = frozenset({"ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired"})
"""What was signed with, or when; another URL may be good."""
Source = bytes | Path
T = TypeVar("T")


class UrlExpired(Unavailable):
    """The URL is not good any more, or was not for this: another one may be."""


class Measured(NamedTuple):
    """A file as it is now."""

    size_bytes: int
    sha256: bytes


class Files:
    """Sends and fetches files. Made cheaply; its threads and connections come with the first use."""

    def __init__(
        self, *, ca_files: tuple[Path | str | None, ...] = (), client_cert: tuple[str, str] | None = None
    ) -> None:
        self._ca_files = [file for file in ca_files if file]
        self._client_cert = client_cert
        self._closing = threading.Event()
        self._making = threading.Lock()
        self._beside: list[Files] = []

    def beside(self) -> Files:
        """Return another one, with threads and connections of its own, that is closed with this."""
        self._beside.append(Files(ca_files=(*self._ca_files,), client_cert=self._client_cert))
        return self._beside[-1]

    async def measure(self, source: Source) -> Measured:
        """Return the size and the SHA-256 of what is to be sent.

        Raises:
            InvalidInput: there is no such file, or it is none.
        """
        return await self._run(lambda stop: _measured(source, stop))

    async def put(
        self,
        url: str,
        source: Source,
        *,
        start: int,
        length: int,
        headers: Mapping[str, str],
        reached: Callable[[int], None] | None = None,
    ) -> str:
        """Send some bytes of a file; return the ETag of the answer, empty if there is none.

        ``reached`` is told from a thread, now and then, up to where bytes were taken.

        Raises:
            UrlExpired: it was refused. Unavailable: send it again. InvalidInput: it never will be taken.
        """
        return await self._run(lambda stop: self._put(url, source, start, length, headers, reached, stop))

    async def fetch(self, url: str, expected: Measured) -> bytes:
        """Return what a file holds.

        Raises:
            UrlExpired: it was refused. Unavailable: fetch it again, or it is not what it should be.
        """
        return await self._run(lambda stop: self._fetch(url, expected, b"".join, stop))

    async def save(self, url: str, expected: Measured, path: Path, name: str) -> Path:
        """Fetch a file to a path, or under its name into a folder; it is there only when it is whole and right.

        Raises:
            As ``fetch``. InvalidInput: it cannot be written there.
        """

        def work(stop: Callable[[], bool]) -> Path:
            target = path / name if path.is_dir() else path
            self._fetch(url, expected, lambda pieces: _write(pieces, target), stop)
            return target

        return await self._run(work)

    def close(self) -> None:
        """Stop what is under way, and let go of connections and threads."""
        self._closing.set()
        for one in self._beside:
            one.close()
        made = self.__dict__
        if "_threads" in made:
            made["_threads"].shutdown(wait=False, cancel_futures=True)
        if "_http" in made:
            made["_http"].close()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix="tenure-files")

    def _client(self) -> httpx.Client:
        with self._making:
            return self._http

    @cached_property
    def _http(self) -> httpx.Client:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for file in self._ca_files:
            context.load_verify_locations(cafile=file)
        if self._client_cert is not None:
            context.load_cert_chain(*self._client_cert, password="")
        return httpx.Client(
            verify=context,
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=2 * THREADS, keepalive_expiry=30.0),
            # What is near is not behind a proxy.
            mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},
        )

    async def _run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """Do something in a thread, which is told when nobody waits for it any more."""
        left = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: work(lambda: left.is_set() or self._closing.is_set())
            )
        finally:
            left.set()

    def _put(
        self,
        url: str,
        source: Source,
        start: int,
        length: int,
        headers: Mapping[str, str],
        reached: Callable[[int], None] | None,
        stop: Callable[[], bool],
    ) -> str:
        sent = {**headers, "Content-Length": str(length)}
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S, read=ANSWER_S)
        try:
            body = _pieces(source, start, length, stop)
            if reached is not None:
                body = _telling(body, start, reached)
            response = self._client().put(url, content=body, headers=sent, timeout=timeout)
        except httpx.HTTPError as exc:
            raise _unreachable(url, exc) from exc
        if response.is_success:
            return str(response.headers.get("etag", ""))
        raise _refusal(response, "PUT")

    def _fetch(self, url: str, expected: Measured, take: Callable[[Iterator[bytes]], T], stop: Callable[[], bool]) -> T:
        try:
            with self._client().stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response, "GET")
                return take(_as_expected(response.iter_raw(PIECE_BYTES), expected, stop))
        except httpx.HTTPError as exc:
            raise _unreachable(url, exc) from exc


class Stopped(TenureError):
    """Nobody waits for this transfer any more."""


def _measured(source: Source, stop: Callable[[], bool]) -> Measured:
    if isinstance(source, bytes):
        return Measured(len(source), hashlib.sha256(source).digest())
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(source, 0, None, stop):
        digest.update(piece)
        size += len(piece)
    return Measured(size, digest.digest())


def _pieces(source: Source, start: int, length: int | None, stop: Callable[[], bool]) -> Iterator[bytes]:
    if isinstance(source, bytes):
        end = len(source) if length is None else start + length
        for place in range(start, end, PIECE_BYTES):
            if stop():
                raise Stopped("nobody waits for this any more")
            yield source[place : min(place + PIECE_BYTES, end)]
        return
    try:
        with open(source, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput([FieldViolation("path", f"{source} is no file")])
            file.seek(start)
            left = length
            while left is None or left > 0:
                if stop():
                    raise Stopped("nobody waits for this any more")
                piece = file.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
                if not piece:
                    break
                left = left if left is None else left - len(piece)
                yield piece
    except OSError as exc:
        raise InvalidInput([FieldViolation("path", f"{source} cannot be read: {exc.strerror}")]) from exc
    if left:
        raise InvalidInput([FieldViolation("path", f"{source} has become shorter meanwhile")])


def _telling(pieces: Iterator[bytes], start: int, reached: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        start += len(piece)
        reached(start)


def _as_expected(pieces: Iterator[bytes], expected: Measured, stop: Callable[[], bool]) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        if stop():
            raise Stopped("nobody waits for this any more")
        size += len(piece)
        if size > expected.size_bytes:
            break
        digest.update(piece)
        yield piece
    if size != expected.size_bytes or digest.digest() != expected.sha256:
        raise Unavailable(
            f"what came ({size} bytes) is not what was saved ({expected.size_bytes} bytes): its SHA-256 differs",
            hint="try again; if it stays so, the object was changed or cut in the store",
        )


def _write(pieces: Iterator[bytes], target: Path) -> None:
    """Write a file that appears whole. Raises ``InvalidInput``: it cannot be written."""
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    try:
        try:
            with open(part, "xb") as file:
                for piece in pieces:
                    file.write(piece)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise InvalidInput([FieldViolation("path", f"{target} cannot be written: {exc.strerror}")]) from exc


def _unreachable(url: str, exc: httpx.HTTPError) -> TenureError:
    host = httpx.URL(url).netloc.decode("ascii", "replace")
    return Unavailable(
        f"no answer from {host}: {str(exc) or type(exc).__name__}",
        hint="can this machine reach it? (TENURE_HTTP_ADVERTISE or the object store's endpoint, for the coordinators; "
        "TENURE_OBJECT_STORE_CA here)",
    )


def _refusal(response: httpx.Response, method: str) -> TenureError:
    told = f"{response.url.host} answered HTTP {response.status_code} to {method}: {response.text[:300].strip()}"
    code = _CODE.search(response.text[:2_000])
    if code is not None and code[1] in _NOT_FOR_GOOD:
        return Unavailable(told)
    if response.status_code in (401, 403) or (code is not None and code[1] in _EXPIRED):
        return UrlExpired(told)
    if response.status_code == 404:
        return NotFound(told)
    if response.status_code in _AGAIN or response.status_code >= 500:
        return Unavailable(told)
    return InvalidInput([FieldViolation("upload" if method == "PUT" else "download", told)])
