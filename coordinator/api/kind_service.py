"""KindService: what jobs of a kind get where their submitter asked for nothing."""

from __future__ import annotations

from typing import Any

import grpc

from tenure.coordinator.access import sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.audit import Audit, noted
from tenure.coordinator.kinds import Kinds
from tenure.model.errors import NotFound
from tenure.model.kinds import KindSettings
from tenure.store.postgres.database import Database, Row, Statement
from tenure.v1 import kind_service_pb2 as pb
from tenure.v1.kind_service_pb2_grpc import KindServiceServicer
from tenure.v1.kind_wire import kind_from_pb, kind_to_pb

Context = grpc.aio.ServicerContext[Any, Any]


class KindService(KindServiceServicer):
    """The service over Postgres."""

    def __init__(self, database: Database, kinds: Kinds, audit: Audit) -> None:
        self._audit = audit
        self._database = database
        self._kinds = kinds

    @audited
    async def PutKindSettings(self, request: pb.PutKindSettingsRequest, context: Context) -> pb.PutKindSettingsResponse:
        """Set all of a kind's settings."""
        asked = request.settings
        settings = kind_from_pb(asked)
        params = {"namespace": asked.namespace, "name": asked.kind, "settings": settings.stored()}
        _, (row,) = await self._database.transaction(
            [noted("audit_kind", after=settings.stored()), Statement("put_kind", params)]
        )
        await self._kinds.refresh()
        return pb.PutKindSettingsResponse(settings=_to_pb(row))

    async def GetKindSettings(self, request: pb.GetKindSettingsRequest, context: Context) -> pb.GetKindSettingsResponse:
        """Read the settings of one kind."""
        rows = await self._database.fetch("kinds")
        found = [row for row in rows if (row.namespace, row.name) == (request.namespace, request.kind)]
        if not found:
            where = f"in namespace {request.namespace[:64]!r}" if request.namespace else "for all namespaces"
            raise NotFound(f"nothing is set {where} for kind {request.kind[:200]!r}", hint="tenure kinds list")
        return pb.GetKindSettingsResponse(settings=_to_pb(found[0]))

    async def ListKindSettings(
        self, request: pb.ListKindSettingsRequest, context: Context
    ) -> pb.ListKindSettingsResponse:
        """Read all settings."""
        rows = await self._database.fetch("kinds")
        seen = [row for row in rows if not row.namespace or sees(row.namespace)]
        return pb.ListKindSettingsResponse(settings=map(_to_pb, seen))

    @audited
    async def DeleteKindSettings(
        self, request: pb.DeleteKindSettingsRequest, context: Context
    ) -> pb.DeleteKindSettingsResponse:
        """Forget the settings of one kind."""
        where = {"namespace": request.namespace.replace("\x00", ""), "name": request.kind.replace("\x00", "")}
        _, rows = await self._database.transaction([noted("audit_kind", after=None), Statement("delete_kind", where)])
        await self._kinds.refresh()
        return pb.DeleteKindSettingsResponse(deleted=bool(rows))


def _to_pb(row: Row) -> pb.KindSettings:
    return kind_to_pb(row.namespace, row.name, KindSettings.model_validate_json(row.settings))
