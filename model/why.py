"""Why a job does not run, in words: a pure reading of what the dispatcher would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tenure.model.dependencies import Trigger
from tenure.model.dispatch import Lane, Seat
from tenure.model.routes import covers
from tenure.model.rules import Rules
from tenure.model.states import JobState


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing in a job's way: a word for programs, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What bears upon one unfinished job that does not execute."""

    state: JobState
    lane: Lane
    route: str
    due: bool
    activate_at: datetime
    now: datetime
    """By Postgres' clock."""
    waiting_on: int
    trigger: Trigger = Trigger.ALL_COMPLETED
    parked: bool = False
    waits_for: Sequence[str] = ()
    """Some of the jobs that it waits for."""
    behind: str | None = None
    """The job that it replaces, which has not stopped yet."""
    behind_alone: bool = False
    """It waits for nothing else."""
    seats: Sequence[Seat]
    """Every worker, also those without room."""
    slots_held: Mapping[str, int]
    hold: str | None = None
    """The operator's reason, if the job is held."""


def obstacles(picture: Picture, rules: Rules) -> list[Obstacle]:
    """Return what is in the way; nothing means that it waits for its turn."""
    found: list[Obstacle] = []
    lane = picture.lane
    if picture.state is JobState.WAITING:
        return _waits(picture)
    if picture.hold is not None:
        found.append(Obstacle("held", f"an operator holds it back{_because(picture.hold)}"))
    if picture.activate_at > picture.now:
        seconds = (picture.activate_at - picture.now).total_seconds()
        at = picture.activate_at.isoformat(timespec="seconds")
        found.append(Obstacle("not_due", f"it may not start before {at}, in {seconds:,.0f} s"))
    pause = rules.pause_of(lane) or rules.pause_of_route(picture.route)
    if pause is not None:
        found.append(Obstacle("paused", f"the {pause.subject} {pause.name} is paused{_because(pause.reason)}"))
    found.extend(_limits(picture, rules))
    found.extend(_workers(lane, picture.route, picture.seats))
    return found


def _waits(picture: Picture) -> list[Obstacle]:
    if picture.behind is None:
        return [_wait(picture)]
    found = [Obstacle("replaces", f"it replaces job {picture.behind}, whose worker has been asked to stop it")]
    return found if picture.behind_alone else [*found, _wait(picture)]


def _wait(picture: Picture) -> Obstacle:
    wanted = {
        Trigger.ALL_COMPLETED: "",
        Trigger.ALL_FINISHED: " to end",
        Trigger.ANY_COMPLETED: " to complete",
        Trigger.ANY_FINISHED: " to end",
    }[picture.trigger]
    one_of = "one of " if picture.trigger in (Trigger.ANY_COMPLETED, Trigger.ANY_FINISHED) else ""
    jobs = f"{one_of}{_count(picture.waiting_on, 'job')}"
    some = ", ".join(picture.waits_for) + (", …" if picture.waiting_on > len(picture.waits_for) else "")
    which = f": {some}" if picture.waits_for else ""
    if picture.parked:
        return Obstacle("parked", f"it is parked and waits for {jobs} that it submitted{wanted}{which}")
    return Obstacle("waiting", f"it waits for {jobs} that it depends on{wanted}{which}")


def _limits(picture: Picture, rules: Rules) -> list[Obstacle]:
    found = []
    for name in picture.lane.limits:
        limit = rules.limit_of(name)
        if limit is None:
            continue
        held = picture.slots_held.get(name, 0)
        if limit.concurrent is not None and held >= limit.concurrent:
            found.append(Obstacle("limit", f"the limit {name} is full: {held} of {limit.concurrent} execute"))
        if limit.rate == 0:
            found.append(Obstacle("limit", f"the limit {name} lets nothing start: its rate is 0"))
    return found


def _workers(lane: Lane, route: str, seats: Sequence[Seat]) -> list[Obstacle]:
    if not seats:
        return [Obstacle("no_worker", "no worker is registered: start one with `tenure worker`")]
    there = [seat for seat in seats if any(covers(pool, lane.pool) or covers(pool, route) for pool in seat.pools)]
    if not there:
        pools = ", ".join(sorted({pool for seat in seats for pool in seat.pools}))
        return [Obstacle("no_pool", f"no worker serves the route {route}: the pools served are {pools}")]
    able = [seat for seat in there if lane.kind in seat.kinds]
    if not able:
        kinds = ", ".join(sorted({kind for seat in there for kind in seat.kinds}))
        return [
            Obstacle(
                "no_kind", f"no worker of {route} handles the kind {lane.kind}: those handled are {kinds or 'none'}"
            )
        ]
    wanted = ", ".join(f"{name}={value}" for name, value in lane.requires)
    able = [seat for seat in able if all((seat.labels or {}).get(name) == value for name, value in lane.requires)]
    if not able:
        return [Obstacle("no_labels", f"no worker that could run it has the labels {wanted}")]
    if all(seat.free <= 0 for seat in able):
        return [Obstacle("no_room", f"all {_count(len(able), 'worker')} that could run it are full or draining")]
    return []


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
