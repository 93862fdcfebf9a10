"""Inbox: the offers and cancel requests addressed to this worker, as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from tenure.model.clock import Clock
from tenure.store.etcd.keyspace import InboxValue, Keyspace, parse_inbox
from tenure.store.etcd.port import Etcd, Event, EventKind
from tenure.store.etcd.view import View

log = structlog.get_logger(__name__)


class Inbox:
    """A mirror of the worker's inbox that hands on each message, with its key, once. ``run`` is the body of a task."""

    def __init__(
        self, etcd: Etcd, keys: Keyspace, clock: Clock, worker: str, take: Callable[[str, InboxValue], None]
    ) -> None:
        self._view = View(etcd, keys.inbox(worker), clock, self._arrived)
        self._take = take

    async def run(self) -> None:
        """Follow the inbox until cancelled."""
        await self._view.run()

    def _arrived(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind is not EventKind.PUT:
                continue
            try:
                message = parse_inbox(event.item.value)
            except ValueError as exc:
                log.error("message_unreadable", key=event.item.key, error=str(exc))
                continue
            self._take(event.item.key, message)
