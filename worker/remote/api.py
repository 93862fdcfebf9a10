"""Calls from a runner to whichever coordinator answers, over HTTPS.

Behind a load balancer there is one address; with several, one that does not answer costs the time to try the next.
Proxies of the environment (``HTTPS_PROXY``, ``NO_PROXY``) are used. Invariant: what an answer came to is known by when
its own request was sent, whatever was tried before; trust counts from there. TLS files that were renewed are read again
once a call has failed; connections with the old ones are put aside, and closed in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import httpx
import msgspec
import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BY_GRPC_STATUS, FieldViolation, InvalidInput, TenureError, Unauthenticated, Unavailable
from tenure.v1 import runner_api as wire
from tenure.v1.bearer import Bearer
from tenure.worker.link import UnknownCall
from tenure.worker.remote.tls import RunnerTLS

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 1.0
LEAST_TRY_S = 0.5
_NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525)})
"""Statuses of proxies, and of coordinators that cannot answer now: somebody else may. Only without a coordinator's own
words. 520 to 524: a proxy had no answer from behind it, either."""
_WHOSE = "is that address a coordinator's, or something on the way to one?"
_NO_SUCH_PATH = frozenset({404, 405})
_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class Sent(NamedTuple):
    """When the request was sent that was answered: a monotonic instant."""

    at: float


class Api:
    """Posts to the first coordinator that answers, and stays with it."""

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        *,
        bearer: Bearer,
        tls: RunnerTLS | None = None,
        agent: str = "tenure-runner",
    ) -> None:
        self._urls = list(urls)
        random.shuffle(self._urls)  # spread over the coordinators
        self._clock = clock
        self._bearer = bearer
        self._tls = tls
        self._agent = agent
        self._http = self._connecting()
        self._old: list[httpx.AsyncClient] = []

    def _connecting(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls.context if self._tls else True,
            headers={"User-Agent": self._agent},
            limits=httpx.Limits(max_connections=64, keepalive_expiry=60.0),
        )

    async def call(
        self,
        path: str,
        request: msgspec.Struct,
        gives: type[_Answer],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        once: bool = False,
    ) -> tuple[_Answer, Sent]:
        """Post a request; return the answer, and when it was asked for.

        ``once``: it is not sent again, to nobody.

        Raises:
            Unavailable: nobody answered in time; the outcome is unknown.
            TenureError: the coordinator's refusal.
        """
        body = msgspec.json.encode(request)
        until = self._clock.monotonic() + timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            remaining = max(LEAST_TRY_S, until - self._clock.monotonic())
            url = self._urls[0]
            sent = Sent(self._clock.monotonic())
            try:
                # Half of what is left for one coordinator, so that a hanging one leaves time for another.
                answer = await self._post(
                    url + wire.PREFIX + path, body, remaining if once else remaining / 2, in_all=once
                )
                return _decoded(answer, gives, url), sent
            except Unavailable as exc:
                self._failed(url)
                if once or self._clock.monotonic() + pause_s >= until:
                    raise
                log.info("coordinator_failed", url=url, call=path, error=exc.message)
            except Unauthenticated:
                self._reread()  # it may be for the certificate that was shown
                raise
            await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def absolute(self, url: str) -> str:
        """Return a URL; one that is a path is at the coordinator that answers now."""
        return self._urls[0] + url if url.startswith("/") else url

    def turn_away(self) -> None:
        """Let the next calls go to another coordinator, if there is one: the one that answers now is of no use."""
        self._urls.append(self._urls.pop(0))

    def _failed(self, url: str) -> None:
        if self._urls[0] == url:
            self._urls.append(self._urls.pop(0))
        self._reread()

    def _reread(self) -> None:
        if self._tls is not None and self._tls.reread():
            self._old.append(self._http)
            self._http = self._connecting()

    async def _post(self, url: str, body: bytes, timeout_s: float, *, in_all: bool) -> bytes:
        """Post once. ``in_all``: the time is for the whole of it, not for each step, such as the next bytes."""
        headers = {"content-type": "application/json", **dict(self._bearer.metadata())}
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            async with asyncio.timeout(timeout_s if in_all else None):
                response = await self._http.post(url, content=body, headers=headers, timeout=timeout)
        except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as exc:
            raise Unavailable(
                f"no answer from {url}: {str(exc) or type(exc).__name__}",
                hint="is the address right, the proxy (HTTPS_PROXY, NO_PROXY), and the authority (TENURE_TLS_CA)?",
            ) from exc
        if response.is_success:
            return response.content
        if response.status_code == httpx.codes.CONFLICT and _is_answer(response.content):
            return response.content
        raise _error(response)

    async def close(self) -> None:
        """Close the connections."""
        for http in (self._http, *self._old):
            await http.aclose()


def _decoded(body: bytes, gives: type[_Answer], url: str) -> _Answer:
    """Read an answer. One that is none came from something on the way, or was cut off: the outcome is unknown."""
    try:
        return msgspec.json.decode(body, type=gives)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unavailable(
            f"{url} answers with something else than a coordinator does: {exc}",
            hint="is that address a coordinator's, or something on the way to one?",
        ) from exc


def _is_answer(body: bytes) -> bool:
    """Say whether a conflict is an answer to each report, none of which was taken."""
    try:
        msgspec.json.decode(body, type=wire.FinishedAll)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _error(response: httpx.Response) -> TenureError:
    """Return what a refusal says: a coordinator's own, or that of something on the way to it."""
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:  # whoever says so, it stays so
        told = f"{response.url.host} answered HTTP 413: what was sent is too long for it"
        return InvalidInput([FieldViolation("request", told)])
    try:
        problem = msgspec.json.decode(response.content, type=wire.Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = f"{response.url.host} answered HTTP {response.status_code} {response.reason_phrase}"
        if response.status_code in _NOT_NOW:
            return Unavailable(told)
        if response.status_code in _NO_SUCH_PATH:
            # Of an older release, during an upgrade, or a proxy without a coordinator behind it: another may know it.
            return UnknownCall(told, hint=_WHOSE)
        return TenureError(told, hint=_WHOSE)
    hint = problem.hint or None
    if problem.status == InvalidInput.grpc_status:
        fields = [FieldViolation(one.field, one.description) for one in problem.fields]
        return InvalidInput(fields or [FieldViolation("request", problem.message)], hint=hint)
    return BY_GRPC_STATUS.get(problem.status, TenureError)(problem.message, hint=hint)
