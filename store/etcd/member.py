"""One etcd member, as the client sees it: what a transport has to provide.

Two classes implement ``Member``: ``grpc_transport.GrpcMember`` and ``http_transport.HttpMember``. Both speak etcd's
protobuf messages (the gateway: their JSON form) and raise ``CallFailed`` alone. Everything else, the choice of the
member, repetition, tokens, watches that resume and the port's vocabulary, is written once, above (``client``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.faults import Fault


class CallFailed(Exception):
    """A call or stream failed; ``fault`` says what is known about it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault.error))
        self.fault = fault


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One of etcd's calls: its name in both transports and its messages."""

    grpc: str
    http: str
    request: Any
    response: Any
    needs_leader: bool = True
    """Refused at once by a member that knows of no leader, instead of waiting there."""


RANGE = Method("KV/Range", "kv/range", rpc.RangeRequest, rpc.RangeResponse)
TXN = Method("KV/Txn", "kv/txn", rpc.TxnRequest, rpc.TxnResponse)
COMPACT = Method("KV/Compact", "kv/compaction", rpc.CompactionRequest, rpc.CompactionResponse)
GRANT = Method("Lease/LeaseGrant", "lease/grant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse)
REVOKE = Method("Lease/LeaseRevoke", "lease/revoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse)
TIME_TO_LIVE = Method(
    "Lease/LeaseTimeToLive", "lease/timetolive", rpc.LeaseTimeToLiveRequest, rpc.LeaseTimeToLiveResponse
)
STATUS = Method("Maintenance/Status", "maintenance/status", rpc.StatusRequest, rpc.StatusResponse, needs_leader=False)
AUTHENTICATE = Method(
    "Auth/Authenticate", "auth/authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse, needs_leader=False
)
ROLE_ADD = Method("Auth/RoleAdd", "auth/role/add", rpc.AuthRoleAddRequest, rpc.AuthRoleAddResponse)
ROLE_GET = Method("Auth/RoleGet", "auth/role/get", rpc.AuthRoleGetRequest, rpc.AuthRoleGetResponse)
ROLE_GRANT = Method(
    "Auth/RoleGrantPermission",
    "auth/role/grant",
    rpc.AuthRoleGrantPermissionRequest,
    rpc.AuthRoleGrantPermissionResponse,
)
ROLE_REVOKE = Method(
    "Auth/RoleRevokePermission",
    "auth/role/revoke",
    rpc.AuthRoleRevokePermissionRequest,
    rpc.AuthRoleRevokePermissionResponse,
)
USER_ADD = Method("Auth/UserAdd", "auth/user/add", rpc.AuthUserAddRequest, rpc.AuthUserAddResponse)
USER_GET = Method("Auth/UserGet", "auth/user/get", rpc.AuthUserGetRequest, rpc.AuthUserGetResponse)
USER_GRANT = Method(
    "Auth/UserGrantRole", "auth/user/grant", rpc.AuthUserGrantRoleRequest, rpc.AuthUserGrantRoleResponse
)
ADMINISTRATION = (ROLE_ADD, ROLE_GET, ROLE_GRANT, ROLE_REVOKE, USER_ADD, USER_GET, USER_GRANT)
UNARY = (RANGE, TXN, COMPACT, GRANT, REVOKE, TIME_TO_LIVE, STATUS, AUTHENTICATE, *ADMINISTRATION)
KEEP_ALIVE = Method("Lease/LeaseKeepAlive", "lease/keepalive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse)
WATCH = Method("Watch/Watch", "watch", rpc.WatchRequest, rpc.WatchResponse)


class KeepAliveStream(Protocol):
    """A way to send KeepAlives to one member, one batch at a time."""

    def exchange(self, leases: Sequence[int]) -> AsyncIterator[rpc.LeaseKeepAliveResponse]:
        """Send a KeepAlive for each lease, none before this is called, and yield the answers to these.

        Raises:
            CallFailed: the stream is broken; answers may be missing.
        """
        ...

    def close(self) -> None:
        """Give the stream up, whatever its state. Does not wait."""
        ...


class WatchStream(Protocol):
    """One watch on one member."""

    quiet_s: float
    """Silence after which ``ask`` is due."""

    async def open(self, request: rpc.WatchCreateRequest) -> None:
        """Ask for the watch. Raises ``CallFailed``."""
        ...

    async def read(self) -> rpc.WatchResponse | None:
        """Return the next answer, None when the member ended the stream. Raises ``CallFailed``."""
        ...

    async def ask(self) -> bool:
        """Ask for a progress notice; False where the transport cannot."""
        ...

    def close(self) -> None:
        """Give the stream up, whatever its state. Does not wait."""
        ...


class Member(Protocol):
    """One endpoint."""

    name: str

    async def call(self, method: Method, request: Any, *, timeout_s: float, token: str | None) -> Any:
        """Send a request and return its answer. Raises ``CallFailed``."""
        ...

    def keep_alive(self, token: str | None) -> KeepAliveStream:
        """Return a new stream for KeepAlives; nothing is sent yet."""
        ...

    def watch(self, token: str | None) -> WatchStream:
        """Return a new stream for one watch; nothing is sent yet."""
        ...

    async def close(self) -> None:
        """Close the connections to this member."""
        ...
