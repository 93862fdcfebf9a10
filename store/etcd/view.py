"""A mirror of all keys under a prefix: listed once, then kept up to date by a watch.

Owns: the copy. Invariant: ``items`` is what etcd held at ``revision``; every difference was told to ``on_change`` in
order, once. It lists again after a compaction, and from time to time in any case, since some versions of etcd lose
delete events (RELIABILITY: #18089, #19179); differences found by listing are told as events too. Workers mirror their
inbox and the holds, coordinators workers and claims. A view is a hint of what was, never a proof of what is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import cast

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, Unavailable
from tenure.store.etcd.port import Compacted, Etcd, Event, EventKind, Events, KeyValue

log = structlog.get_logger(__name__)

RELIST_S = 60.0
RETRY_S = 0.2
MAX_RETRY_S = 2.0
LIST_TIMEOUT_S = 10.0

OnChange = Callable[[Sequence[Event]], None]


class View:
    """The mirror. ``run`` is the body of a task; read ``items`` whenever ``ready`` is set."""

    def __init__(
        self,
        etcd: Etcd,
        prefix: str,
        clock: Clock,
        on_change: OnChange | None = None,
        *,
        relist_s: float = RELIST_S,
    ) -> None:
        """Prepare a mirror; nothing is read before ``run``.

        ``on_change`` is called synchronously, after ``items`` was changed, with events whose ``previous`` is what
        the mirror held before. It must not block, and an exception from it ends ``run``.
        """
        self.items: dict[str, KeyValue] = {}
        self.revision = 0
        self.ready = asyncio.Event()
        """Set after the first listing."""
        self._etcd = etcd
        self._prefix = prefix
        self._clock = clock
        self._on_change = on_change
        self._relist_s = relist_s

    async def run(self) -> None:
        """Mirror until cancelled.

        Raises:
            ConfigurationError: reading the prefix is not allowed.
        """
        failures = 0
        while True:
            try:
                await self._list()
                failures = 0
                await self._follow()
            except Compacted as exc:
                log.info("view_relisted", prefix=self._prefix, oldest=exc.revision)
            except (Unavailable, BoundExceeded) as exc:
                failures += 1
                if failures == 1:
                    log.warning("view_stale", prefix=self._prefix, reason=str(exc))
                await self._clock.sleep(min(RETRY_S * 2**failures, MAX_RETRY_S) * random.uniform(0.5, 1.0))

    async def _list(self) -> None:
        listing = await self._etcd.list(self._prefix, timeout_s=LIST_TIMEOUT_S)
        found = {item.key: item for item in listing.items}
        events = [
            Event(EventKind.DELETE, KeyValue(key, b"", 0, listing.revision, 0), old)
            for key, old in self.items.items()
            if key not in found
        ]
        for key, item in found.items():
            old = self.items.get(key)
            if old is None or old.mod_revision != item.mod_revision or old.create_revision != item.create_revision:
                events.append(Event(EventKind.PUT, item, old))
        self.items = found
        self.revision = listing.revision
        self.ready.set()
        self._tell(events)

    async def _follow(self) -> None:
        """Apply changes until it is time to list again."""
        listed_at = self._clock.monotonic()
        watch = self._etcd.watch(self._prefix, start_revision=self.revision + 1, progress=True)
        async with contextlib.aclosing(cast(AsyncGenerator[Events], watch)) as changes:
            async for change in changes:
                self._tell([self._apply(event) for event in change.events])
                self.revision = max(self.revision, change.revision)
                if self._clock.monotonic() - listed_at >= self._relist_s:
                    return

    def _apply(self, event: Event) -> Event:
        key = event.item.key
        old = self.items.get(key)
        if event.kind is EventKind.PUT:
            self.items[key] = event.item
        else:
            self.items.pop(key, None)
        return Event(event.kind, event.item, old)

    def _tell(self, events: Sequence[Event]) -> None:
        if events and self._on_change is not None:
            self._on_change(events)
