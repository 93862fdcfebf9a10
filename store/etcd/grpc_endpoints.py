"""The gRPC channels to etcd's members: which one to ask, who leads, and the token that proves who we are.

Invariant: all callers share one choice of endpoint; whoever sees it fail moves everybody on. Used by the gRPC
transport's calls, KeepAlive streams and watches. It does not decide what may be sent twice (``faults`` does).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.faults import Fault, Known, fault
from tenure.store.etcd.options import Address, EtcdOptions

log = structlog.get_logger(__name__)

STATUS_TIMEOUT_S = 1.0
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of our own: another client's load is not ours
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.enable_retries", 0),  # what may be repeated is decided here
]
_REQUIRE_LEADER = ("hasleader", "true")
"""Metadata by which a member without a leader refuses calls and cancels watches instead of hanging."""

Metadata = tuple[tuple[str, str], ...]


class Endpoint:
    """One member: its channel and the calls, built once."""

    def __init__(self, address: Address, credentials: grpc.ChannelCredentials | None) -> None:
        self.name = address.target
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address.target, options=_CHANNEL_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(address.target, credentials, options=_CHANNEL_OPTIONS)
        self.range = self._unary("KV/Range", rpc.RangeRequest, rpc.RangeResponse)
        self.txn = self._unary("KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
        self.compact = self._unary("KV/Compact", rpc.CompactionRequest, rpc.CompactionResponse)
        self.grant = self._unary("Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse)
        self.revoke = self._unary("Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse)
        self.status = self._unary("Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse)
        self.authenticate = self._unary("Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse)
        self.keep_alive = self._stream("Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse)
        self.watch = self._stream("Watch/Watch", rpc.WatchRequest, rpc.WatchResponse)

    def _unary(self, path: str, request: Any, response: Any) -> Any:
        return self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _stream(self, path: str, request: Any, response: Any) -> Any:
        return self.channel.stream_stream(
            f"/etcdserverpb.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )


@dataclass(frozen=True, slots=True)
class Leadership:
    """The member that leads, where its address is known, and the raft term in which it was seen to."""

    endpoint: Endpoint
    raft_term: int
    """0 if no member could be asked or none of the endpoints given is the leader."""


class Endpoints:
    """All members. Channels are opened on first use, inside the running event loop."""

    def __init__(self, addresses: tuple[Address, ...], options: EtcdOptions) -> None:
        self._addresses = addresses
        self._options = options
        self._opened: list[Endpoint] = []
        self._at = 0
        self._token: str | None = None
        self._authenticating = asyncio.Lock()
        self.metadata: Metadata = (_REQUIRE_LEADER,)

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def current(self) -> Endpoint:
        """The endpoint to ask now."""
        return (self._opened or self._open())[self._at]

    def _open(self) -> list[Endpoint]:
        credentials = self._credentials() if self._addresses[0].tls else None
        self._opened = [Endpoint(address, credentials) for address in self._addresses]
        return self._opened

    def _credentials(self) -> grpc.ChannelCredentials:
        files = (self._options.ca_file, self._options.key_file, self._options.cert_file)
        return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))

    def failed(self, endpoint: Endpoint) -> None:
        """Move on to the next endpoint, if nobody has moved on from this one already."""
        if len(self._opened) > 1 and self.current is endpoint:
            self._at = (self._at + 1) % len(self._opened)
            log.debug("etcd endpoint changed", failed=endpoint.name, now=self.current.name)

    def translate(self, exc: grpc.aio.AioRpcError, endpoint: Endpoint) -> Fault:
        """Classify a failed call and move on from an endpoint that is not well."""
        found = fault(exc.code().value[0], exc.details() or "", endpoint.name)
        if found.known in (Known.NOT_DONE, Known.UNKNOWN):
            self.failed(endpoint)
        return found

    async def authenticated(self) -> Metadata:
        """Return the metadata of a call, with a token if there is a user."""
        if self._options.user is not None and self._token is None:
            await self.authenticate(None)
        return self.metadata

    async def authenticate(self, old: Metadata | None) -> None:
        """Get a token, unless somebody did while this waited (``old`` is the metadata that was refused).

        Raises:
            ConfigurationError: the user or the password is wrong.
            Unavailable: nobody answered.
        """
        async with self._authenticating:
            if self._options.user is None or (self._token is not None and self.metadata is not old):
                return
            request = rpc.AuthenticateRequest(name=self._options.user, password=self._options.password or "")
            for left in reversed(range(len(self))):
                endpoint = self.current
                try:
                    answer = await endpoint.authenticate(request, timeout=self._options.timeout_s)
                    break
                except grpc.aio.AioRpcError as exc:
                    found = self.translate(exc, endpoint)
                    if found.known is Known.FINAL or not left:
                        raise found.error from exc
            self._token = answer.token
            self.metadata = (_REQUIRE_LEADER, ("token", answer.token))

    async def leadership(self) -> Leadership:
        """Ask every member who leads, all at once; the answer of the highest raft term counts.

        The leader found becomes the current endpoint, which saves calls the hop through a follower.
        """
        if len(self) == 1:
            return Leadership(self.current, 0)
        endpoints = self._opened or self._open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask_status(endpoint)) for endpoint in endpoints]
        best: Leadership | None = None
        for index, task in enumerate(tasks):
            status = task.result()
            if status is None or status.leader != status.header.member_id:
                continue
            if best is None or status.raft_term > best.raft_term:
                best = Leadership(endpoints[index], status.raft_term)
                self._at = index
        return best or Leadership(self.current, 0)

    async def _ask_status(self, endpoint: Endpoint) -> rpc.StatusResponse | None:
        try:
            answer: rpc.StatusResponse = await endpoint.status(
                rpc.StatusRequest(), timeout=STATUS_TIMEOUT_S, metadata=self.metadata[1:]
            )
        except grpc.aio.AioRpcError:
            return None
        return answer

    async def close(self) -> None:
        """Close every channel; calls and streams under way end."""
        opened, self._opened = self._opened, []
        for endpoint in opened:
            await endpoint.channel.close()
