"""Overview: how it goes, in figures for operators. Read when somebody asks, at most once a second, for all who ask.

What waits and executes is read from Postgres in bounded index scans, who is there from etcd, and what ended of late is
what the coordinators have counted themselves (``tally``), asked of each other and added up. A coordinator that does not
tell is named, and its figures are missing. Invariant: however many ask, one look at a time is under way, and looking
takes at most a share of the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
import structlog

from tenure.coordinator import census
from tenure.coordinator.census import readable
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.survey import MOST_HEADS, MOST_JOBS
from tenure.coordinator.tally import NO_LANE, TALLY, Tally
from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.model.routes import covers
from tenure.model.rules import Subject
from tenure.store.etcd.keyspace import Keyspace, LeaderValue
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row
from tenure.v1 import cluster_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tenure.v1.dial import TLS, Dialer

log = structlog.get_logger(__name__)

FRESH_S = 1.0
SHARE = 20
"""What a look showed stands for so many times as long as it took, at least."""
MOST_FRESH_S = 10.0
ASK_S = 1.0
"""How long another coordinator may take to tell its figures."""
MAX_POOLS = 1_000
READY, HEADS = MOST_JOBS, MOST_HEADS
EXECUTING, OTHERS = 50_000, 10_000
"""How far is counted; of what is ready as for ``/metrics``."""


@dataclass(slots=True)
class _Pool:
    ready: int = 0
    executing: int = 0
    oldest_at: datetime | None = None
    minute: pb.Figures = field(default_factory=pb.Figures)
    hour: pb.Figures = field(default_factory=pb.Figures)

    @property
    def weight(self) -> tuple[int, int]:
        return self.ready + self.executing, _ended(self.hour)


class Overview:
    """The figures. ``others`` returns the addresses of the other coordinators by id."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        lanes: Lanes,
        others: Callable[[], Mapping[str, str]],
        *,
        tls: TLS | None = None,
        own_token: Callable[[], Awaitable[str]] | None = None,
        tally: Tally = TALLY,
    ) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._lanes = lanes
        self._others = others
        self._dialer = Dialer(tls)
        self._own_token = own_token
        self._tally = tally
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._looking = asyncio.Lock()
        self._seen: pb.GetOverviewResponse | None = None
        self._fresh_until = float("-inf")
        self._problem: TenureError | None = None
        self._problem_until = float("-inf")

    async def now(self) -> pb.GetOverviewResponse:
        """Return how it goes, as of about a second ago.

        Raises:
            Unavailable: a store does not answer.
        """
        if self._seen is not None and self._clock.monotonic() < self._fresh_until:
            return self._seen
        async with self._looking:
            if self._seen is not None and self._clock.monotonic() < self._fresh_until:
                return self._seen  # somebody else has looked meanwhile
            if self._problem is not None and self._clock.monotonic() < self._problem_until:
                raise self._problem  # who waited while it did not answer does not ask again in turn
            began = self._clock.monotonic()
            try:
                self._seen = await self._look()
            except TenureError as exc:
                self._problem, self._problem_until = exc, self._clock.monotonic() + FRESH_S
                raise
            self._problem = None
            took_s = self._clock.monotonic() - began
            self._fresh_until = began + took_s + min(MOST_FRESH_S, max(FRESH_S, SHARE * took_s))
            return self._seen

    async def own_figures(self) -> pb.GetOwnFiguresResponse:
        """Return what this coordinator has counted, by pool.

        Raises:
            Unavailable: Postgres does not answer.
        """
        minute, hour = self._tally.last_minute(), self._tally.last_hour()
        pool_of = await self._pools_of(lane for lane, _ in (*minute, *hour))
        pools: dict[str, pb.PoolFigures] = {}
        for counts, name in ((minute, "last_minute"), (hour, "last_hour")):
            for (lane, what), jobs in counts.items():
                pool = pool_of.get(lane, "")
                figures = getattr(pools.setdefault(pool, pb.PoolFigures(pool=pool)), name)
                setattr(figures, what, getattr(figures, what) + jobs)
        return pb.GetOwnFiguresResponse(
            pools=pools.values(),
            minutes=[pb.Figures(**{str(what): jobs for what, jobs in one.items()}) for one in self._tally.minutes()],
            since=wire.timestamp(self._tally.since),
        )

    async def close(self) -> None:
        """Close the connections to other coordinators."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _look(self) -> pb.GetOverviewResponse:
        bounds = {"ready": READY, "executing": EXECUTING, "others": OTHERS, "heads": HEADS}
        told, workers, claims, leader = await asyncio.gather(
            self._figures(),
            census.workers(self._etcd, self._keys),
            self._etcd.list(self._keys.claims, keys_only=True),
            self._etcd.get(self._keys.leader),
        )
        rows = await self._database.fetch("overview", bounds)
        (remembered,) = await self._database.fetch("cluster")
        pauses = await self._database.fetch("pauses")
        figures = [own for own in told.values() if own is not None]
        pool_of = await self._pools_of(row.lane for row in rows if row.lane is not None)
        pools = _pools(rows, pool_of, figures)
        served = {pool for worker in workers.values() for pool in worker.pools}
        for pool in served:
            pools.setdefault(pool, _Pool())
        paused = [row.name for row in pauses if row.subject == Subject.POOL]
        jobs = Counter[str]()
        for row in rows:
            jobs[row.what] += row.jobs
        oldest = [pool.oldest_at for pool in pools.values() if pool.oldest_at is not None]
        most = sorted(pools, key=lambda name: pools[name].weight, reverse=True)[:MAX_POOLS]
        return pb.GetOverviewResponse(
            at=wire.timestamp(self._clock.wall()),
            pools=[
                pb.PoolOverview(
                    pool=name,
                    ready=pool.ready,
                    executing=pool.executing,
                    oldest_ready_at=wire.timestamp(pool.oldest_at),
                    workers=sum(any(covers(own, name) for own in worker.pools) for worker in workers.values()),
                    paused=any(covers(one, name) for one in paused),
                    last_minute=pool.minute,
                    last_hour=pool.hour,
                )
                for name, pool in ((name, pools[name]) for name in sorted(most))
                if name
            ],
            last_minute=_sum(pool.last_minute for own in figures for pool in own.pools),
            last_hour=_sum(pool.last_hour for own in figures for pool in own.pools),
            minutes=[_sum(of_one) for of_one in zip(*(own.minutes for own in figures), strict=False)],
            ready=jobs["ready"],
            ready_at_least=any(row.capped for row in rows),
            executing=jobs["executing"],
            executing_at_least=jobs["executing"] >= EXECUTING,
            waiting=jobs["waiting"],
            waiting_at_least=jobs["waiting"] >= OTHERS,
            delayed=jobs["delayed"],
            delayed_at_least=jobs["delayed"] >= OTHERS,
            oldest_ready_at=wire.timestamp(min(oldest, default=None)),
            workers=len(workers),
            draining_workers=sum(worker.draining for worker in workers.values()),
            capacity=sum(worker.capacity for worker in workers.values()),
            claims=len(claims.items),
            leader="".join(value.coordinator for _, value in readable([leader] if leader else [], LeaderValue)),
            leader_term=remembered.leader_term,
            coordinators=len(told),
            silent=sorted(id for id, own in told.items() if own is None),
            counted_since=max((own.since for own in figures), key=lambda since: since.ToNanoseconds()),
        )

    async def _figures(self) -> dict[str, pb.GetOwnFiguresResponse | None]:
        """Ask each coordinator what it has counted; None: it does not say."""
        others = dict(self._others())
        for address in self._channels.keys() - set(others.values()):
            await self._channels.pop(address).close()
        own, *told = await asyncio.gather(self.own_figures(), *map(self._ask, others.values()))
        return {"": own, **dict(zip(others, told, strict=True))}

    async def _ask(self, address: str) -> pb.GetOwnFiguresResponse | None:
        try:
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = self._dialer.channel(address)
            shown = (("authorization", f"Bearer {await self._own_token()}"),) if self._own_token else ()
            stub: Any = ClusterServiceStub(channel)
            answer: pb.GetOwnFiguresResponse = await stub.GetOwnFigures(
                pb.GetOwnFiguresRequest(), timeout=ASK_S, metadata=shown
            )
            return answer
        except grpc.aio.AioRpcError as exc:
            log.debug("figures_not_told", coordinator=address, status=exc.code().name)
            if self._dialer.reread() and (old := self._channels.pop(address, None)) is not None:
                await old.close()
        except TenureError as exc:
            log.debug("figures_not_told", coordinator=address, reason=exc.message)
        return None

    async def _pools_of(self, lanes: Iterable[int]) -> dict[int, str]:
        known = await self._lanes.by_id(lane for lane in lanes if lane != NO_LANE)
        return {id: lane.pool for id, lane in known.items()}


def _pools(
    rows: Iterable[Row], pool_of: Mapping[int, str], figures: Iterable[pb.GetOwnFiguresResponse]
) -> dict[str, _Pool]:
    pools: defaultdict[str, _Pool] = defaultdict(_Pool)
    for row in rows:
        if row.lane is None:
            continue
        pool = pools[pool_of.get(row.lane, "")]
        if row.what == "executing":
            pool.executing += row.jobs
            continue
        pool.ready += row.jobs
        if pool.oldest_at is None or row.oldest_at < pool.oldest_at:
            pool.oldest_at = row.oldest_at
    for own in figures:
        for told in own.pools:
            pool = pools[told.pool]
            pool.minute = _sum((pool.minute, told.last_minute))
            pool.hour = _sum((pool.hour, told.last_hour))
    return pools


_FIELDS = tuple(one.name for one in pb.Figures.DESCRIPTOR.fields)


def _sum(figures: Iterable[pb.Figures]) -> pb.Figures:
    total = Counter[str]()
    for one in figures:
        for name in _FIELDS:
            total[name] += getattr(one, name)
    return pb.Figures(**total)


def _ended(figures: pb.Figures) -> int:
    return figures.completed + figures.failed + figures.canceled
