"""Reading of lanes: one reading lasts for some rounds, and what was read is lived on for no longer than it may."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from tests.coordinator.conftest import Parts

from tenure.coordinator.allowance import Allowance
from tenure.coordinator.flight import Flight, Held
from tenure.coordinator.reading import AHEAD, LASTS_S, MIN_PER_LANE, Reader
from tenure.model.clock import SystemClock
from tenure.model.dispatch import Lane
from tenure.store.postgres.database import Statement

ROOM = 2
ROUND = ROOM + MIN_PER_LANE
"""What a round is shown of one lane."""


class Still(SystemClock):
    """A clock that stands."""

    at_s = 1_000.0

    def monotonic(self) -> float:
        return self.at_s


class Desk:
    """A reader of one lane, with a count of what it asks Postgres."""

    def __init__(self, parts: Parts, lane: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Still()
        self.flight = Flight()
        self.lane = Lane(lane, "default", "default", "k")
        allowance = Allowance(parts.db, self.clock, self.flight, Statement("assert_term", {}))
        self.reader = Reader(parts.db, self.clock, self.flight, allowance)
        self.readings = 0
        fetch = parts.db.fetch

        async def counting(name: str, params: Any = None) -> Any:
            self.readings += name == "ready_window"
            return await fetch(name, params)

        monkeypatch.setattr(parts.db, "fetch", counting)

    async def shown(self) -> list[uuid.UUID]:
        found = await self.reader.read([self.lane], {}, ROOM)
        self.candidates = found.candidates
        self.cut, self.ended = found.cut[self.lane.id], found.ended
        return [uuid.UUID(one.id) for one in found.candidates]

    def take(self, jobs: Iterable[uuid.UUID]) -> None:
        ids = {str(job) for job in jobs}
        self.reader.take([one for one in self.candidates if one.id in ids])


async def lane_of(parts: Parts, job: uuid.UUID) -> int:
    [row] = await parts.sql("SELECT lane FROM tenure.job WHERE id = %s", job)
    lane: int = row.lane
    return lane


async def test_one_reading_lasts_for_rounds_and_shows_each_job_until_it_is_given(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await alone.submit() for _ in range(AHEAD * ROUND + 1)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    assert await desk.shown() == jobs[:ROUND]
    assert desk.cut == desk.candidates[-1].order
    desk.take([jobs[0], jobs[2]])
    assert await desk.shown() == [jobs[1], *jobs[3 : ROUND + 2]]
    assert (desk.readings, desk.ended) == (1, [])


async def test_what_was_given_away_is_not_shown_again_when_it_has_run(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim has come and gone between two rounds: the picture does not show it, but the reading is old."""
    jobs = [await alone.submit() for _ in range(3)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    await desk.shown()
    desk.take(jobs[:1])
    desk.flight.claim_seen(str(jobs[0]), Held("w1", "default"))
    desk.flight.claim_gone(str(jobs[0]))
    assert await desk.shown() == jobs[1:]
    assert (desk.readings, desk.cut, desk.ended) == (1, None, [desk.lane.id])


async def test_what_came_into_flight_since_is_passed_over(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [await alone.submit() for _ in range(3)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    await desk.shown()
    desk.flight.claim_seen(str(jobs[1]), Held("w1", "default"))
    assert await desk.shown() == [jobs[0], jobs[2]]
    assert desk.readings == 1


async def test_a_lane_of_which_all_is_in_flight_still_stops_where_it_was_read(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something of a high priority may come after: nothing of a lower one goes ahead of it."""
    jobs = [await alone.submit() for _ in range(AHEAD * ROUND + 1)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    for job in jobs[:-1]:
        desk.flight.claim_seen(str(job), Held("w1", "default"))
    assert await desk.shown() == []
    assert desk.cut is not None and desk.cut[2] == str(jobs[-2])
    assert await desk.shown() == jobs[-1:]
    assert (desk.readings, desk.ended) == (2, [desk.lane.id])


async def test_behind_many_that_cannot_be_offered_the_reading_goes_further(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is passed over for a while only: at a round's pace the first would be back before the last was met."""
    jobs = [await alone.submit() for _ in range(3 * AHEAD * ROUND)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    for job in jobs[:-1]:
        desk.flight.holds.add(str(job))
    assert await desk.shown() == []
    desk.reader.forget([desk.lane.id])  # hints are no reason to begin small again
    assert await desk.shown() == jobs[-1:]
    assert (desk.readings, desk.ended) == (2, [desk.lane.id])


async def test_a_hint_waits_a_little_where_jobs_are_left_and_no_time_elsewhere(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await alone.submit() for _ in range(2)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    lane = desk.lane.id
    assert await desk.shown() == jobs
    urgent = await alone.submit(priority=5)
    assert desk.reader.forget([lane]) == {lane}
    assert await desk.shown() == jobs
    desk.clock.at_s += LASTS_S
    assert desk.reader.forget([lane]) == set()
    assert await desk.shown() == [urgent, *jobs]
    desk.take([urgent, *jobs])
    assert desk.reader.forget([lane]) == set(), "nothing is left that was read"
    await desk.shown()
    assert desk.readings == 3


async def test_a_poll_forgets_what_was_read(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [await alone.submit() for _ in range(2)]
    desk = Desk(alone, await lane_of(alone, jobs[0]), monkeypatch)
    await desk.shown()
    urgent = await alone.submit(priority=5)
    desk.reader.forget_all()
    assert await desk.shown() == [urgent, *jobs]
