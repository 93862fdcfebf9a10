"""The port to etcd: the few operations that tenure needs, the same over gRPC and over HTTP.

``client.EtcdClient`` implements ``Etcd`` over two transports: ``grpc_transport`` (native API, the default) and
``http_transport`` (etcd3gw over the JSON gateway). One contract suite runs on both. Keys are text, absolute (with the
prefix).

Errors, the only ones a caller sees, translated once in the transports:
    ``model.errors.Unavailable``      no endpoint answered in time; the outcome of a write is unknown
    ``model.errors.BoundExceeded``    etcd refuses writes (NOSPACE alarm); its subclass ``TooLarge`` means that a
                                      smaller request may pass (too many operations, too many bytes)
    ``model.errors.ConfigurationError`` authentication or permission refused
    ``Compacted``                     a watch or a read at a revision that etcd has forgotten: list again
    ``Refused``                       this request cannot be done as it stands, and nothing of it was done

What is asked and answered is made by the thousand every second: structs of msgspec, which C makes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from tenure.model.errors import BoundExceeded, TenureError


class Compacted(TenureError):
    """The revision asked for is compacted; ``revision`` is the oldest one that can be read."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted; the oldest revision is {revision}")
        self.revision = revision


class TooLarge(BoundExceeded):
    """The request has too many operations or bytes; nothing was done, and a part of it may pass."""


class Refusal(StrEnum):
    """Why etcd refused a request as a whole."""

    LEASE_GONE = "lease gone"
    """A put names a lease that does not exist."""
    DUPLICATE_KEY = "duplicate key"
    """A key is written twice in one transaction, nested ones included."""
    OTHER = "other"


class Refused(TenureError):
    """etcd refused the whole request, certainly: nothing of it was done. ``reason`` says why."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Field(StrEnum):
    """What of a key a compare looks at."""

    CREATE = "create"
    MOD = "mod"
    VERSION = "version"
    LEASE = "lease"


class Compare(Struct, frozen=True, gc=False):
    """``field`` of ``key`` equals ``number``. CREATE 0 means that the key is absent."""

    key: str
    field: Field
    number: int


class Put(Struct, frozen=True, gc=False):
    """Write a key, on a lease unless 0."""

    key: str
    value: bytes
    lease: int = 0


class Delete(Struct, frozen=True, gc=False):
    """Delete a key, or every key under it as a prefix."""

    key: str
    prefix: bool = False


class Get(Struct, frozen=True, gc=False):
    """Read a key, or every key under it as a prefix. Linearizable."""

    key: str
    prefix: bool = False
    keys_only: bool = False


class Txn(Struct, frozen=True, gc=False):
    """If all of ``compares`` hold do ``then``, else ``otherwise``; may nest. A key may be written once in all of it."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Operation, ...] = ()
    otherwise: tuple[Operation, ...] = ()


Operation = Put | Delete | Get | Txn


class KeyValue(Struct, frozen=True, gc=False):
    """A key as etcd stores it. A deleted key has only ``key`` and ``mod_revision`` (of its deletion)."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int


class PutResult(Struct, frozen=True, gc=False):
    """A put was done."""


class DeleteResult(Struct, frozen=True, gc=False):
    """How many keys were deleted."""

    deleted: int


class GetResult(Struct, frozen=True, gc=False):
    """The keys found, in key order."""

    items: tuple[KeyValue, ...]


class TxnResult(Struct, frozen=True):
    """The branch that was taken and its results, one per operation. ``revision`` is the store's after it."""

    succeeded: bool
    results: Sequence[OperationResult]
    """Read from etcd's answer when they are looked at: most transactions answer by ``succeeded`` alone."""
    revision: int = 0
    """Zero in nested results."""


OperationResult = PutResult | DeleteResult | GetResult | TxnResult


class Listing(Struct, frozen=True, gc=False):
    """Keys under a prefix at one revision."""

    items: tuple[KeyValue, ...]
    revision: int


