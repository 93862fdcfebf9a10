"""Explain: why a job does not run, read from both stores when somebody asks."""

from __future__ import annotations

import uuid
from collections import Counter

from tenure.coordinator import census
from tenure.coordinator.allowance import rules_from_row
from tenure.coordinator.lanes import lane_from_row
from tenure.model.dependencies import Trigger
from tenure.model.dispatch import Seat
from tenure.model.states import JobState
from tenure.model.why import Obstacle, Picture, obstacles
from tenure.store.etcd.keyspace import HoldValue, Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database


class Explainer:
    """Explains jobs that do not execute."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys

    async def obstacles(self, job_id: uuid.UUID) -> list[Obstacle]:
        """Return what is in a job's way; nothing for one that executes, is finished, or merely waits for its turn."""
        rows = await self._database.fetch("job_to_explain", {"id": job_id})
        if not rows or rows[0].state == JobState.EXECUTING:
            return []
        row = rows[0]
        # The columns of a lane, and its own id under another name.
        lane = lane_from_row(row._replace(id=row.lane))
        hold = await self._etcd.get(self._keys.hold(str(job_id)))
        held: Counter[str] = Counter()
        for name in lane.limits:
            held += await census.slots_held(self._etcd, self._keys, name)
        picture = Picture(
            state=JobState(row.state),
            lane=lane,
            route=row.route,
            due=row.due,
            activate_at=row.activate_at,
            now=row.now,
            waiting_on=row.waiting_on,
            trigger=Trigger(row.trigger),
            parked=row.parked,
            waits_for=[str(id) for id in row.waits_for],
            behind=str(row.behind) if row.behind else None,
            behind_alone=bool(row.held_back),
            seats=await self._seats(),
            slots_held=held,
            hold=None if hold is None else HoldValue.from_json(hold.value).reason,
        )
        (rules,) = await self._database.fetch("dispatch_rules")
        return obstacles(picture, rules_from_row(rules))

    async def _seats(self) -> list[Seat]:
        workers = await census.workers(self._etcd, self._keys)
        claims = await census.claims_by_worker(self._etcd, self._keys)
        return [
            Seat(
                worker,
                value.pools,
                frozenset(value.kinds),
                0 if value.draining else value.capacity - claims[worker],
                value.labels,
            )
            for worker, value in workers.items()
        ]
