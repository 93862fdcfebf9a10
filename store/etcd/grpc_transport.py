"""A member over etcd's own gRPC API: the default transport.

Owns: the channel to one member and its calls, built once by their full paths. Everything about several members,
repetition and tokens is in ``members``; KeepAlives go beside the channel (``http2_stream``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.errors import ConfigurationError
from tenure.store.etcd.faults import fault, unreachable
from tenure.store.etcd.http2_stream import Http2KeepAliveStream
from tenure.store.etcd.member import UNARY, WATCH, CallFailed, Method
from tenure.store.etcd.options import Address, EtcdOptions

QUIET_S = 5.0
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of our own: another client's load is not ours
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.enable_retries", 0),  # what may be repeated is decided in ``members``
    ("grpc.enable_http_proxy", 0),  # KeepAlives go straight, so that all else must, too
]
_NEEDS_LEADER = ("hasleader", "true")
"""Metadata by which a member without a leader refuses calls and cancels watches instead of hanging."""
_PROGRESS = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())

Metadata = tuple[tuple[str, str], ...]


class GrpcMember:
    """``member.Member`` over one channel. To be made inside the event loop that uses it."""

    def __init__(
        self, address: Address, credentials: grpc.ChannelCredentials | None, tls: ssl.SSLContext | None
    ) -> None:
        self.name = address.target
        self._address = address
        self._tls = tls
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address.target, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address.target, credentials, options=_CHANNEL_OPTIONS)
        self._unary = {method: self._build(self._channel.unary_unary, method) for method in UNARY}
        self._watch = self._build(self._channel.stream_stream, WATCH)
        self._token: str | None = None
        self._metadata: Metadata = (_NEEDS_LEADER,)

    @staticmethod
    def _build(make: Callable[..., Any], method: Method) -> Any:
        return make(
            f"/etcdserverpb.{method.grpc}",
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    def _metadata_with(self, token: str | None) -> Metadata:
        if token != self._token:
            self._token = token
            self._metadata = (_NEEDS_LEADER, ("token", token)) if token else (_NEEDS_LEADER,)
        return self._metadata

    async def call(self, method: Method, request: Any, *, timeout_s: float, token: str | None) -> Any:
        """Send a request and return its answer. Raises ``CallFailed``."""
        metadata = self._metadata_with(token)
        try:
            return await self._unary[method](
                request, timeout=timeout_s, metadata=metadata if method.needs_leader else metadata[1:]
            )
        except grpc.aio.AioRpcError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: grpc.aio.AioRpcError) -> CallFailed:
        return CallFailed(fault(exc.code().value[0], exc.details() or exc.code().name, self.name))

    def keep_alive(self, token: str | None) -> Http2KeepAliveStream:
        """Return a new stream for KeepAlives."""
        return Http2KeepAliveStream(self._address, self._tls, self._metadata_with(token))

    def watch(self, token: str | None) -> GrpcWatchStream:
        """Return a new stream for one watch."""
        return GrpcWatchStream(self._watch(metadata=self._metadata_with(token)), self._failed, self.name)

    async def close(self) -> None:
        """Close the channel; calls and streams under way are cancelled."""
        await self._channel.close()


class GrpcWatchStream:
    """``member.WatchStream``: one bidirectional stream with one watch."""

    quiet_s = QUIET_S

    def __init__(self, call: Any, failed: Callable[[grpc.aio.AioRpcError], CallFailed], name: str) -> None:
        self._call = call
        self._failed = failed
        self._name = name

    async def open(self, request: rpc.WatchCreateRequest) -> None:
        """Write the request."""
        await self._write(rpc.WatchRequest(create_request=request))

    async def _write(self, message: rpc.WatchRequest) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as exc:
            raise self._failed(exc) from exc
        except asyncio.InvalidStateError as exc:  # written to a stream that has ended
            raise CallFailed(unreachable(str(exc), self._name, sent=True)) from exc

    async def read(self) -> rpc.WatchResponse | None:
        """Return the next answer, None at the end."""
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as exc:
            raise self._failed(exc) from exc
        return None if answer is grpc.aio.EOF else answer

    async def ask(self) -> bool:
        """Ask for a progress notice."""
        await self._write(_PROGRESS)
        return True

    def close(self) -> None:
        """Cancel the stream."""
        self._call.cancel()


def open_members(addresses: Sequence[Address], options: EtcdOptions) -> list[GrpcMember]:
    """Open a channel to each member."""
    credentials = tls = None
    if addresses[0].tls:
        files = (options.ca_file, options.key_file, options.cert_file)
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
        tls = _tls(options)
    return [GrpcMember(address, credentials, tls) for address in addresses]


def _tls(options: EtcdOptions) -> ssl.SSLContext:
    """Return what KeepAlives are secured with: what the channel beside them takes, they take."""
    try:
        tls = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file:
            tls.load_cert_chain(options.cert_file, options.key_file, password="")  # else it would ask the terminal
    except OSError as exc:
        raise ConfigurationError(f"the TLS files for etcd cannot be used: {exc}") from exc
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # set from Python 3.13 on; many a private authority does not meet it
    tls.set_alpn_protocols(["h2"])
    return tls
