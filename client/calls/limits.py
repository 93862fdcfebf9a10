"""The calls of LimitService."""

from __future__ import annotations

from dataclasses import replace

from tenure.client import convert
from tenure.client.link import Link
from tenure.client.records import Limit
from tenure.model.limits import covering
from tenure.v1 import limit_service_pb2 as pb


class LimitCalls:
    """Define limits and see what they hold."""

    _link: Link

    async def put_limit(
        self,
        name: str,
        *,
        concurrent: int | None = None,
        rate: int | None = None,
        interval_s: float | None = None,
        burst: int | None = None,
    ) -> Limit:
        """Define a limit, or change it; it acts at once on what starts from then on.

        ``name`` is what jobs carry, or ``prefix*`` for a family in which each name is a limit of its own.
        ``concurrent`` bounds jobs at a time, ``rate`` starts per ``interval_s`` (default 1 s), ``burst`` of them at
        once.

        Raises:
            InvalidInput: with every bad field.
        """
        limit = convert.limit_to_wire(name, concurrent, rate, interval_s, burst)
        answer: pb.PutLimitResponse = await self._link.unary(
            lambda to: to.limits.PutLimit, pb.PutLimitRequest(limit=limit)
        )
        return convert.limit_from_wire(answer.limit, {})

    async def limit(self, name: str) -> Limit:
        """Return one limit, with the names under it of which slots are held.

        Raises:
            NotFound: it is not defined.
        """
        answer: pb.GetLimitResponse = await self._link.unary(
            lambda to: to.limits.GetLimit, pb.GetLimitRequest(name=name)
        )
        return convert.limit_from_wire(answer.limit, {use.name: use.held for use in answer.uses})

    async def limits(self) -> list[Limit]:
        """Return all limits that are defined, by name, each with what is held under its own name or family."""
        answer: pb.ListLimitsResponse = await self._link.unary(lambda to: to.limits.ListLimits, pb.ListLimitsRequest())
        names = {limit.name: convert.limit_from_wire(limit, {}) for limit in answer.limits}
        held: dict[str, dict[str, int]] = {name: {} for name in names}
        for use in answer.uses:
            limit = covering(use.name, names)
            if limit is not None:
                held[limit.name][use.name] = use.held
        return [replace(limit, held=held[limit.name]) for limit in names.values()]

    async def delete_limit(self, name: str) -> bool:
        """Forget a limit: jobs that carry its name are limited no more. False: it was not defined."""
        answer: pb.DeleteLimitResponse = await self._link.unary(
            lambda to: to.limits.DeleteLimit, pb.DeleteLimitRequest(name=name)
        )
        return answer.deleted