class Grant(Struct, frozen=True, gc=False):
    """A lease as granted. ``sent_at`` is the monotonic instant at which the request was sent."""

    lease: int
    ttl_s: float
    sent_at: float


class TimeToLive(Struct, frozen=True, gc=False):
    """What is left of a lease, in whole seconds rounded down, and what was granted."""

    remaining_s: float
    granted_s: float


class Renewal(Struct, frozen=True, gc=False):
    """The answer to one KeepAlive. ``ttl_s`` 0 means that the lease is gone. ``sent_at`` as in ``Grant``."""

    lease: int
    ttl_s: float
    sent_at: float


class EventKind(StrEnum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


class Event(Struct, frozen=True, gc=False):
    """One change. For DELETE ``previous`` is the key before, where the watch asked for it and etcd still knew."""

    kind: EventKind
    item: KeyValue
    previous: KeyValue | None = None


class Events(Struct, frozen=True, gc=False):
    """Changes in revision order, complete up to ``revision``; empty for a progress notice."""

    events: tuple[Event, ...]
    revision: int


class Status(Struct, frozen=True, gc=False):
    """What an endpoint says of itself and the cluster."""

    cluster_id: int
    member_id: int
    leader_id: int
    revision: int
    version: str
    db_size_bytes: int
    endpoint: str
    alarms: tuple[str, ...] = ()


class Etcd(Protocol):
    """The operations. Every call is bounded by ``timeout_s`` (None: the transport's own default)."""

    async def txn(self, txn: Txn, *, timeout_s: float | None = None, repeatable: bool = False) -> TxnResult:
        """Run a transaction. After an unknown outcome it is sent again only if that is said to do no harm.

        ``repeatable`` says so: to be done twice, the second time perhaps late, changes nothing for the worse, and the
        caller can read the answer to the second time. What only reads is repeatable anyhow.
        """
        ...

    async def get(self, key: str, *, timeout_s: float | None = None) -> KeyValue | None:
        """Read one key, linearizable."""
        ...

    async def list(
        self, prefix: str, *, revision: int = 0, keys_only: bool = False, timeout_s: float | None = None
    ) -> Listing:
        """Read every key under a prefix, in pages, all at one revision (the newest if 0)."""
        ...

    async def grant(self, ttl_s: float, *, timeout_s: float | None = None) -> Grant:
        """Grant a lease; whole seconds, rounded up. The answer says what the server gave."""
        ...

    async def revoke(self, lease: int, *, timeout_s: float | None = None) -> bool:
        """Revoke a lease and delete its keys. False if it was gone already."""
        ...

    async def time_to_live(self, lease: int, *, timeout_s: float | None = None) -> TimeToLive | None:
        """Ask how long a lease has left, without renewing it. None if it is gone."""
        ...

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """Send a KeepAlive for each lease (all distinct) and collect the answers that come within the timeout.

        A lease without an answer is missing from the list: unreachable, not lost. Concurrent calls are allowed, each
        on a stream of its own, but never for the same lease.
        """
        ...

    def watch(
        self,
        prefix: str,
        *,
        start_revision: int = 0,
        previous: bool = False,
        progress: bool = False,
        deletions: bool = True,
        on_broken: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Events]:
        """Stream changes under a prefix from a revision on (0: from now), over reconnects without gap or repeat.

        Without ``deletions`` etcd does not send them. ``on_broken`` is told why each time that a connection is lost,
        and each time that another cannot be had; with ``progress`` the next item says that one is there again.

        Raises ``Compacted`` when the next revision is forgotten. The first item is sent when the watch is
        established (empty events). An async generator: closing it cancels the watch.
        """
        ...

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """Ask an endpoint for its status."""
        ...

    async def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Forget history before a revision. Done already counts as done."""
        ...

    async def close(self) -> None:
        """Close connections; watches end."""
        ...
