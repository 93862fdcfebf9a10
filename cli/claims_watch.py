"""What ``tenure claims watch`` tells: claims as they come and go, over lost connections and compactions.

Invariant: from the first listing (or ``since``) on, every change is told once and in the order of etcd's revisions.
Where etcd has forgotten a part of the story a gap is told, and then how what stands now differs from what stood
before. Deliberately reads etcd alone: it is a tool for the hour in which Postgres and every coordinator are down.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tenure.model.errors import Unavailable

if TYPE_CHECKING:
    from tenure.store.etcd.options import EtcdOptions
    from tenure.store.etcd.port import Etcd, Event, KeyValue

RELIST_S = 1.0
"""Between tries to list anew after a gap, while etcd does not answer."""
_GATEWAY = {"grpc": "http", "grpcs": "https"}


class Word(StrEnum):
    """What is told."""

    HELD = "held"
    """A claim that stood when etcd was listed."""
    LISTED = "listed"
    """All that stood was told; from here on changes are."""
    CLAIMED = "claimed"
    CHANGED = "changed"
    """A claim was written over: nothing of tenure does that."""
    GONE = "gone"
    LOST = "lost"
    """The connection; what happens meanwhile is told when it is back."""
    BACK = "back"
    GAP = "gap"
    """etcd has forgotten changes that were not told: it is listed anew."""


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that is told. ``job_id`` is empty where it is not of one claim."""

    event: Word
    revision: int
    """Of etcd: all up to it was told."""
    job_id: str = ""
    claim: dict[str, Any] = field(default_factory=dict)
    """The claim's value; empty where it cannot be read."""
    claim_revision: int = 0
    """The revision that created the claim."""
    is_after_gap: bool = False
    """Found by listing anew: it came or went at some time between."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which claims are told; None is any."""

    namespace: str | None = None
    kind: str | None = None
    worker: str | None = None

    def matches(self, claim: dict[str, Any]) -> bool:
        """Say whether a claim is to be told."""
        asked = (("namespace", self.namespace), ("kind", self.kind), ("worker", self.worker))
        return all(value is None or claim.get(name) == value for name, value in asked)


def by_gateway(options: EtcdOptions) -> EtcdOptions:
    """Return the options for the same members over etcd's JSON gateway, which etcd serves on the same port."""
    changed = []
    for endpoint in options.endpoints:
        scheme, separator, rest = endpoint.partition("://")
        changed.append(f"{_GATEWAY.get(scheme, scheme)}://{rest}" if separator else f"http://{endpoint}")
    return replace(options, endpoints=tuple(changed))


