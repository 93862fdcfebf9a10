"""Census: workers, claims and slots as etcd shows them now. Read when somebody asks; nothing is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeVar

import structlog

from tenure.store.etcd.keyspace import ClaimValue, CoordinatorValue, Keyspace, LeaderValue, WorkerValue
from tenure.store.etcd.port import Etcd, KeyValue

log = structlog.get_logger(__name__)

_Value = TypeVar("_Value", LeaderValue, CoordinatorValue, ClaimValue, WorkerValue)


def readable(items: Iterable[KeyValue], kind: type[_Value]) -> Iterator[tuple[KeyValue, _Value]]:
    """Yield keys with their values; what somebody wrote by hand and nobody can read is left out."""
    for item in items:
        try:
            yield item, kind.from_json(item.value)
        except ValueError as exc:
            log.warning("key_unreadable", key=item.key, error=str(exc))


def instant(text: str) -> datetime | None:
    """Return a time as a value of etcd says it; None where it says none, or somebody wrote it by hand."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


async def workers(etcd: Etcd, keys: Keyspace) -> dict[str, WorkerValue]:
    """Return the registered workers by id."""
    listing = await etcd.list(keys.workers)
    return {keys.last(item.key): value for item, value in readable(listing.items, WorkerValue)}


async def claims_by_worker(etcd: Etcd, keys: Keyspace) -> Counter[str]:
    """Count claims by worker."""
    listing = await etcd.list(keys.claims)
    return Counter(value.worker for _, value in readable(listing.items, ClaimValue))


async def slots_held(etcd: Etcd, keys: Keyspace, limit: str | None = None) -> Counter[str]:
    """Count the slots that are held, by limit: of one limit, or of all."""
    listing = await etcd.list(keys.slots if limit is None else keys.limit(limit), keys_only=True)
    held: Counter[str] = Counter()
    for item in listing.items:
        try:
            held[keys.parse_slot(item.key)[0]] += 1
        except ValueError:
            log.warning("key_unreadable", key=item.key)
    return held
