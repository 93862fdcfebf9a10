"""Turns: by rank, then whose turn it is; nobody is passed by for ever, and what is set aside comes back."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tenure.coordinator.turns import Turns
from tenure.model.dispatch import Lane


def _lane(number: int) -> Lane:
    return Lane(number, "pool", f"tenant-{number}", "kind")


def _ids(turns: Turns, most: int | None = None) -> list[int]:
    return [lane.id for lane in islice(turns, most)]


def _turns(heads: dict[int, int]) -> Turns:
    turns = Turns()
    turns.begin_anew((_lane(lane), rank) for lane, rank in heads.items())
    return turns


def test_the_most_urgent_first_and_turns_among_equals() -> None:
    turns = _turns({1: 0, 2: -5, 3: 0, 4: 0})
    assert _ids(turns) == [2, 1, 3, 4]
    assert not turns.looked_at({2: 0, 1: 0}, {2: -5, 1: 0}, set())
    assert _ids(turns) == [3, 4, 2, 1]
    assert not turns.looked_at({3: None, 4: 0}, {3: 0}, {4})
    assert _ids(turns) == [4, 2, 1] and 3 not in turns and len(turns) == 3


def test_who_found_no_place_keeps_his_turn_and_who_had_nothing_to_give_does_not() -> None:
    turns = _turns({1: 0, 2: 0, 3: 0, 4: 0})
    assert not turns.looked_at({1: 0, 2: 0, 3: 0}, {1: 0}, {2})
    assert _ids(turns) == [2, 4, 1, 3]
    assert turns.looked_at({2: 7}, {}, {2})
    assert _ids(turns) == [4, 1, 3, 2]


def test_lanes_in_which_a_job_may_have_come_free_wait_for_their_turn() -> None:
    turns = _turns({1: 0, 2: 0, 3: 5})
    assert turns.looked_at({1: None}, {}, set())
    turns.perhaps([_lane(1), _lane(3), _lane(4)])
    assert _ids(turns) == [4, 2, 1, 3]


def test_a_poll_keeps_whose_turn_it_is_and_new_lanes_come_last() -> None:
    turns = _turns({1: 0, 2: 0, 3: 0})
    turns.looked_at({1: 0}, {1: 0}, set())
    turns.begin_anew((_lane(lane), 0) for lane in (1, 2, 3, 4))
    assert _ids(turns) == [2, 3, 1, 4]
    turns.begin_anew((_lane(lane), rank) for lane, rank in ((1, -1), (4, 0)))
    assert _ids(turns) == [1, 4] and 2 not in turns


def test_tenants_who_submit_all_the_time_keep_nobody_from_his_turn() -> None:
    turns = _turns(dict.fromkeys(range(10), 0))
    seen: set[int] = set()
    for _ in range(5):
        turns.hinted(map(_lane, range(100, 200)))
        page = _ids(turns, 4)
        seen.update(page)
        turns.looked_at(dict.fromkeys(page, 0), dict.fromkeys(page, 0), set())
    assert seen >= set(range(10))


def test_what_was_hinted_at_is_read_before_its_rank_counts() -> None:
    turns = _turns({1: 0, 2: 0})
    turns.hinted([_lane(2)])
    assert _ids(turns) == [2, 1] and len(turns) == 2
    turns.hinted([_lane(2)])
    assert turns.next_rank({2}) == 0 and turns.next_rank({1}) is None


def test_lanes_of_a_full_limit_are_set_aside_until_a_slot_is_free() -> None:
    turns = _turns({1: 0, 2: 0, 3: 0})
    turns.set_aside({1: "one", 2: "two"})
    assert _ids(turns) == [3] and 1 in turns and len(turns) == 3
    assert turns.next_rank(set()) == 0
    turns.freed({"one", "unheard-of"})
    assert _ids(turns) == [1, 3]
    turns.hinted([_lane(2)])
    turns.freed({"two"})
    assert sorted(_ids(turns)) == [1, 2, 3]
    turns.set_aside({3: "three"})
    turns.begin_anew([(_lane(3), 0)])
    turns.freed({"three"})
    assert _ids(turns) == [3]


@given(st.lists(st.tuples(st.sampled_from("hlapfm"), st.integers(0, 7), st.integers(-2, 2)), max_size=60))
def test_a_lane_is_in_one_place_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    turns = Turns()
    aside: dict[int, str] = {}
    known: set[int] = set()
    for what, lane, rank in steps:
        if what == "h":
            turns.hinted([_lane(lane)])
            known.add(lane)
            aside.pop(lane, None)
        elif what == "m":
            turns.perhaps([_lane(lane)])
            known.add(lane)
        elif what == "l" and lane in known and lane not in aside:
            turns.looked_at({lane: rank if rank else None}, {lane: 0}, {lane} if rank > 0 else set())
            known -= set() if rank else {lane}
        elif what == "a" and lane in known and lane not in aside:
            turns.set_aside({lane: f"limit-{lane % 2}"})
            aside[lane] = f"limit-{lane % 2}"
        elif what == "f":
            turns.freed([f"limit-{lane % 2}"])
            aside = {one: limit for one, limit in aside.items() if limit != f"limit-{lane % 2}"}
        elif what == "p":
            turns.begin_anew((_lane(one), rank) for one in range(lane))
            known, aside = set(range(lane)), {}
        listed = _ids(turns)
        assert sorted(listed) == sorted(known - aside.keys())
        assert all(one in turns for one in known) and len(turns) == len(known)
