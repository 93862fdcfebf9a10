"""Step 6, finish: an attempt's end is recorded under its fence. Postgres first, etcd second.

Zero rows means that ownership is lost and the result is dropped, unless the same end was recorded before: a report
may be repeated until it is answered. In a batch one bad member fails alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import structlog

from tenure.coordinator import counted
from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.hint import Hints
from tenure.coordinator.metrics import ENDED, FINISH_S, STALE_WRITES
from tenure.coordinator.park import Park, Parking, problem_of, strangers, write_parkings
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import elapsed_s
from tenure.model.jobs import RetrySpec, json_error
from tenure.model.retry import Next, after_outcome, within_deadline
from tenure.model.states import CLAIMABLE, TERMINAL, JobState, Outcome
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.locked import write_rows

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What became of one report."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    LOST = "lost"
    INVALID = "invalid"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class AttemptError:
    """An error as a handler reported it."""

    type: str
    message: str
    traceback: str = ""

    def to_json(self) -> str:
        """Return it as it is stored: bounded, and without the NUL that Postgres refuses."""
        limit = DEFAULT_BOUNDS.error_chars
        fields = {"type": self.type[:255], "message": self.message[:limit], "traceback": self.traceback[-limit:]}
        return json.dumps({name: text.replace("\x00", "\ufffd") for name, text in fields.items()})


class SavedResult(NamedTuple):
    """A result that is too large for its job, and was uploaded."""

    size_bytes: int
    sha256: bytes


class LostResult(NamedTuple):
    """A result that is too large for its job, and could not be uploaded."""

    size_bytes: int
    reason: str


class Report(NamedTuple):
    """How a worker says that an attempt ended."""

    job_id: str
    fence: int
    outcome: Outcome
    result: str | None = None
    error: AttemptError | None = None
    retryable: bool = True
    delay_s: float = 0.0
    error_bases: tuple[str, ...] = ()
    spends_budget: bool = False
    park: Park | None = None
    large: SavedResult | LostResult | None = None
    """What became of a result that is not kept with its job."""


class Finished(NamedTuple):
    """The answer to one report."""

    verdict: Verdict
    state: JobState | None = None
    message: str = ""
    claim_deleted: bool = False


class Ending(NamedTuple):
    """A decided end of an attempt, ready to be written under its fence."""

    job_id: str
    fence: int
    outcome: Outcome
    then: Next
    result: str | None = None
    error: str | None = None
    is_error: bool = False
    is_crash: bool = False
    park: Park | None = None
    lost: LostResult | None = None


_STATES = {state.value: state for state in JobState}
_COMPLETED = Next(JobState.COMPLETED)
STEPS_AT_ONCE = 10
"""How deep the ends of dependants are followed while reports, or the reaper, wait for the answer."""
_REPORTABLE = frozenset(
    {
        Outcome.COMPLETED,
        Outcome.FAILED,
        Outcome.CANCELED,
        Outcome.TIMED_OUT,
        Outcome.RELEASED,
        Outcome.RESCHEDULED,
        Outcome.PARKED,
    }
)


class Finisher:
    """Records how attempts ended: for workers, and for the reaper in their stead."""

    def __init__(self, database: Database, announcer: Announcer, dependants: Dependants, hints: Hints) -> None:
        self._database = database
        self._announcer = announcer
        self._dependants = dependants
        self._hints = hints

    async def finish(self, reports: Sequence[Report]) -> list[Finished]:
        """Record a batch of reports; answers are in their order.

        Raises:
            Unavailable: the outcome is unknown; report again, the answer will then be ``repeated`` or ``recorded``.
            So it will be for those that are answered with ``locked``.
        """
        began = elapsed_s()
        answers = await self._refused(reports)
        valid = [report for report, answer in zip(reports, answers, strict=True) if answer is None]
        written = {(row.id, row.fence): row for row in await self.write(await self._decide(valid))}
        missing = [report for report in valid if (report.job_id, report.fence) not in written]
        earlier = await self._recorded(missing)
        locked = await self._locked([report for report in missing if (report.job_id, report.fence) not in earlier])
        deleted = await self.tell((*written.values(), *earlier.values()))
        FINISH_S.observe(elapsed_s() - began)
        return [
            answer or _answer(report, written, earlier, locked, deleted)
            for report, answer in zip(reports, answers, strict=True)
        ]

    async def write(self, endings: Sequence[Ending], *, guard: Statement | None = None) -> list[Row]:
        """Write decided ends under their fences; return the rows that were (id, fence, state, claim, attempt).

        One that somebody has locked is not, and fails no other.
        ``guard`` is a statement that fails the transaction unless the writer may write (the leader's term).
        """
        if not endings:
            return []
        ordered = sorted(endings, key=lambda ending: ending.job_id)
        final = [ending for ending in ordered if ending.then.state in TERMINAL]
        again = [ending for ending in ordered if ending.then.state not in TERMINAL and ending.park is None]
        parked = [ending for ending in ordered if ending.then.state not in TERMINAL and ending.park is not None]
        rows: list[Row] = []
        if final:
            rows.extend(await self._write_unlocked(final, self._write_final, guard))
        if parked:
            rows.extend(await self._write_unlocked(parked, self._write_parked, guard))
        if again:
            rows.extend(await self._write_unlocked(again, self._write_returned, guard))
        _count(endings, rows)
        return rows

    async def _write_unlocked(
        self,
        endings: Sequence[Ending],
        write: Callable[[Sequence[Ending], Statement | None], Awaitable[list[Row]]],
        guard: Statement | None,
    ) -> list[Row]:
        async def write_some(ids: Set[str]) -> list[Row]:
            return await write([ending for ending in endings if ending.job_id in ids], guard)

        rows, _ = await write_rows(self._database, [ending.job_id for ending in endings], write_some)
        return rows

    async def tell(self, rows: Iterable[Row], *, keep_slots: bool = False) -> set[str]:
        """Announce attempts that ended, and hint at those jobs that are ready again; return whose claim was deleted.

        ``keep_slots``: their workers have not said that they stopped. The slots stay on the lease until they let it go,
        or it expires: whoever took them now would run beside a handler that still runs.
        """
        ended = list(rows)
        deleted = await self._announcer.announce(
            [
                Ended(
                    row.id,
                    _STATES[row.state],
                    row.attempt,
                    row.claim_revision,
                    row.lease,
                    () if keep_slots else tuple(row.slots or ()),
                )
                for row in ended
            ]
        )
        # After the claims are gone: before, the dispatcher would pass these jobs over. One that parked may have been
        # made ready by its children meanwhile.
        self._hints.ready({row.lane for row in ended if row.state in CLAIMABLE or row.state == JobState.WAITING})
        return deleted

    async def _refused(self, reports: Sequence[Report]) -> list[Finished | None]:
        """Answer the reports that are malformed; None for the others."""
        answers = [_invalid(report) for report in reports]
        if claimed := [report for report in reports if isinstance(report.large, SavedResult)]:
            answers = await self._unsaved(claimed, reports, answers)
        parks: dict[str, Park] = {}
        for report, answer in zip(reports, answers, strict=True):
            if answer is None and report.park is not None:
                # Two of one job can only be under two fences: whichever holds, nothing goes unlooked at.
                before = parks[report.job_id].children if report.job_id in parks else ()
                parks[report.job_id] = replace(report.park, children=(*before, *report.park.children))
        refused = await strangers(self._database, parks)
        return [
            Finished(Verdict.INVALID, message=refused[report.job_id])
            if answer is None and report.park is not None and report.job_id in refused
            else answer
            for report, answer in zip(reports, answers, strict=True)
        ]

    async def _unsaved(
        self, claimed: Sequence[Report], reports: Sequence[Report], answers: Sequence[Finished | None]
    ) -> list[Finished | None]:
        """Answer, besides those that are answered, the reports of results that were not uploaded."""
        rows = await self._database.fetch(
            "saved_results", {"ids": [one.job_id for one in claimed], "fences": [one.fence for one in claimed]}
        )
        saved = {(row.id, row.fence): SavedResult(row.size_bytes, row.sha256) for row in rows}
        # Of those whose attempt does not execute any more the fence, or the earlier report, decides.
        executing = await self._locked([one for one in claimed if saved.get((one.job_id, one.fence)) != one.large])
        return [
            Finished(Verdict.INVALID, message="result_object: no such result was uploaded")
            if answer is None and isinstance(report.large, SavedResult) and (report.job_id, report.fence) in executing
            else answer
            for report, answer in zip(reports, answers, strict=True)
        ]

    async def _write_returned(self, endings: Sequence[Ending], guard: Statement | None) -> list[Row]:
        returning = Statement("return_attempts", _columns(endings) | _delays(endings))
        statements = [returning] if guard is None else [guard, returning]
        rows = (await self._database.transaction(statements))[-1]
        if len(rows) < len(endings):
            rows.extend(await self._write_canceled(endings, {(row.id, row.fence) for row in rows}, guard))
        return rows

    async def _write_parked(self, endings: Sequence[Ending], guard: Statement | None) -> list[Row]:
        parkings = [Parking(ending.job_id, ending.fence, ending.park) for ending in endings if ending.park is not None]
        rows = await write_parkings(self._database, parkings, guard=guard)
        await self._dependants.follow([row for row in rows if row.broken])
        if len(rows) < len(endings):
            rows.extend(await self._write_canceled(endings, {(row.id, row.fence) for row in rows}, guard))
        return rows

    async def _write_canceled(
        self, again: Sequence[Ending], returned: set[tuple[str, int]], guard: Statement | None
    ) -> list[Row]:
        """End jobs that were to come back, but for which a cancel came in meanwhile."""
        left = {(e.job_id, e.fence): e for e in again if (e.job_id, e.fence) not in returned}
        rows = await self._database.fetch(
            "executing_by_fence", {"ids": [id for id, _ in left], "fences": [fence for _, fence in left]}
        )
        canceled = [
            left[row.id, row.fence]._replace(then=Next(JobState.CANCELED, reason=row.reason))
            for row in rows
            if row.cancel_requested
        ]
        return await self._write_final(canceled, guard) if canceled else []

    async def _write_final(self, endings: Sequence[Ending], guard: Statement | None) -> list[Row]:
        columns = _columns(endings) | {"results": [ending.result for ending in endings]}
        statements = [Statement("end_attempts", columns), Statement("settle_parents", {"ids": columns["ids"]})]
        if lost := [ending for ending in endings if ending.lost is not None]:
            statements.insert(0, _losing(lost))
        if guard is not None:
            statements.insert(0, guard)
        ended, settled = (await self._database.transaction(statements))[-2:]
        if settled:
            await self._dependants.follow(settled, steps=STEPS_AT_ONCE)
        return ended

    async def _decide(self, reports: Sequence[Report]) -> list[Ending]:
        """Decide what becomes of each job; only those that did not complete need their rows for it."""
        endings = [
            Ending(report.job_id, report.fence, Outcome.COMPLETED, _COMPLETED, report.result or "null")
            if report.large is None
            else _completed_largely(report)
            for report in reports
            if report.outcome is Outcome.COMPLETED
        ]
        others = [report for report in reports if report.outcome is not Outcome.COMPLETED]
        if others:
            rows = await self._database.fetch(
                "executing_by_fence",
                {"ids": [report.job_id for report in others], "fences": [report.fence for report in others]},
            )
            by_fence = {(row.id, row.fence): row for row in rows}
            for report in others:
                row = by_fence.get((report.job_id, report.fence))
                if row is not None:
                    endings.append(_decide_one(report, row))
        return endings

    async def _recorded(self, reports: Sequence[Report]) -> dict[tuple[str, int], Row]:
        if not reports:
            return {}
        rows = await self._database.fetch(
            "recorded_reports",
            {"ids": [report.job_id for report in reports], "fences": [report.fence for report in reports]},
        )
        # An attempt that the leader ended as lost or timed out is not a repeated report: ownership was lost.
        outcomes = {(report.job_id, report.fence): report.outcome for report in reports}
        return {
            (row.id, row.fence): row
            for row in rows
            if row.outcome == outcomes[row.id, row.fence] and row.state is not None
        }

    async def _locked(self, reports: Sequence[Report]) -> set[tuple[str, int]]:
        """Return those that could not be written, though their attempts execute: their jobs are locked."""
        if not reports:
            return set()
        rows = await self._database.fetch(
            "executing_by_fence",
            {"ids": [report.job_id for report in reports], "fences": [report.fence for report in reports]},
        )
        return {(row.id, row.fence) for row in rows}


def _count(endings: Sequence[Ending], rows: Sequence[Row]) -> None:
    if len(rows) < len(endings):
        written = {(row.id, row.fence) for row in rows}
        endings = [ending for ending in endings if (ending.job_id, ending.fence) in written]
    for outcome, attempts in Counter([ending.outcome for ending in endings]).items():
        ENDED.add(attempts, outcome.value)
    counted.ended(rows)


def _completed_largely(report: Report) -> Ending:
    lost = report.large if isinstance(report.large, LostResult) else None
    return Ending(report.job_id, report.fence, Outcome.COMPLETED, _COMPLETED, lost=lost)


def _losing(endings: Sequence[Ending]) -> Statement:
    lost = [(one.job_id, one.fence, one.lost) for one in endings if one.lost is not None]
    return Statement(
        "record_lost_results",
        {
            "ids": [job_id for job_id, _, _ in lost],
            "fences": [fence for _, fence, _ in lost],
            "sizes": [max(0, what.size_bytes) for _, _, what in lost],
            "reasons": [what.reason for _, _, what in lost],
        },
    )


def _decide_one(report: Report, row: Row) -> Ending:
    is_error = report.outcome in (Outcome.FAILED, Outcome.TIMED_OUT)
    is_error |= report.outcome is Outcome.RESCHEDULED and report.spends_budget
    error = report.error or AttemptError(str(report.outcome), "")
    policy = (RetrySpec.model_validate_json(row.retry) if row.retry else RetrySpec()).policy()
    then = after_outcome(
        report.outcome,
        policy,
        errors=row.errors + is_error,
        error_type=error.type,
        error_bases=report.error_bases,
        retryable=report.retryable,
        cancel_requested=row.cancel_requested,
        delay_s=report.delay_s,
        spends_budget=report.spends_budget,
    )
    then = within_deadline(then, past_deadline=row.past_deadline)
    if row.cancel_requested and then.state is JobState.CANCELED and row.reason:
        then = Next(JobState.CANCELED, reason=row.reason)
    stored = error.to_json() if is_error or report.error else None
    return Ending(report.job_id, report.fence, report.outcome, then, error=stored, is_error=is_error, park=report.park)


def _invalid(report: Report) -> Finished | None:
    if report.outcome not in _REPORTABLE:
        return Finished(Verdict.INVALID, message=f"outcome: {report.outcome} is not reported by workers")
    if (report.park is None) != (report.outcome is not Outcome.PARKED):
        return Finished(Verdict.INVALID, message="park: must be set for parked, and only then")
    if report.park is not None and (problem := problem_of(report.park)):
        return Finished(Verdict.INVALID, message=problem)
    if not 0 <= report.delay_s <= DEFAULT_BOUNDS.delay_s:
        return Finished(Verdict.INVALID, message=f"delay: must be 0 to {DEFAULT_BOUNDS.delay_s:g} s")
    if report.result and report.result != "null":  # what a handler that returns nothing sends
        problem = json_error(report.result, max_bytes=DEFAULT_BOUNDS.result_bytes, max_depth=DEFAULT_BOUNDS.json_depth)
        if problem:
            return Finished(Verdict.INVALID, message=f"result: {problem}")
    return None


def _answer(
    report: Report,
    written: dict[tuple[str, int], Row],
    earlier: dict[tuple[str, int], Row],
    locked: Set[tuple[str, int]],
    deleted: set[str],
) -> Finished:
    key = (report.job_id, report.fence)
    claim_deleted = report.job_id in deleted
    if key in written:
        return Finished(Verdict.RECORDED, _STATES[written[key].state], claim_deleted=claim_deleted)
    if key in earlier:
        return Finished(Verdict.REPEATED, _STATES[earlier[key].state], claim_deleted=claim_deleted)
    if key in locked:
        return Finished(Verdict.LOCKED, message="a transaction has locked the job: report again")
    STALE_WRITES.labels("finish").inc()
    log.warning("stale_finish_refused", job=report.job_id, fence=report.fence, outcome=report.outcome)
    return Finished(Verdict.LOST, message="the attempt is not yours any more; its result was dropped")


def _columns(endings: Sequence[Ending]) -> dict[str, Any]:
    return {
        "ids": [ending.job_id for ending in endings],
        "fences": [ending.fence for ending in endings],
        "outcomes": [ending.outcome.value for ending in endings],
        "states": [ending.then.state.value for ending in endings],
        "errors": [ending.error for ending in endings],
        "reasons": [ending.then.reason for ending in endings],
        "error_counts": [int(ending.is_error) for ending in endings],
        "crash_counts": [int(ending.is_crash) for ending in endings],
    }


def _delays(endings: Sequence[Ending]) -> dict[str, Any]:
    return {"delays": [ending.then.delay_s for ending in endings]}
