"""The keys that tenure keeps in etcd, and the JSON in their values (DESIGN.md, section 5; docs/KEYSPACE.md).

Owns: the spelling of every key. Invariant: keys are built from ids and names that were validated before, and every
value can be read by a version that knows fewer or more fields (unknown ones are ignored, new ones have defaults).
Offers, claims and announcements are written thousands of times a second: structs that msgspec writes and reads in C.
No payloads, results or secrets are ever put here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Self, TypeVar

from msgspec import DecodeError, Struct
from msgspec.json import decode, encode

from tenure.model.routes import kind_error, route_error

DEFAULT_PREFIX = "/tenure/v1/"


class Keyspace:
    """Builds keys below a prefix, and reads ids back from them."""

    __slots__ = ("claims", "coordinators", "done", "holds", "inboxes", "leader", "prefix", "slots", "workers")

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = prefix if prefix.endswith("/") else prefix + "/"
        self.leader = self.prefix + "leader"
        """The key of the election (not a prefix)."""
        self.coordinators = self.prefix + "coordinators/"
        self.workers = self.prefix + "workers/"
        self.inboxes = self.prefix + "inbox/"
        self.claims = self.prefix + "claims/"
        self.slots = self.prefix + "slots/"
        self.holds = self.prefix + "holds/"
        self.done = self.prefix + "done/"

    def coordinator(self, coordinator_id: str) -> str:
        """Return the key by which a coordinator says that it is there."""
        return self.coordinators + coordinator_id

    def worker(self, worker_id: str) -> str:
        """Return the key by which a worker says that it is there."""
        return self.workers + worker_id

    def inbox(self, worker_id: str) -> str:
        """Return the prefix of everything addressed to a worker."""
        return f"{self.inboxes}{worker_id}/"

    def message(self, worker_id: str, sequence: int) -> str:
        """Return the key of one message to a worker; zero-padded, so that key order is the order of sending."""
        return f"{self.inboxes}{worker_id}/{sequence:020d}"

    def claim(self, job_id: str) -> str:
        """Return the key of a job's claim."""
        return self.claims + job_id

    def slot(self, slot: str) -> str:
        """Return the key of a slot, named ``<limit>/<n>``."""
        return self.slots + slot

    def limit(self, limit: str) -> str:
        """Return the prefix of a limit's slots."""
        return f"{self.slots}{limit}/"

    def hold(self, job_id: str) -> str:
        """Return the key that an operator sets to stop a job."""
        return self.holds + job_id

    def announcement(self, job_id: str) -> str:
        """Return the key that announces the end of a job."""
        return self.done + job_id

    @staticmethod
    def last(key: str) -> str:
        """Return the last segment: the id in coordinator, worker, claim, hold and done keys."""
        return key[key.rfind("/") + 1 :]

    def parse_message(self, key: str) -> tuple[str, int]:
        """Return worker id and sequence of an inbox key.

        Raises:
            ValueError: it is not the key of a message.
        """
        worker_id, _, sequence = key.removeprefix(self.inboxes).partition("/")
        return worker_id, int(sequence)

    def parse_slot(self, key: str) -> tuple[str, int]:
        """Return limit and number of a slot key.

        Raises:
            ValueError: it is not the key of a slot.
        """
        return parse_slot_name(key.removeprefix(self.slots))


def slot_name(limit: str, number: int) -> str:
    """Name one unit of a limit."""
    return f"{limit}/{number}"


def parse_slot_name(slot: str) -> tuple[str, int]:
    """Return limit and number of a slot.

    Raises:
        ValueError: it names none.
    """
    limit, _, number = slot.rpartition("/")
    return limit, int(number)


def stamp(instant: datetime) -> str:
    """Write a time of day as it stands in values: ISO 8601, milliseconds."""
    return instant.isoformat(timespec="milliseconds")


_T = TypeVar("_T")


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return decode(data, type=kind)
    except (DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"{kind.__name__.strip('_')}: {exc} in {data[:40]!r}") from exc


def _require_words(name: str, words: tuple[object, ...], problem_of: Callable[[str], str | None]) -> None:
    for word in words:
        problem = problem_of(word) if isinstance(word, str) else "must be a string"
        if problem:
            raise ValueError(f"{name}: {word!r} {problem}")


