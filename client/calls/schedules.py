"""The calls of ScheduleService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from tenure.client.calls.submit import new_key
from tenure.client.fields import timestamp
from tenure.client.link import Link
from tenure.client.schedules import (
    NewSchedule,
    Schedule,
    Tick,
    TickJob,
    backfilled_from_wire,
    schedule_from_wire,
    schedule_to_wire,
    tick_from_wire,
)
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.v1 import schedule_service_pb2 as pb


class ScheduleCalls:
    """Keep schedules."""

    _link: Link

    async def create_schedule(self, schedule: NewSchedule) -> Schedule:
        """Create a schedule and return it; it ticks from now on. The same once more answers with what is there.

        Raises:
            InvalidInput: with every bad field (``schedule.cron``). Conflict: the name is another schedule's.
            BoundExceeded: the namespace has as many as it may.
        """
        answer: pb.CreateScheduleResponse = await self._link.unary(
            lambda to: to.schedules.CreateSchedule,
            pb.CreateScheduleRequest(schedule=schedule_to_wire(schedule)),
        )
        return schedule_from_wire(answer.schedule)

    async def get_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Return a schedule by its name or id.

        Raises:
            NotFound: there is none.
        """
        answer: pb.GetScheduleResponse = await self._link.unary(
            lambda to: to.schedules.GetSchedule,
            pb.GetScheduleRequest(namespace=namespace, schedule=schedule),
        )
        return schedule_from_wire(answer.schedule)

    async def schedules(self, *, namespace: str | None = None, page_size: int = 200) -> AsyncIterator[Schedule]:
        """Yield the schedules of a namespace, or of all, by namespace and name; pages hold at most 1,000."""
        request = pb.ListSchedulesRequest(namespace=namespace or "", page_size=page_size)
        answer: pb.ListSchedulesResponse
        async for answer in self._link.pages(lambda to: to.schedules.ListSchedules, request):
            for schedule in answer.schedules:
                yield schedule_from_wire(schedule)

    async def update_schedule(self, schedule: NewSchedule, *, revision: int = 0) -> Schedule:
        """Replace what a schedule is, but for its name, its namespace and whether it is paused; return it.

        ``revision`` is that of the schedule from which the change was made; 0 replaces whatever is there.

        Raises:
            InvalidInput: as for ``create_schedule``. WrongState: it is at another revision. NotFound: there is none.
        """
        answer: pb.UpdateScheduleResponse = await self._link.unary(
            lambda to: to.schedules.UpdateSchedule,
            pb.UpdateScheduleRequest(schedule=schedule_to_wire(schedule), revision=revision),
        )
        return schedule_from_wire(answer.schedule)

    async def delete_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Forget a schedule; the jobs that it made go on.

        Raises:
            NotFound: there is none.
        """
        await self._link.unary(
            lambda to: to.schedules.DeleteSchedule,
            pb.DeleteScheduleRequest(namespace=namespace, schedule=schedule),
        )

    async def pause_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick no more until it is resumed, and return it; jobs that it made go on.

        Raises:
            NotFound: there is none.
        """
        answer: pb.PauseScheduleResponse = await self._link.unary(
            lambda to: to.schedules.PauseSchedule,
            pb.PauseScheduleRequest(namespace=namespace, schedule=schedule),
        )
        return schedule_from_wire(answer.schedule)

    async def resume_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick again, and return it. What it did not tick meanwhile is not made up for.

        Raises:
            NotFound: there is none.
        """
        answer: pb.ResumeScheduleResponse = await self._link.unary(
            lambda to: to.schedules.ResumeSchedule,
            pb.ResumeScheduleRequest(namespace=namespace, schedule=schedule),
        )
        return schedule_from_wire(answer.schedule)

    async def trigger_schedule(
        self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE, idempotency_key: str | None = None
    ) -> TickJob:
        """Make a job of a schedule now, whatever its rule, its overlap or a pause say, and return which.

        Repeated over failures without doubling the job; with an ``idempotency_key`` the same call may be made again.

        Raises:
            NotFound: there is no such schedule. Conflict: an unfinished job has the ``unique_key`` of its template.
        """
        answer: pb.TriggerScheduleResponse = await self._link.unary(
            lambda to: to.schedules.TriggerSchedule,
            pb.TriggerScheduleRequest(
                namespace=namespace, schedule=schedule, idempotency_key=idempotency_key or new_key()
            ),
        )
        return TickJob(None, answer.job_id, answer.created or idempotency_key is None)

    async def backfill_schedule(
        self, schedule: str, start: datetime, until: datetime, *, namespace: str = DEFAULT_NAMESPACE
    ) -> list[TickJob]:
        """Make the jobs of the past ticks in ``[start, until)`` that have none, and return the job of each.

        Raises:
            InvalidInput: the range holds more than 1,000 ticks, or ends after now. NotFound: there is no such schedule.
        """
        request = pb.BackfillScheduleRequest(namespace=namespace, schedule=schedule, until=timestamp(until, "until"))
        if (first := timestamp(start, "from")) is not None:
            getattr(request, "from").CopyFrom(first)
        answer: pb.BackfillScheduleResponse = await self._link.unary(lambda to: to.schedules.BackfillSchedule, request)
        return [backfilled_from_wire(job) for job in answer.jobs]

    async def preview_schedule(
        self,
        schedule: str | NewSchedule,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        count: int = 10,
        after: datetime | None = None,
    ) -> list[Tick]:
        """Return the next ticks of a schedule: a stored one by name or id, or one that is not stored.

        ``count`` of them, at most 1,000, later than ``after``; None: than now.

        Raises:
            InvalidInput: with every bad field (``spec.cron``). NotFound: there is no such schedule.
        """
        answer: pb.PreviewScheduleResponse = await self._link.unary(
            lambda to: to.schedules.PreviewSchedule,
            pb.PreviewScheduleRequest(
                namespace=namespace,
                schedule=schedule if isinstance(schedule, str) else "",
                spec=None if isinstance(schedule, str) else schedule_to_wire(schedule, path="spec."),
                count=count,
                after=timestamp(after, "after"),
            ),
        )
        return [tick_from_wire(tick) for tick in answer.ticks]
