"""The calls of KindService."""

from __future__ import annotations

from tenure.client.kinds import KindSettings, kind_from_wire, kind_to_wire
from tenure.client.link import Link
from tenure.v1 import kind_service_pb2 as pb


class KindCalls:
    """Set what jobs of a kind get."""

    _link: Link

    async def put_kind(self, settings: KindSettings) -> KindSettings:
        """Set all of a kind's settings in a namespace, or in all: what its jobs get where they ask for nothing.

        They hold for what is submitted from a second later on.

        Raises:
            InvalidInput: with every bad field.
        """
        answer: pb.PutKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.PutKindSettings,
            pb.PutKindSettingsRequest(settings=kind_to_wire(settings)),
        )
        return kind_from_wire(answer.settings)

    async def kind(self, kind: str, *, namespace: str | None = None) -> KindSettings:
        """Return the settings of a kind as they were put for a namespace; None: for all.

        Raises:
            NotFound: nothing is set.
        """
        answer: pb.GetKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.GetKindSettings,
            pb.GetKindSettingsRequest(kind=kind, namespace=namespace or ""),
        )
        return kind_from_wire(answer.settings)

    async def kinds(self) -> list[KindSettings]:
        """Return the settings of all kinds for which anything was set."""
        answer: pb.ListKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.ListKindSettings, pb.ListKindSettingsRequest()
        )
        return [kind_from_wire(settings) for settings in answer.settings]

    async def delete_kind(self, kind: str, *, namespace: str | None = None) -> bool:
        """Forget the settings of a kind for a namespace, or those for all; False: nothing was set."""
        answer: pb.DeleteKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.DeleteKindSettings,
            pb.DeleteKindSettingsRequest(kind=kind, namespace=namespace or ""),
        )
        return answer.deleted
