"""LimitService: definitions of limits, and how much of each is in use."""

from __future__ import annotations

from typing import Any

import grpc

from tenure.coordinator.allowance import limit_from_row
from tenure.coordinator.api.acts import audited
from tenure.coordinator.audit import Audit, noted
from tenure.coordinator.census import slots_held
from tenure.coordinator.hint import Hints
from tenure.model.errors import NotFound
from tenure.model.limits import Limit, covering, validate_limit
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Statement
from tenure.v1 import limit_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.limit_service_pb2_grpc import LimitServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class LimitService(LimitServiceServicer):
    """The service over Postgres (what was set) and etcd (the slots that are held)."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace, hints: Hints, audit: Audit) -> None:
        self._audit = audit
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._hints = hints

    @audited
    async def PutLimit(self, request: pb.PutLimitRequest, context: Context) -> pb.PutLimitResponse:
        """Define a limit, or change it."""
        limit = validate_limit(_from_pb(request.limit))
        asked = {
            "concurrent": limit.concurrent,
            "rate": limit.rate,
            "interval_s": limit.interval_s,
            "burst": limit.burst,
        }
        _, (row,) = await self._database.transaction(
            [noted("audit_limit", after=asked), Statement("put_limit", {"name": limit.name, **asked})]
        )
        self._hints.everywhere()
        return pb.PutLimitResponse(limit=_to_pb(limit_from_row(row)))

    async def GetLimit(self, request: pb.GetLimitRequest, context: Context) -> pb.GetLimitResponse:
        """Read one definition, and the names under it that are in use."""
        definitions = await self._definitions()
        limit = definitions.get(request.name)
        if limit is None:
            raise NotFound(f"limit {request.name[:200]!r} is not defined", hint="tenure limits list")
        uses = [use for use in await self._uses() if covering(use.name, definitions) == limit]
        return pb.GetLimitResponse(limit=_to_pb(limit), uses=uses)

    async def ListLimits(self, request: pb.ListLimitsRequest, context: Context) -> pb.ListLimitsResponse:
        """Read all definitions, and every name of which slots are held."""
        definitions = await self._definitions()
        return pb.ListLimitsResponse(limits=map(_to_pb, definitions.values()), uses=await self._uses())

    @audited
    async def DeleteLimit(self, request: pb.DeleteLimitRequest, context: Context) -> pb.DeleteLimitResponse:
        """Forget a definition."""
        where = {"name": request.name.replace("\x00", "")}
        _, rows = await self._database.transaction([noted("audit_limit", after=None), Statement("delete_limit", where)])
        self._hints.everywhere()
        return pb.DeleteLimitResponse(deleted=bool(rows))

    async def _definitions(self) -> dict[str, Limit]:
        return {row.name: limit_from_row(row) for row in await self._database.fetch("limits")}

    async def _uses(self) -> list[pb.LimitUse]:
        held = await slots_held(self._etcd, self._keys)
        return [pb.LimitUse(name=name, held=count) for name, count in sorted(held.items())]


def _from_pb(message: pb.Limit) -> Limit:
    return Limit(
        message.name,
        concurrent=message.concurrent if message.HasField("concurrent") else None,
        rate=message.rate if message.HasField("rate") else None,
        interval_s=wire.seconds(message.interval) if message.HasField("interval") else 1.0,
        burst=message.burst if message.HasField("burst") else None,
    )


def _to_pb(limit: Limit) -> pb.Limit:
    return pb.Limit(
        name=limit.name,
        concurrent=limit.concurrent,
        rate=limit.rate,
        interval=wire.duration(limit.interval_s) if limit.rate is not None else None,
        burst=limit.burst,
    )
