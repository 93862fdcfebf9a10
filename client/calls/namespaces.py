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
        self,
        name: str,
        *,
        weight: float | None = None,
        ageing_s: float | None = None,
        backlog: int | None = None,
        submit_rate: float | None = None,
        submit_burst: int | None = None,
    ) -> Namespace:
        """Set what is given of a namespace's settings, and return them. 0 turns ageing off, lifts a bound.

        ``submit_rate`` is in new jobs per second, ``submit_burst`` how many may come at once after a quiet time.

        Raises:
            InvalidInput: with every bad field.
        """
        ageing = duration(ageing_s, "namespace.ageing_s")
        weight = number(weight, "namespace.weight")
        backlog = whole(backlog, "namespace.backlog", bits=64)
        submit_rate = number(submit_rate, "namespace.submit_rate")
        submit_burst = whole(submit_burst, "namespace.submit_burst", bits=64)
        try:
            asked = pb.Namespace(
                name=name,
                weight=weight,
                ageing=ageing,
                backlog=backlog,
                submit_rate=submit_rate,
                submit_burst=submit_burst,
            )
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
        submit_rate=value_of(namespace, "submit_rate"),
        submit_burst=value_of(namespace, "submit_burst"),
    )
