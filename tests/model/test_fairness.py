"""Who is next: strict priority, turns between namespaces by weight, and nothing ahead of what was not read."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tenure.model.dispatch import Assignment, Candidate, Lane, Order, Seat, Share, assign, servable, windows

NAMESPACES = ("a", "b", "c")
LANES = {
    n * 2 + way: Lane(n * 2 + way, "p", namespace, "k", ("one",) if way else ())
    for n, namespace in enumerate(NAMESPACES)
    for way in (0, 1)
}


def job(number: int, lane: int, *, priority: int = 0, at: int = 0) -> Candidate:
    """Return a ready job."""
    return Candidate(-priority, float(at), f"{number:032x}", lane, 0, "p", 10.0)


def choose(
    jobs: list[Candidate],
    room: int,
    *,
    shares: dict[str, Share] | None = None,
    cut: dict[int, Order | None] | None = None,
) -> list[Assignment]:
    """Assign to one worker with so much room."""
    serving = servable(LANES.values(), [Seat("w", ("p",), frozenset({"k"}), room)])
    read = windows(jobs, LANES, cut if cut is not None else dict.fromkeys(LANES))
    return assign(read, LANES, serving, shares=shares or {}, units={"one": 3})


def test_a_backlog_does_not_starve_a_namespace_with_few() -> None:
    """Ten late jobs beside a thousand early ones: they get every other place."""
    backlog = [job(n, 0) for n in range(1_000)]
    few = [job(10_000 + n, 2, at=500) for n in range(10)]
    chosen = choose(backlog + few, 20)
    assert Counter(LANES[one.candidate.lane].namespace for one in chosen) == {"a": 10, "b": 10}


def test_shares_follow_weights_and_what_is_in_flight() -> None:
    jobs = [job(n * 3 + lane, 2 * lane) for n in range(300) for lane in (0, 1, 2)]
    shares = {"a": Share(0, 1.0), "b": Share(0, 2.0), "c": Share(40, 1.0)}
    found = Counter(LANES[one.candidate.lane].namespace for one in choose(jobs, 60, shares=shares))
    assert found == {"a": 20, "b": 40}  # c has its part in flight already
    found = Counter(LANES[one.candidate.lane].namespace for one in choose(jobs, 200, shares=shares))
    assert found == {"a": 60, "b": 120, "c": 20}


def test_priority_comes_before_fairness() -> None:
    urgent = [job(n, 0, priority=5) for n in range(50)]
    others = [job(1_000 + n, 2, priority=4) for n in range(50)]
    chosen = choose(urgent + others, 60)
    assert Counter(one.candidate.rank for one in chosen) == {-5: 50, -4: 10}


@given(
    counts=st.tuples(*[st.integers(0, 30)] * 3),
    weights=st.tuples(*[st.sampled_from([0.001, 0.5, 1.0, 3.0, 1_000.0])] * 3),
    in_flight=st.tuples(*[st.integers(0, 20)] * 3),
    room=st.integers(1, 40),
)
def test_no_namespace_is_ahead_of_its_share_while_another_waits(
    counts: tuple[int, ...], weights: tuple[float, ...], in_flight: tuple[int, ...], room: int
) -> None:
    """Whatever the backlogs: before its last place nobody had more, for its weight, than whoever still waits."""
    jobs = [job(lane * 1_000 + n, 2 * lane, at=lane) for lane, count in enumerate(counts) for n in range(count)]
    shares = {name: Share(held, weight) for name, held, weight in zip(NAMESPACES, in_flight, weights, strict=True)}
    given_away = Counter(LANES[one.candidate.lane].namespace for one in choose(jobs, room, shares=shares))
    assert sum(given_away.values()) == min(room, len(jobs))
    waiting = [name for name, count in zip(NAMESPACES, counts, strict=True) if given_away[name] < count]
    for name, places in given_away.items():
        before = (shares[name].in_flight + places - 1) / shares[name].weight
        for other in waiting:
            assert before <= (shares[other].in_flight + given_away[other]) / shares[other].weight


JOBS = st.lists(st.tuples(st.sampled_from(sorted(LANES)), st.integers(-2, 2), st.integers(0, 4)), max_size=60).map(
    lambda rows: [job(n, lane, priority=priority, at=at) for n, (lane, priority, at) in enumerate(rows)]
)


@given(jobs=JOBS, room=st.integers(1, 20), per_lane=st.integers(1, 10))
def test_nothing_goes_ahead_of_what_was_not_read(jobs: list[Candidate], room: int, per_lane: int) -> None:
    """Lanes are read in part: still no job is given away before one of a higher priority that could run."""
    by_lane: dict[int, list[Candidate]] = defaultdict(list)
    for one in sorted(jobs, key=lambda one: one.order):
        by_lane[one.lane].append(one)
    read = [one for lane in by_lane.values() for one in lane[:per_lane]]
    cut = {lane: mine[per_lane - 1].order if len(mine := by_lane[lane]) >= per_lane else None for lane in LANES}
    chosen = choose(read, room, cut=cut)
    given_away = {each.candidate.id for each in chosen}
    limited = sum(bool(LANES[each.candidate.lane].limits) for each in chosen)
    assert len(given_away) == len(chosen) <= room
    assert limited <= 3
    for each in chosen:
        for other in jobs:
            if other.id in given_away:
                continue
            blocked = bool(LANES[other.lane].limits) and limited == 3
            same = LANES[other.lane].namespace == LANES[each.candidate.lane].namespace
            ahead = other.order < each.candidate.order if same else other.rank < each.candidate.rank
            assert blocked or not ahead, f"{other} was passed over for {each.candidate}"
    if read and not chosen:
        raise AssertionError("nothing was given away though something could run")
