"""NamespaceService: what is set per namespace."""

from __future__ import annotations

from typing import Any

import grpc

from tenure.coordinator.access import sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.audit import Audit, noted
from tenure.coordinator.hint import Hints
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.routes import name_error
from tenure.model.submit_rate import MAX_SUBMIT_BURST, MAX_SUBMIT_RATE, MIN_SUBMIT_RATE
from tenure.store.postgres.database import Database, Row, Statement
from tenure.v1 import namespace_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.namespace_service_pb2_grpc import NamespaceServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

MIN_WEIGHT = 0.001
MAX_WEIGHT = 1_000.0
MIN_AGEING_S = 1.0


class NamespaceService(NamespaceServiceServicer):
    """The service over Postgres. A namespace for which nothing was set has the defaults."""

    def __init__(self, database: Database, hints: Hints, audit: Audit) -> None:
        self._audit = audit
        self._database = database
        self._hints = hints

    async def ListNamespaces(self, request: pb.ListNamespacesRequest, context: Context) -> pb.ListNamespacesResponse:
        """Read the namespaces for which anything was set."""
        rows = await self._database.fetch("namespaces")
        return pb.ListNamespacesResponse(namespaces=[_to_pb(row) for row in rows if sees(row.name)])

    async def GetNamespace(self, request: pb.GetNamespaceRequest, context: Context) -> pb.GetNamespaceResponse:
        """Read one namespace's settings."""
        _check(request.name, "name")
        found = [row for row in await self._database.fetch("namespaces") if row.name == request.name]
        namespace = _to_pb(found[0]) if found else pb.Namespace(name=request.name, weight=1.0)
        return pb.GetNamespaceResponse(namespace=namespace)

    @audited
    async def UpdateNamespace(self, request: pb.UpdateNamespaceRequest, context: Context) -> pb.UpdateNamespaceResponse:
        """Set what is given."""
        asked = request.namespace
        _check(asked.name, "namespace.name")
        weight = asked.weight if asked.HasField("weight") else None
        if weight is not None and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise InvalidInput([FieldViolation("namespace.weight", f"must be {MIN_WEIGHT:g} to {MAX_WEIGHT:g}")])
        ageing_s = wire.seconds(asked.ageing) if asked.HasField("ageing") else None
        if ageing_s and not MIN_AGEING_S <= ageing_s <= DEFAULT_BOUNDS.delay_s:
            allowed = f"must be 0 (off), or {MIN_AGEING_S:g} to {DEFAULT_BOUNDS.delay_s:.0f} s"
            raise InvalidInput([FieldViolation("namespace.ageing", allowed)])
        backlog = asked.backlog if asked.HasField("backlog") else None
        if backlog is not None and backlog < 0:
            raise InvalidInput([FieldViolation("namespace.backlog", "must be 0 (any number) or above")])
        submit_rate = asked.submit_rate if asked.HasField("submit_rate") else None
        if submit_rate is not None and submit_rate != 0 and not MIN_SUBMIT_RATE <= submit_rate <= MAX_SUBMIT_RATE:
            allowed = f"must be 0 (any number), or {MIN_SUBMIT_RATE:g} to {MAX_SUBMIT_RATE:,.0f} a second"
            raise InvalidInput([FieldViolation("namespace.submit_rate", allowed)])
        submit_burst = asked.submit_burst if asked.HasField("submit_burst") else None
        if submit_burst is not None and not 0 <= submit_burst <= MAX_SUBMIT_BURST:
            allowed = f"must be 0 (what a second brings) to {MAX_SUBMIT_BURST:,}"
            raise InvalidInput([FieldViolation("namespace.submit_burst", allowed)])
        params = {
            "weight": weight,
            "ageing_s": ageing_s,
            "backlog": backlog,
            "submit_rate": submit_rate,
            "submit_burst": submit_burst,
        }
        given = {name: value for name, value in params.items() if value is not None}
        _, (row,) = await self._database.transaction(
            [noted("audit_namespace", after=given), Statement("put_namespace", {"name": asked.name, **params})]
        )
        self._hints.everywhere()
        return pb.UpdateNamespaceResponse(namespace=_to_pb(row))


def _check(name: str, field: str) -> None:
    if problem := name_error(name):
        raise InvalidInput([FieldViolation(field, problem)])


def _to_pb(row: Row) -> pb.Namespace:
    return pb.Namespace(
        name=row.name,
        weight=round(row.weight, 6),
        ageing=wire.duration(row.ageing_s),
        backlog=row.backlog,
        unfinished=row.unfinished,
        submit_rate=row.submit_rate,
        submit_burst=row.submit_burst,
    )
