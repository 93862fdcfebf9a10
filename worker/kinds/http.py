"""The ``http`` kind: one request to where ``egress`` allows.

Invariants: connects only to the address that was checked (Host and SNI carry the name); follows no redirect; takes no
proxy or credential from the environment; reads no more than it may. Statuses 408, 429 and 5xx and failures of the
network are worth another attempt; every other status that is not 2xx fails for good.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cached_property
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tenure.worker.context import AsyncContext
from tenure.worker.handler import Fail
from tenure.worker.kinds.egress import EgressPolicy, EgressRefused, Resolver, Target, check

_OURS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "accept-encoding",
        "expect",
    }
)
_RETRYABLE = frozenset({408, 429})


def _header_name(name: str) -> str:
    if name.lower() in _OURS or name.lower().startswith("proxy-"):
        raise ValueError(f"{name!r} is set by the worker")
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"), AfterValidator(_header_name)]
HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e]*$", max_length=8_192)]


class HttpPayload(BaseModel):
    """A request. A ``body`` that is not text is sent as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: str = Field(min_length=1, max_length=8_192)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=64)
    body: Any = None
    timeout_s: float = Field(default=30.0, gt=0, le=3_600)


class HttpResult(BaseModel):
    """The response. ``body`` is its beginning, as text."""

    status: int
    headers: dict[str, str]
    body: str
    is_cut: bool


class HttpKind:
    """Performs requests under one policy."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver) -> None:
        self._policy = policy
        self._resolver = resolver

    async def run(self, payload: HttpPayload, ctx: AsyncContext) -> HttpResult:
        """Perform the request."""
        try:
            async with asyncio.timeout(min(payload.timeout_s, self._policy.max_timeout_s)):
                target = await check(payload.url, self._policy, self._resolver)
                result = await self._request(payload, target, ctx)
        except EgressRefused as exc:
            raise Fail(str(exc), type="EgressRefused") from exc
        except TimeoutError as exc:
            raise Fail("no complete answer in time", retryable=True, type="HttpTimeout") from exc
        except (OSError, httpx.HTTPError) as exc:
            raise Fail(f"{type(exc).__name__}: {exc}", retryable=True, type="HttpError") from exc
        except httpx.InvalidURL as exc:
            raise Fail(f"{type(exc).__name__}: {exc}", type="HttpError") from exc
        _judge(result)
        return result

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Once: reading the certificates takes tens of milliseconds.
        return httpx.create_ssl_context(trust_env=False)

    async def _request(self, payload: HttpPayload, target: Target, ctx: AsyncContext) -> HttpResult:
        problem: httpx.ConnectError | None = None
        # No connection is kept: the pool knows them by address, and another name's certificate would pass for this one.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, limits=limits, timeout=None
        ) as client:
            for address in target.addresses:
                try:
                    return await self._send(client, payload, target, address, ctx)
                except httpx.ConnectError as exc:
                    problem = exc
        raise problem or httpx.ConnectError(f"{target.host} has no address")

    async def _send(
        self, client: httpx.AsyncClient, payload: HttpPayload, target: Target, address: str, ctx: AsyncContext
    ) -> HttpResult:
        literal = f"[{address}]" if ":" in address else address
        url = target.url._replace(netloc=f"{literal}:{target.port}", fragment="").geturl()
        headers = {
            **payload.headers,
            "Host": target.url.netloc,
            "Accept-Encoding": "identity",
            "Tenure-Job-Id": ctx.job_id,
            "Tenure-Attempt": str(ctx.attempt),
            "Tenure-Fence": str(ctx.fence),
        }
        body: dict[str, Any] = {}
        if isinstance(payload.body, str):
            body = {"content": payload.body.encode()}
        elif payload.body is not None:
            body = {"json": payload.body}
        # The name is what the certificate is checked against.
        extensions = {"sni_hostname": target.host}
        async with client.stream(payload.method, url, headers=headers, extensions=extensions, **body) as response:
            text, is_cut = await self._read(response)
            kept = {name: value[:1_024] for name, value in list(response.headers.items())[:64]}
            return HttpResult(status=response.status_code, headers=kept, body=text, is_cut=is_cut)

    async def _read(self, response: httpx.Response) -> tuple[str, bool]:
        """Read the body as it comes over the wire: nothing is decompressed, so nothing can expand."""
        kept = bytearray()
        total = 0
        async for chunk in response.aiter_raw():
            total += len(chunk)
            kept += chunk[: self._policy.max_body_bytes - len(kept)]
            if total > self._policy.max_response_bytes:
                break
        return kept.decode("utf-8", "replace").replace("\0", "\ufffd"), total > len(kept)


def _judge(result: HttpResult) -> None:
    status = result.status
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise Fail(f"status {status}: redirects are not followed", type="HttpStatus")
    raise Fail(
        f"status {status}: {result.body[:500]}", retryable=status in _RETRYABLE or status >= 500, type="HttpStatus"
    )
