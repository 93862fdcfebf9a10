"""PoolService: pools and their removal, and pauses of pools, kinds and namespaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from tenure.coordinator import census
from tenure.coordinator.access import sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.api.filters import mass_filters, span_from_token, token_of_span
from tenure.coordinator.audit import Audit, noted
from tenure.coordinator.cancel import CANCELABLE, Canceler
from tenure.coordinator.hint import Hints
from tenure.coordinator.lanes import Lanes
from tenure.model.errors import FieldViolation, InvalidInput, WrongState
from tenure.model.routes import covers, kind_error, name_error, route_error
from tenure.model.rules import Subject
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row, Statement
from tenure.v1 import pool_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.job_service_pb2 import JobFilter
from tenure.v1.pool_service_pb2_grpc import PoolServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

COUNTED_READY = 10_000
REASON_CHARS = 512
_CHECKS: dict[str, Callable[[str], str | None]] = {
    Subject.POOL: route_error,
    Subject.KIND: kind_error,
    Subject.NAMESPACE: name_error,
}


class PoolService(PoolServiceServicer):
    """The service over Postgres; workers are read from etcd."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        lanes: Lanes,
        hints: Hints,
        canceler: Canceler,
        audit: Audit,
    ) -> None:
        self._audit = audit
        self._canceler = canceler
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._lanes = lanes
        self._hints = hints

    async def ListPools(self, request: pb.ListPoolsRequest, context: Context) -> pb.ListPoolsResponse:
        """Read every pool with what waits and executes below it."""
        workers = await census.workers(self._etcd, self._keys)
        paused = [row.name for row in await self._database.fetch("pauses") if row.subject == Subject.POOL]
        return pb.ListPoolsResponse(
            pools=[
                pb.Pool(
                    path=row.path,
                    workers=sum(any(covers(pool, row.path) for pool in value.pools) for value in workers.values()),
                    ready=row.ready,
                    executing=row.executing,
                    paused=any(covers(pool, row.path) for pool in paused),
                )
                for row in await self._database.fetch("pools", {"most": COUNTED_READY})
            ]
        )

    @audited
    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        """Let nothing of this start."""
        subject, name = _subject(request.subject)
        _refuse_bad_reason(request.reason)
        what = {"subject": subject, "name": name}
        await self._database.transaction(
            [
                noted("audit_pause", after={"reason": request.reason}, **what),
                Statement("pause", {**what, "reason": request.reason}),
            ]
        )
        if subject is Subject.POOL:  # its jobs get lanes of their own, so that they cost the others nothing
            await self._lanes.refit(await self._lanes.register_pools([name]))
        self._hints.everywhere()
        pauses = await self._database.fetch("pauses")
        row = next((row for row in pauses if (row.subject, row.name) == (subject, name)), None)
        if row is None:
            raise WrongState(f"the {subject} {name} was resumed meanwhile", hint="pause it again, if it shall be")
        return pb.PauseResponse(executing=row.executing)

    @audited
    async def Resume(self, request: pb.ResumeRequest, context: Context) -> pb.ResumeResponse:
        """Let it start again."""
        subject, name = _subject(request.subject)
        what = {"subject": subject, "name": name}
        _, rows = await self._database.transaction(
            [noted("audit_pause", after=None, **what), Statement("resume", what)]
        )
        self._hints.everywhere()
        return pb.ResumeResponse(resumed=bool(rows))

    async def ListPauses(self, request: pb.ListPausesRequest, context: Context) -> pb.ListPausesResponse:
        """Read what is paused."""
        rows = await self._database.fetch("pauses")
        seen = [row for row in rows if row.subject != Subject.NAMESPACE or sees(row.name)]
        return pb.ListPausesResponse(pauses=map(_pause_to_pb, seen))

    @audited
    async def RemovePool(self, request: pb.RemovePoolRequest, context: Context) -> pb.RemovePoolResponse:
        """Cancel every job below a route prefix, for some seconds; once none is left, forget its pools."""
        if problem := route_error(request.pool):
            raise InvalidInput([FieldViolation("pool", problem)])
        _refuse_bad_reason(request.reason)
        workers = await census.workers(self._etcd, self._keys)
        serving = sorted(id for id, value in workers.items() if any(covers(request.pool, pool) for pool in value.pools))
        if serving and not request.preview:
            raise WrongState(
                f"pool {request.pool!r} is served by {len(serving)} workers, {serving[0]} among them",
                hint="stop them first, or let them serve other pools",
            )
        done = await self._canceler.cancel_matching(
            mass_filters(JobFilter(route_prefix=request.pool), all_=False, allowed=CANCELABLE, default=CANCELABLE),
            span_from_token(request.page_token),
            request.reason or f"pool {request.pool} was removed",
            preview=request.preview,
        )
        answer = pb.RemovePoolResponse(
            canceled=done.canceled,
            asked=done.asked,
            dependants=done.dependants,
            next_page_token=token_of_span(done.rest),
        )
        if done.rest is None and not request.preview:
            (row,) = await self._database.fetch("remove_pool", {"pool": request.pool})
            answer.left, answer.removed = row.left, row.left == 0
            await self._lanes.refresh()
        return answer


def _refuse_bad_reason(reason: str) -> None:
    if len(reason) > REASON_CHARS or "\x00" in reason:
        raise InvalidInput([FieldViolation("reason", f"must be at most {REASON_CHARS} characters, without NUL")])


def _subject(message: pb.PauseSubject) -> tuple[Subject, str]:
    chosen = message.WhichOneof("subject")
    if chosen is None:
        raise InvalidInput([FieldViolation("subject", "give a pool, a kind or a namespace")])
    name: str = getattr(message, chosen)
    if problem := _CHECKS[chosen](name):
        raise InvalidInput([FieldViolation(f"subject.{chosen}", problem)])
    return Subject(chosen), name


def _pause_to_pb(row: Row) -> pb.Pause:
    return pb.Pause(
        subject=pb.PauseSubject(**{row.subject: row.name}),
        reason=row.reason,
        paused_at=wire.timestamp(row.paused_at),
        executing=row.executing,
    )
