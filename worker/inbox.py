"""Inbox: the offers and cancel requests addressed to this worker, as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from tenure.model.clock import Clock
from tenure.store.etcd.keyspace import InboxValue, Keyspace, parse_inbox
from tenure.store.etcd.port import Etcd, Event, EventKind
from tenure.store.etcd.view import View

log = structlog.get_logger(__name__)


class Inbox:
    """A mirror of the worker's inbox that hands on each message once. ``run`` is the body of a task."""

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock, worker: str) -> None:
        self._view = View(etcd, keys.inbox(worker), clock, self._arrived)
        self._messages: asyncio.Queue[tuple[str, InboxValue]] = asyncio.Queue()  # bounded by what leaders dare to offer

    async def run(self) -> None:
        """Follow the inbox until cancelled."""
        await self._view.run()

    async def messages(self) -> AsyncIterator[tuple[str, InboxValue]]:
        """Yield each message with its key, for ever."""
        while True:
            yield await self._messages.get()

    def _arrived(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind is not EventKind.PUT:
                continue
            try:
                self._messages.put_nowait((event.item.key, parse_inbox(event.item.value)))
            except ValueError as exc:
                log.error("message_unreadable", key=event.item.key, error=str(exc))
