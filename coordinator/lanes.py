"""Interned lanes: the number under which ready jobs that can be decided upon alike are indexed.

A lane's pool is the longest pool known that covers the job's route. A pool that appears later may cut a lane in
two: the leader then moves the jobs, and again a little later, for what a coordinator with an older picture wrote.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from tenure.model.clock import Clock
from tenure.model.dispatch import Lane
from tenure.model.errors import Conflict, TenureError
from tenure.model.jobs import JobSpec
from tenure.model.routes import pool_of
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

REFRESH_S = 5.0
STALE_S = 1.5 * REFRESH_S
"""No lane is chosen by a picture of the pools that is older than this."""
REMEMBERED_S = 1_800.0
"""Then a lane is asked for again, which marks it as used: one that nobody uses for a day is dropped."""
_CACHED = 100_000
_TRIES = 5
_PAIRS = 1_000
_PAGE = 20_000


class LaneKey(NamedTuple):
    """What makes a lane, as it is stored."""

    pool: str
    namespace: str
    kind: str
    limits: str = ""
    requires: str = ""


class Placement(NamedTuple):
    """What of a stored job decides upon its lane."""

    route: str
    namespace: str
    kind: str
    limits: tuple[str, ...]
    requires: Mapping[str, str]


class Lanes:
    """A cache of pools and lanes; every coordinator has one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._pools: frozenset[str] = frozenset()
        self._read_at = -math.inf
        self._ids: dict[LaneKey, int] = {}
        self._ids_since = self._clock.monotonic()
        self._by_id: dict[int, Lane] = {}

    async def refresh(self) -> None:
        """Read the known pools again."""
        asked_at = self._clock.monotonic()
        self._pools = frozenset(row.path for row in await self._database.fetch("known_pools"))
        self._read_at = asked_at
        if asked_at - self._ids_since > REMEMBERED_S:
            self._ids.clear()
            self._ids_since = asked_at

    async def keep_fresh(self) -> None:
        """Refresh for ever: the body of a task. A failure leaves the older picture, which the leader mends."""
        while True:
            try:
                await self.refresh()
            except TenureError as exc:
                log.warning("pools_not_refreshed", error=exc.message)
            await self._clock.sleep(REFRESH_S)

    async def of(self, specs: Sequence[JobSpec | Placement], database: Database | None = None) -> list[int]:
        """Return the lane of each job, making those that are new (with ``database``: by that one).

        Raises:
            Unavailable: Postgres does not answer. Conflict: a lane has the id of another one.
        """
        if self._clock.monotonic() - self._read_at > STALE_S:
            await self.refresh()  # the leader moves what was written with an older picture, but not for ever
        keys = [_key(pool_of(spec.route, self._pools), spec) for spec in specs]
        ids = {key: self._ids.get(key) for key in keys}
        unknown = sorted(key for key, lane in ids.items() if lane is None)
        if unknown:
            ids |= await self._intern(unknown, database)
        return [lane for key in keys if (lane := ids[key]) is not None]

    async def by_id(self, ids: Iterable[int]) -> dict[int, Lane]:
        """Return what lanes stand for."""
        wanted = set(ids)
        found = {lane: self._by_id[lane] for lane in wanted if lane in self._by_id}
        unknown = sorted(wanted - found.keys())
        if unknown:
            for row in await self._database.fetch("lanes_by_id", {"lanes": unknown}):
                found[row.id] = self._remember(_key_of(row), lane_from_row(row))
        return found

    def know(self, pools: Iterable[str]) -> bool:
        """Say whether all of these pools were known when last looked."""
        return self._pools.issuperset(pools)

    async def register_pools(self, pools: Iterable[str]) -> list[str]:
        """Remember pools that workers serve or operators paused; return those that are new."""
        new = sorted(set(pools) - self._pools)
        if new:
            await self._database.fetch("register_pools", {"pools": new})
            await self.refresh()
        return new

    async def refit(self, pools: Sequence[str]) -> int:
        """Move jobs that belong to one of these pools from shallower lanes, in one pass; return how many."""
        misfits = await self._database.fetch("misfit_lanes", {"pools": list(pools)})
        if not misfits:
            return 0
        deeper = [_key_of(row)._replace(pool=row.deeper) for row in misfits]
        unknown = sorted({key for key in deeper if key not in self._ids})
        ids = {key: self._ids[key] for key in deeper if key in self._ids}
        for start in range(0, len(unknown), _PAIRS):
            ids |= await self._intern(unknown[start : start + _PAIRS])
        pairs = {
            "before": [row.id for row in misfits],
            "after": [ids[key] for key in deeper],
            "pools": [row.deeper for row in misfits],
        }
        moved: int = 0
        last = uuid.UUID(int=0)
        while True:
            (page,) = await self._database.fetch("move_to_lanes", {**pairs, "last": last, "limit": _PAGE})
            moved += page.moved
            if page.read < _PAGE:
                return moved
            last = page.last

    async def restore(self, lanes: Sequence[int]) -> None:
        """Make again the rows of lanes that have jobs: Postgres lost them after this or another process saw them."""
        for row in await self._database.fetch("lane_samples", {"lanes": list(lanes)}):
            job = placement_of(row)
            segments = job.route.split("/")
            made_of = [_key("/".join(segments[: end + 1]), job) for end in range(len(segments))]
            await self._intern(made_of)  # the pool it was made with is one of these; empty lanes cost nothing
            if not any(self._ids.get(key) == row.lane for key in made_of):
                log.error("lane_not_restored", lane=row.lane, route=job.route, kind=job.kind)

    async def _intern(self, keys: Sequence[LaneKey], database: Database | None = None) -> dict[LaneKey, int]:
        columns = dict(zip(_COLUMNS, map(list, zip(*keys, strict=True)), strict=True))
        missing = set(keys)
        ids: dict[LaneKey, int] = {}
        for _ in range(_TRIES):  # a lane made by another coordinator at this moment shows only in a fresh snapshot
            for row in await (database or self._database).fetch("intern_lanes", columns):
                self._remember(_key_of(row), lane_from_row(row))
                ids[_key_of(row)] = row.id
                missing.discard(_key_of(row))
            if not missing:
                return ids
        raise Conflict("lanes: two that differ have the same id", hint="change a label that these jobs require")

    def _remember(self, key: LaneKey, lane: Lane) -> Lane:
        if len(self._by_id) >= _CACHED:
            self._by_id.clear()
            self._ids.clear()
        self._by_id[lane.id] = lane
        self._ids[key] = lane.id
        return lane


_COLUMNS = ("pools", "namespaces", "kinds", "limits", "requires")


def lane_from_row(row: Row) -> Lane:
    """Convert a row of ``lanes_with_ready``, ``lanes_by_id`` or ``intern_lanes``."""
    limits = tuple(row.limits.split(",")) if row.limits else ()
    requires = tuple(json.loads(row.requires).items()) if row.requires else ()
    return Lane(row.id, row.pool, row.namespace, row.kind, limits, requires)


def placement_of(row: Row) -> Placement:
    """Convert a row that has these columns of a job."""
    requires = json.loads(row.requires) if row.requires else {}
    return Placement(row.route, row.namespace, row.kind, tuple(row.limits or ()), requires)


def _key_of(row: Row) -> LaneKey:
    return LaneKey(row.pool, row.namespace, row.kind, row.limits, row.requires)


def _key(pool: str, job: JobSpec | Placement) -> LaneKey:
    return LaneKey(pool, job.namespace, job.kind, ",".join(sorted(job.limits)), _labels_text(job.requires))


def _labels_text(labels: Mapping[str, str]) -> str:
    # As tenure.lane_of writes it: the ids of lanes are made from this text.
    return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if labels else ""
