"""Why a job does not run: each obstacle by itself, and none where it merely waits for its turn."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure.model.dispatch import Lane, Seat
from tenure.model.limits import Limit
from tenure.model.rules import Pause, Rules, Subject
from tenure.model.states import JobState
from tenure.model.why import Picture, obstacles

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEAT = Seat("w1", ("p",), frozenset({"k"}), 3, {"gpu": "a100"})
CLEAR = Picture(
    state=JobState.READY,
    lane=Lane(1, "p", "n", "k", ("db",), (("gpu", "a100"),)),
    route="p/x",
    due=True,
    activate_at=NOW,
    now=NOW,
    waiting_on=0,
    seats=[SEAT],
    slots_held={"db": 1},
)
RULES = Rules(limits={"db": Limit("db", concurrent=2)})


def test_nothing_is_in_the_way() -> None:
    assert obstacles(CLEAR, RULES) == []


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"state": JobState.WAITING, "waiting_on": 1}, "waiting", "1 job that"),
        ({"state": JobState.WAITING, "waiting_on": 1_200}, "waiting", "1,200 jobs"),
        ({"state": JobState.WAITING, "behind": "j1", "behind_alone": True}, "replaces", "job j1"),
        ({"hold": "broken"}, "held", "broken"),
        ({"activate_at": NOW + timedelta(hours=1)}, "not_due", "3,600 s"),
        ({"slots_held": {"db": 2}}, "limit", "db is full: 2 of 2"),
        ({"seats": []}, "no_worker", "tenure worker"),
        ({"seats": [replace(SEAT, pools=("q", "pp"))]}, "no_pool", "are pp, q"),
        ({"seats": [replace(SEAT, kinds=frozenset({"other"}))]}, "no_kind", "are other"),
        ({"seats": [replace(SEAT, labels={"gpu": "t4"})]}, "no_labels", "gpu=a100"),
        ({"seats": [replace(SEAT, free=0), replace(SEAT, worker="w2", free=-1)]}, "no_room", "all 2 workers"),
    ],
)
def test_each_obstacle(changed: dict[str, Any], code: str, words: str) -> None:
    [found] = obstacles(replace(CLEAR, **changed), RULES)
    assert found.code == code
    assert words in found.message


def test_a_job_that_replaces_another_may_wait_for_more() -> None:
    found = obstacles(replace(CLEAR, state=JobState.WAITING, waiting_on=2, behind="j1"), RULES)
    assert [one.code for one in found] == ["replaces", "waiting"]


@pytest.mark.parametrize(
    ("subject", "name"), [(Subject.POOL, "p"), (Subject.POOL, "p/x"), (Subject.KIND, "k"), (Subject.NAMESPACE, "n")]
)
def test_a_pause(subject: Subject, name: str) -> None:
    rules = Rules(limits=RULES.limits, pauses={(subject, name): Pause(subject, name, "because")})
    [found] = obstacles(CLEAR, rules)
    assert found.message == f"the {subject} {name} is paused: because"


def test_a_rate_of_nothing_and_several_obstacles() -> None:
    rules = Rules(limits={"d*": Limit("d*", concurrent=1, rate=0)})
    found = obstacles(replace(CLEAR, seats=[]), rules)
    assert [one.code for one in found] == ["limit", "limit", "no_worker"]
