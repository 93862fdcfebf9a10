"""The pure rules: moves, routes, retries, trust, dispatch, reaping."""

from __future__ import annotations

import itertools
import math
import uuid
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.dispatch import Candidate, Lane, Seat, assign, servable, windows
from tenure.model.fence import SEQUENCE_BITS, epoch_of, sequence_of
from tenure.model.reap import (
    BRAKE_WORKERS,
    MAX_BRAKE_S,
    Executing,
    brake_s,
    judge,
    next_of_lost,
    next_of_taken,
    next_of_timed_out,
)
from tenure.model.retry import Next
from tenure.model.routes import covers, pool_of, route_error
from tenure.model.states import CLAIMABLE, MOVES, TERMINAL, JobState, may_move
from tenure.model.trust import SIGNS_PER_TTL, Trust, margin_s, renew_every_s, was_alive

ALLOWED = {
    ("waiting", "ready"),
    ("waiting", "failed"),
    ("waiting", "canceled"),
    ("ready", "executing"),
    ("ready", "failed"),
    ("ready", "canceled"),
    ("restarting", "executing"),
    ("restarting", "failed"),
    ("restarting", "canceled"),
    ("executing", "completed"),
    ("executing", "failed"),
    ("executing", "canceled"),
    ("executing", "ready"),
    ("executing", "waiting"),
    ("executing", "restarting"),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_the_table_of_moves(before: JobState, after: JobState) -> None:
    """Every pair of states, as DESIGN.md lists them."""
    assert may_move(before, after) == ((str(before), str(after)) in ALLOWED)


def test_terminal_states_are_the_ones_without_a_move() -> None:
    """And a claimable job can start."""
    assert {state for state in JobState if not MOVES[state]} == TERMINAL
    assert all(may_move(state, JobState.EXECUTING) for state in CLAIMABLE)


@pytest.mark.parametrize(
    ("pool", "route", "matches"),
    [
        ("pool-a", "pool-a", True),
        ("pool-a", "pool-a/x", True),
        ("pool-a", "pool-abc", False),
        ("pool-a/x", "pool-a", False),
        ("pool-a/x", "pool-a/x/y", True),
        ("pool-a/x", "pool-a/xy", False),
    ],
)
def test_pools_match_by_whole_segments(pool: str, route: str, matches: bool) -> None:
    """``pool-a`` never matches ``pool-abc``."""
    assert covers(pool, route) is matches


def test_the_longest_pool_wins() -> None:
    """And a route that nobody serves belongs to its first segment."""
    pools = frozenset({"a", "a/b", "a/b/c/d"})
    assert pool_of("a/b/c", pools) == "a/b"
    assert pool_of("a/x", pools) == "a"
    assert pool_of("z/y", pools) == "z"


@pytest.mark.parametrize(
    "route", ["", "/a", "a//b", "A", "a b", "a/../b", "x" * 300, "/".join("abcdefghi"), "-a", "a%"]
)
def test_bad_routes_are_refused(route: str) -> None:
    """With words."""
    assert route_error(route)


@pytest.mark.parametrize("ttl_s", [2.0, 3.0, 5.0, 10.0, 60.0, 3600.0])
def test_one_missed_keepalive_is_survived(ttl_s: float) -> None:
    """The second one after it is sent, and may take its time, before trust ends; and trust ends before the lease."""
    trust = Trust(sent_at=100.0, ttl_s=ttl_s)
    second = 100.0 + 2 * renew_every_s(ttl_s)
    assert trust.holds(second + 0.2)
    assert trust.until == pytest.approx(trust.expires_at - margin_s(ttl_s))
    assert not trust.holds(trust.until)


def test_the_margin_at_the_smallest_ttl() -> None:
    """The sum that the documents quote."""
    assert margin_s(2.0) == pytest.approx(0.1 + 0.2 + 0.1)


@given(epoch=st.integers(1, 65_535), sequence=st.integers(1, 2**SEQUENCE_BITS - 1))
def test_a_fence_is_epoch_and_sequence(epoch: int, sequence: int) -> None:
    """63 bits, ordered by epoch first."""
    fence = (epoch << SEQUENCE_BITS) | sequence
    assert (epoch_of(fence), sequence_of(fence)) == (epoch, sequence)
    assert fence < 2**63
    assert fence < ((epoch + 1) << SEQUENCE_BITS) | 1


LANES = [Lane(1, "a", "n", "k"), Lane(2, "a/b", "n", "k"), Lane(3, "z", "n", "k"), Lane(4, "a", "n", "other")]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Ready jobs in the order in which they are read."""
    found = draw(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(-5, 5), st.integers(0, 5)), max_size=60))
    jobs = [
        Candidate(-priority, float(at), f"{n:032x}", lane, 0, "r", 10.0) for n, (lane, priority, at) in enumerate(found)
    ]
    return sorted(jobs)


SEATS = st.lists(
    st.tuples(
        st.sampled_from([("a",), ("a/b",), ("z",), ("a", "z"), ("q",)]),
        st.sampled_from([frozenset({"k"}), frozenset({"other"}), frozenset({"k", "other"})]),
        st.integers(0, 8),
    ),
    max_size=6,
).map(lambda rows: [Seat(f"w{n}", *row) for n, row in enumerate(rows)])


@given(jobs=candidates(), seats=SEATS)
def test_dispatch(jobs: list[Candidate], seats: list[Seat]) -> None:
    """Only serving workers, never above their room, and nobody is passed over for one behind while a place was free."""
    lanes = {lane.id: lane for lane in LANES}
    serving = servable(LANES, seats)
    read = [job for job in jobs if job.lane in serving]
    chosen = assign(windows(read, lanes, dict.fromkeys(serving)), lanes, serving, shares={}, units={})
    room = {seat.worker: seat.free for seat in seats}
    by_name = {seat.worker: seat for seat in seats}
    assert len({one.candidate.id for one in chosen}) == len(chosen)
    assert all(by_name[one.worker].serves(lanes[one.candidate.lane]) for one in chosen)
    taken: Counter[str] = Counter()
    given_to = {one.candidate.id: one.worker for one in chosen}
    for job in jobs:
        worker = given_to.get(job.id)
        if worker is None:
            assert all(taken[seat.worker] >= room[seat.worker] for seat in seats if seat.serves(lanes[job.lane]))
        else:
            taken[worker] += 1
            assert taken[worker] <= room[worker]


def _row(number: int, *, worker: str = "w", timed_out: bool = False, crashes: int = 0) -> Executing:
    return Executing(uuid.UUID(int=number), number, worker, 7, 70 + number, 1, crashes, 3, False, 4.0, timed_out)


def test_reaping_is_by_identity() -> None:
    """A claim of somebody else, or of the same revision on another lease, is no claim of one's own."""
    rows = [_row(1), _row(2), _row(3), _row(4, timed_out=True)]
    claims = dict(zip([str(row.id) for row in rows], [(71, 7), (99, 7), (73, 8), (74, 7)], strict=True))
    verdict = judge(rows, claims)
    assert [row.fence for row in verdict.lost] == [2, 3]
    assert [row.fence for row in verdict.timed_out] == [4]


def test_a_poison_job_ends() -> None:
    """After ``max_crashes`` lost attempts."""
    assert next_of_lost(_row(1, crashes=1)).state is JobState.RESTARTING
    assert next_of_lost(_row(1, crashes=2)).state is JobState.FAILED


def test_a_job_whose_worker_did_not_end_it_in_time_waits_for_its_ttl() -> None:
    """The worker may go on for as long as it trusts its claim."""
    then = next_of_timed_out(_row(1, timed_out=True))
    assert (then.state, then.delay_s) == (JobState.READY, 4.0)


def test_the_brake_is_for_many_workers_at_once() -> None:
    """One worker with a thousand claims is a dead worker; three at once are etcd's fault more often."""
    assert brake_s(judge([_row(n) for n in range(1, 50)], {})) == 0
    rows = [_row(n, worker=f"w{n}") for n in range(1, BRAKE_WORKERS + 1)]
    assert brake_s(judge(rows, {})) == 4.0
    patient = [replace(row, ttl_s=3_600.0) for row in rows]
    assert brake_s(judge(patient, {})) == MAX_BRAKE_S, "one tenant's TTL would hold up everybody"


@given(
    ttl_s=st.integers(2, 3600),
    since_renewal=st.floats(0, 1),
    late_s=st.floats(0, 60),
)
def test_a_fresh_session_tells_a_taken_claim_from_a_crash(ttl_s: int, since_renewal: float, late_s: float) -> None:
    """Whatever the phases of the renewals were when a worker died; ages are in whole seconds, rounded up."""
    session_of_the_living = since_renewal * ttl_s / SIGNS_PER_TTL
    assert was_alive(session_age_s=math.ceil(session_of_the_living), ttl_s=ttl_s)
    died_after_renewing_the_claim = since_renewal * renew_every_s(ttl_s)
    session_of_the_dead = ttl_s - died_after_renewing_the_claim + late_s
    assert not was_alive(session_age_s=math.ceil(session_of_the_dead), ttl_s=ttl_s)


def test_a_taken_job_comes_back_after_the_old_ttl() -> None:
    """Ready, no error and no crash; canceled where that was wished."""
    assert next_of_taken(_row(1, crashes=2)) == Next(JobState.READY, delay_s=4.0)
    assert next_of_taken(replace(_row(1), cancel_requested=True)).state is JobState.CANCELED