class ClaimsWatch:
    """One watch of all claims. ``run`` yields what is to be told until it is closed."""

    def __init__(self, etcd: Etcd, prefix: str, wanted: Wanted, *, since: int | None = None) -> None:
        self._etcd = etcd
        self._prefix = prefix
        self._wanted = wanted
        self._revision = since or 0
        self._since = since
        self._standing: dict[str, tuple[int, dict[str, Any]]] = {}
        """Create revision and value of each claim that stands, as far as is known."""
        self._lost: Told | None = None
        """How the connection was lost, until it is back."""
        self._is_lost = asyncio.Event()
        """Set while that is to be told."""

    async def run(self) -> AsyncGenerator[Told, None]:
        """Yield what is told. Raises ``Unavailable`` if etcd cannot be listed in the beginning."""
        from tenure.store.etcd.port import Compacted

        if self._since is None:
            async for told in self._list():
                yield told
        while True:
            try:
                async with aclosing(self._changes()) as changes:
                    async for told in changes:
                        yield told
            except Compacted as exc:
                yield Told(Word.GAP, self._revision, text=f"etcd keeps nothing before revision {exc.revision}")
                async for told in self._list_anew():
                    yield told

    async def _list(self) -> AsyncGenerator[Told, None]:
        listing = await self._etcd.list(self._prefix)
        self._revision = listing.revision
        for item in listing.items:
            told = self._stands(Word.HELD, item)
            if told is not None:
                yield told
        yield self._listed()

    async def _list_anew(self) -> AsyncGenerator[Told, None]:
        """List, for as long as it takes; tell what came and went."""
        while True:
            try:
                listing = await self._etcd.list(self._prefix)
                break
            except Unavailable as exc:
                self._broken(exc.message)
                if self._is_lost.is_set():
                    yield self._tell_lost()
                await asyncio.sleep(RELIST_S)
        self._lost = None
        before, self._standing, self._revision = self._standing, {}, listing.revision
        now = {self._job(item): item.create_revision for item in listing.items}
        for job_id, (created, claim) in before.items():
            if now.get(job_id) != created and self._wanted.matches(claim):
                yield Told(Word.GONE, self._revision, job_id, claim, created, is_after_gap=True)
        for item in listing.items:
            told = self._stands(Word.CLAIMED, item)
            if told is not None and before.get(told.job_id, (0,))[0] != item.create_revision:
                yield replace(told, is_after_gap=True)
        yield self._listed()

    async def _changes(self) -> AsyncGenerator[Told, None]:
        """Tell changes as they come, and a lost connection when it is lost, not when it is back."""
        watching = self._etcd.watch(
            self._prefix, start_revision=self._revision + 1, previous=True, progress=True, on_broken=self._broken
        )
        arrived: asyncio.Task[Any] | None = None
        lost: asyncio.Task[Any] | None = None
        try:
            while True:
                arrived = arrived or asyncio.ensure_future(anext(watching))
                lost = lost or asyncio.ensure_future(self._is_lost.wait())
                await asyncio.wait((arrived, lost), return_when=asyncio.FIRST_COMPLETED)
                if self._is_lost.is_set():
                    yield self._tell_lost()
                if lost.done():
                    lost = None
                if arrived.done():
                    batch, arrived = arrived.result(), None
                    if self._lost is not None:
                        self._lost = None
                        yield Told(Word.BACK, self._revision)
                    for event in batch.events:
                        told = self._change(event)
                        if told is not None:
                            yield told
                    self._revision = max(self._revision, batch.revision)
        finally:
            waiting = [task for task in (arrived, lost) if task is not None]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await watching.aclose()  # type: ignore[attr-defined]

    def _listed(self) -> Told:
        wanted = sum(self._wanted.matches(claim) for _, claim in self._standing.values())
        return Told(Word.LISTED, self._revision, text=str(wanted))

    def _broken(self, reason: str) -> None:
        if self._lost is None:
            self._lost = Told(Word.LOST, self._revision, text=reason)
            self._is_lost.set()

    def _tell_lost(self) -> Told:
        self._is_lost.clear()
        assert self._lost is not None
        return self._lost

    def _change(self, event: Event) -> Told | None:
        from tenure.store.etcd.port import EventKind

        item = event.item
        if event.kind is EventKind.PUT:
            is_new = item.create_revision == item.mod_revision
            return self._stands(Word.CLAIMED if is_new else Word.CHANGED, item)
        job_id = self._job(item)
        created, claim = self._standing.pop(job_id, (0, {}))
        if not claim and event.previous is not None:
            created, claim = event.previous.create_revision, _read(event.previous.value)
        if not self._wanted.matches(claim):
            return None
        return Told(Word.GONE, item.mod_revision, job_id, claim, created)

    def _stands(self, word: Word, item: KeyValue) -> Told | None:
        job_id, claim = self._job(item), _read(item.value)
        self._standing[job_id] = (item.create_revision, claim)
        if not self._wanted.matches(claim):
            return None
        revision = self._revision if word is Word.HELD else item.mod_revision
        return Told(word, revision, job_id, claim, item.create_revision)

    def _job(self, item: KeyValue) -> str:
        return item.key.removeprefix(self._prefix)


def _read(value: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(value)
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}


async def follow(
    options: EtcdOptions, prefix: str, wanted: Wanted, tell: Callable[[Told], None], *, since: int | None = None
) -> None:
    """Tell claims as they come and go until canceled.

    Raises:
        Unavailable: etcd cannot be listed in the beginning.
        ConfigurationError: reading claims is not allowed.
    """
    from tenure.store.etcd.connect import connect_with

    etcd = connect_with(options)
    try:
        async with aclosing(ClaimsWatch(etcd, prefix, wanted, since=since).run()) as all_told:
            async for told in all_told:
                tell(told)
    finally:
        await etcd.close()
