"""The calls of NamespaceService."""

from __future__ import annotations

from tenure.client.fields import duration, number, seconds_of, value_of, whole
from tenure.client.link import Link
from tenure.client.records import Namespace
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import namespace_service_pb2 as pb


class NamespaceCalls:
    """Set what namespaces get."""

    _link: Link

    async def namespaces(self) -> list[Namespace]:
        """Return the namespaces for which anything was set."""
        answer: pb.ListNamespacesResponse = await self._link.unary(
            lambda to: to.namespaces.ListNamespaces, pb.ListNamespacesRequest()
        )
        return [_namespace(one) for one in answer.namespaces]

    async def update_namespace(
        self, name: str, *, weight: float | None = None, ageing_s: float | None = None, backlog: int | None = None
    ) -> Namespace:
        """Set what is given of a namespace's settings, and return them. 0 turns ageing off, lifts the backlog's bound.

        Raises:
            InvalidInput: with every bad field.
        """
        ageing = duration(ageing_s, "namespace.ageing_s")
        weight = number(weight, "namespace.weight")
        backlog = whole(backlog, "namespace.backlog", bits=64)
        try:
            asked = pb.Namespace(name=name, weight=weight, ageing=ageing, backlog=backlog)
        except (TypeError, ValueError) as exc:
            raise InvalidInput([FieldViolation("namespace", str(exc))]) from exc
        answer: pb.UpdateNamespaceResponse = await self._link.unary(
            lambda to: to.namespaces.UpdateNamespace,
            pb.UpdateNamespaceRequest(namespace=asked),
        )
        return _namespace(answer.namespace)


def _namespace(namespace: pb.Namespace) -> Namespace:
    return Namespace(
        name=namespace.name,
        weight=namespace.weight,
        ageing_s=seconds_of(namespace, "ageing"),
        backlog=value_of(namespace, "backlog"),
        unfinished=value_of(namespace, "unfinished"),
    )