class _Value(Struct, frozen=True):
    """A value whose fields are JSON as they are. The reader ignores what it does not know."""

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        return encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a value.

        Raises:
            ValueError: it is not the JSON that belongs here (keys can be written by hand).
        """
        return _decode(data, cls)


class LeaderValue(_Value, frozen=True):
    """Who leads."""

    coordinator: str
    since: str


class CoordinatorValue(_Value, frozen=True):
    """Where a coordinator serves; empty if it does not."""

    grpc: str
    http: str = ""
    version: str = ""
    started_at: str = ""


class WorkerValue(Struct, frozen=True):
    """What a worker offers to do."""

    pools: tuple[str, ...]
    kinds: tuple[str, ...]
    capacity: int
    """Attempts at a time."""
    labels: dict[str, str]
    mode: str = "direct"
    host: str = ""
    version: str = ""
    draining: bool = False
    started_at: str = ""

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        return encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> WorkerValue:
        """Read a value.

        Raises:
            ValueError: it is not a worker's.
        """
        value = _decode(data, dict[str, Any])
        try:
            pools, kinds, capacity = tuple(value["pools"]), tuple(value["kinds"]), int(value["capacity"])
            labels = dict(value.get("labels") or {})
            _require_words("pools", pools, route_error)
            _require_words("kinds", kinds, kind_error)
            return cls(
                pools=pools,
                kinds=kinds,
                capacity=capacity,
                labels=labels,
                mode=value.get("mode", "direct"),
                host=value.get("host", ""),
                version=value.get("version", ""),
                draining=bool(value.get("draining", False)),
                started_at=value.get("started_at", ""),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"WorkerValue: {exc!r}") from exc


class _ClaimText(_Value, frozen=True):
    """A claim's value as it is written."""

    worker: str
    namespace: str
    kind: str
    route: str
    lease: str
    claimed_at: str


class ClaimValue(Struct, frozen=True):
    """Who holds a job. The lease is written in hex, as ``etcdctl lease revoke`` takes it."""

    worker: str
    namespace: str
    kind: str
    route: str
    lease: int
    claimed_at: str

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        lease = f"{self.lease:016x}"
        return encode(_ClaimText(self.worker, self.namespace, self.kind, self.route, lease, self.claimed_at))

    @classmethod
    def from_json(cls, data: bytes) -> ClaimValue:
        """Read a value.

        Raises:
            ValueError: it is not a claim's.
        """
        text = _ClaimText.from_json(data)
        return cls(text.worker, text.namespace, text.kind, text.route, int(text.lease, 16), text.claimed_at)


class ClaimHolder(_Value, frozen=True):
    """What the leader reads of a claim's value."""

    worker: str
    namespace: str


class SlotValue(_Value, frozen=True):
    """Which job holds a slot."""

    job: str


class HoldValue(Struct, frozen=True):
    """Why a job is held. Written by hand, so any text is a reason."""

    reason: str

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        return encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> HoldValue:
        """Read a value, whatever it is."""
        try:
            return cls(str(_decode(data, dict[str, Any]).get("reason", "")))
        except ValueError:
            return cls(data.decode(errors="replace"))


class DoneValue(_Value, frozen=True):
    """How a job ended."""

    state: str
    attempt: int
    finished_at: str


class Offer(Struct, frozen=True, omit_defaults=True):
    """One job offered to a worker."""

    job: str
    attempt: int
    """Attempts the job has had when it was offered."""
    ttl_s: float
    namespace: str
    kind: str
    route: str
    slots: tuple[str, ...] = ()
    """The units of limits (``<limit>/<n>``) to be put on the claim's lease."""


class Offers(Struct, frozen=True):
    """Jobs offered by the leader of a term."""

    term: int
    offers: tuple[Offer, ...]

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        return encode(self)


class CancelRequest(Struct, frozen=True):
    """A wish that an attempt be stopped."""

    job: str
    fence: int
    reason: str = ""

    def to_json(self) -> bytes:
        """Write the value as etcd stores it."""
        return encode({"cancel": self})


InboxValue = Offers | CancelRequest


class _Message(Struct, frozen=True):
    """A message to a worker as it is written: offers, or a cancel request."""

    term: int = 0
    offers: tuple[Offer, ...] | None = None
    cancel: CancelRequest | None = None


def parse_inbox(data: bytes) -> InboxValue:
    """Read a message to a worker.

    Raises:
        ValueError: it is neither offers nor a cancel request.
    """
    message = _decode(data, _Message)
    if message.cancel is not None:
        return message.cancel
    if message.offers is None or not message.term:
        raise ValueError(f"neither offers of a term nor a cancel request: {data[:40]!r}")
    return Offers(message.term, message.offers)
