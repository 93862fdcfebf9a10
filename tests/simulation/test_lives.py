"""Lives of jobs by the pure rules of reaping and retrying: a state machine on ``model.reap`` and ``model.retry``.

The machine keeps a few jobs as Postgres would, and their claims as etcd would. Claims vanish, are replaced by others'
and come back under revisions that were given before; whatever happens no healthy attempt is reaped, every lost one
is, and every job ends within its budgets.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tenure.model.reap import BRAKE_WORKERS, MAX_BRAKE_S, Executing, brake_s, judge, next_of_lost, next_of_timed_out
from tenure.model.retry import Next, RetryPolicy, after_outcome
from tenure.model.states import CLAIMABLE, TERMINAL, JobState, Outcome, may_move

WORKERS = ("u", "v", "w", "x")
JOBS = 5
REPORTS = (
    Outcome.COMPLETED,
    Outcome.FAILED,
    Outcome.TIMED_OUT,
    Outcome.CANCELED,
    Outcome.RELEASED,
    Outcome.RESCHEDULED,
)
_POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 4),
    initial_backoff_s=st.floats(0.0, 10.0),
    multiplier=st.floats(1.0, 4.0),
    max_backoff_s=st.floats(0.0, 100.0),
    jitter=st.floats(0.0, 1.0),
)


@dataclass
class Job:
    """A row. ``row`` is there while it executes."""

    id: uuid.UUID
    policy: RetryPolicy
    max_crashes: int
    ttl_s: float
    state: JobState = JobState.READY
    attempt: int = 0
    errors: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    row: Executing | None = None
    ends: int = 0


class Lives(RuleBasedStateMachine):
    """A few jobs, their claims, and a reaper that looks now and then."""

    @initialize(
        drawn=st.lists(
            st.tuples(_POLICIES, st.integers(1, 4), st.sampled_from([2.0, 10.0, 60.0])), min_size=JOBS, max_size=JOBS
        )
    )
    def begin(self, drawn: list[tuple[RetryPolicy, int, float]]) -> None:
        self.jobs = [
            Job(uuid.UUID(int=number), policy, crashes, ttl_s) for number, (policy, crashes, ttl_s) in enumerate(drawn)
        ]
        self.claims: dict[uuid.UUID, tuple[int, int]] = {}
        self.revision = 100
        self.lease = 0
        self.fence = 0

    def _one(self, number: int, executing: bool) -> Job | None:
        """Return one of the jobs that execute, or that could be started, so that few steps come to nothing."""
        able = [
            job
            for job in self.jobs
            if (job.row is not None if executing else job.state in CLAIMABLE and job.id not in self.claims)
        ]
        return able[number % len(able)] if able else None

    def _move(self, job: Job, then: Next, *, is_error: bool = False, is_crash: bool = False) -> None:
        assert may_move(JobState.EXECUTING, then.state)
        assert then.delay_s >= 0.0
        assert then.state is JobState.READY or then.delay_s == 0.0
        job.errors += is_error
        job.crashes += is_crash
        job.state, job.row = then.state, None
        job.ends += then.state in TERMINAL
        assert not job.cancel_requested or then.state in TERMINAL, "canceled, but it comes back"

    # -- what happens --

    @rule(number=st.integers(0, JOBS - 1), worker=st.sampled_from(WORKERS))
    def start(self, number: int, worker: str) -> None:
        """Claimed where no claim stands, and started where the row can be."""
        job = self._one(number, executing=False)
        if job is not None:
            self._start(job, worker)

    def _start(self, job: Job, worker: str) -> None:
        self.revision, self.lease, self.fence = self.revision + 1, self.lease + 1, self.fence + 1
        self.claims[job.id] = (self.revision, self.lease)
        job.attempt += 1
        job.state = JobState.EXECUTING
        job.row = Executing(
            job.id, self.fence, worker, self.lease, self.revision, job.attempt, job.crashes, job.max_crashes,
            job.cancel_requested, job.ttl_s, False, job.errors, job.policy,
        )  # fmt: skip

    @rule(
        number=st.integers(0, JOBS - 1),
        outcome=st.sampled_from(REPORTS),
        retryable=st.booleans(),
        delay_s=st.floats(0, 60),
        roll=st.floats(0, 1),
    )
    def report(self, number: int, outcome: Outcome, retryable: bool, delay_s: float, roll: float) -> None:
        job = self._one(number, executing=True)
        if job is None or job.row is None:
            return
        is_error = outcome in (Outcome.FAILED, Outcome.TIMED_OUT)
        then = after_outcome(
            outcome,
            job.policy,
            errors=job.errors + is_error,
            retryable=retryable,
            cancel_requested=job.cancel_requested,
            delay_s=delay_s,
            roll=lambda: roll,
        )
        if is_error and then.state is JobState.READY:
            assert then.delay_s <= job.policy.max_backoff_s * (1 + job.policy.jitter) + 1e-9
            assert retryable and job.errors + 1 < job.policy.max_attempts
        if outcome is Outcome.RELEASED and not job.cancel_requested:
            assert then.state is JobState.READY, "handing a job back ended it"
        if self.claims.get(job.id) == (job.row.claim_revision, job.row.lease):
            del self.claims[job.id]
        self._move(job, then, is_error=is_error)

    @rule(number=st.integers(0, JOBS - 1))
    def cancel(self, number: int) -> None:
        job = self._one(number, executing=True)
        if job is not None and job.row is not None:
            job.cancel_requested = True
            job.row = replace(job.row, cancel_requested=True)

    @rule(number=st.integers(0, JOBS - 1))
    def claim_vanishes(self, number: int) -> None:
        self.claims.pop(self.jobs[number].id, None)

    @rule(number=st.integers(0, JOBS - 1), same_revision=st.booleans(), same_lease=st.booleans())
    def claim_is_replaced(self, number: int, same_revision: bool, same_lease: bool) -> None:
        """Another claim in its place; after etcd was lost one of the two numbers may be as before, never both."""
        job = self._one(number, executing=True)
        if job is None or job.row is None:
            return
        revision = job.row.claim_revision if same_revision else self.revision + 1
        lease = job.row.lease if same_lease and not same_revision else self.lease + 1
        self.revision, self.lease = self.revision + 1, self.lease + 1
        self.claims[job.id] = (revision, lease)

    @rule(number=st.integers(0, JOBS - 1))
    def outlive_the_timeout(self, number: int) -> None:
        job = self._one(number, executing=True)
        if job is not None and job.row is not None:
            job.row = replace(job.row, timed_out=True)

    @precondition(lambda self: any(job.row for job in self.jobs))
    @rule()
    def sweep(self) -> None:
        """Judge all rows against all claims, and write."""
        rows = [job.row for job in self.jobs if job.row is not None]
        verdict = judge(rows, {str(id): claim for id, claim in self.claims.items()})
        healthy = {row.id for row in rows if self.claims.get(row.id) == (row.claim_revision, row.lease)}
        assert {row.id for row in verdict.lost} == {row.id for row in rows} - healthy
        assert {row.id for row in verdict.timed_out} == {row.id for row in rows if row.timed_out} & healthy
        self._check_brake(verdict.lost, brake_s(verdict))
        by_id = {job.id: job for job in self.jobs}
        for row in verdict.lost:
            job = by_id[row.id]
            then = next_of_lost(row)
            assert job.cancel_requested or (then.state is JobState.FAILED) == (job.crashes + 1 >= job.max_crashes)
            self._move(job, then, is_crash=True)
        for row in verdict.timed_out:
            del self.claims[row.id]
            self._move(by_id[row.id], next_of_timed_out(row), is_error=True)

    def _check_brake(self, lost: tuple[Executing, ...], seconds: float) -> None:
        if len({row.worker for row in lost}) < BRAKE_WORKERS:
            assert seconds == 0.0
        else:
            assert seconds == min(MAX_BRAKE_S, max(row.ttl_s for row in lost))

    # -- what must hold --

    @invariant()
    def budgets_are_kept(self) -> None:
        for job in self.jobs:
            assert job.errors <= job.policy.max_attempts
            assert job.crashes <= job.max_crashes
            if job.state not in TERMINAL:
                assert job.errors < job.policy.max_attempts and job.crashes < job.max_crashes

    @invariant()
    def a_job_ends_once(self) -> None:
        assert all(job.ends == (job.state in TERMINAL) for job in self.jobs)

    def teardown(self) -> None:
        """A poison job that kills each of its workers from now on ends after what is left of its crashes."""
        for job in getattr(self, "jobs", []):
            starts = 0
            while job.state not in TERMINAL:
                self.claims.pop(job.id, None)
                if job.row is None:
                    self._start(job, "u")
                    starts += 1
                self.claims.pop(job.id, None)
                assert job.row is not None
                self._move(job, next_of_lost(job.row), is_crash=True)
            assert starts <= job.max_crashes


def test_any_life() -> None:
    run_state_machine_as_test(
        Lives, settings=settings(max_examples=100, stateful_step_count=40, deadline=None, print_blob=True)
    )
