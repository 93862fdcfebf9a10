"""The calls of LimitService."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tenure.client.fields import duration, value_of, whole
from tenure.client.link import Link
from tenure.client.records import Limit
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.limits import covering
from tenure.v1 import limit_service_pb2 as pb
from tenure.v1 import wire


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
        limit = limit_to_wire(name, concurrent, rate, interval_s, burst)
        answer: pb.PutLimitResponse = await self._link.unary(
            lambda to: to.limits.PutLimit, pb.PutLimitRequest(limit=limit)
        )
        return _limit(answer.limit, {})

    async def limit(self, name: str) -> Limit:
        """Return one limit, with the names under it of which slots are held.

        Raises:
            NotFound: it is not defined.
        """
        answer: pb.GetLimitResponse = await self._link.unary(
            lambda to: to.limits.GetLimit, pb.GetLimitRequest(name=name)
        )
        return _limit(answer.limit, {use.name: use.held for use in answer.uses})

    async def limits(self) -> list[Limit]:
        """Return all limits that are defined, by name, each with what is held under its own name or family."""
        answer: pb.ListLimitsResponse = await self._link.unary(lambda to: to.limits.ListLimits, pb.ListLimitsRequest())
        names = {limit.name: _limit(limit, {}) for limit in answer.limits}
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


def limit_to_wire(
    name: str, concurrent: int | None, rate: int | None, interval_s: float | None, burst: int | None
) -> pb.Limit:
    """Write a limit.

    Raises:
        InvalidInput: a value has the wrong type, or is no number that the wire can hold.
    """
    try:
        return pb.Limit(
            name=name,
            concurrent=whole(concurrent, "limit.concurrent"),
            rate=whole(rate, "limit.rate"),
            interval=duration(interval_s, "limit.interval"),
            burst=whole(burst, "limit.burst"),
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation("limit", str(exc))]) from exc


def _limit(limit: pb.Limit, held: Mapping[str, int]) -> Limit:
    return Limit(
        name=limit.name,
        concurrent=value_of(limit, "concurrent"),
        rate=value_of(limit, "rate"),
        interval_s=wire.seconds(limit.interval) if limit.HasField("interval") else 1.0,
        burst=value_of(limit, "burst"),
        held=held,
    )
