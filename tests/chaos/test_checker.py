"""The checker against forged histories: good ones pass, each bad one is caught by the check that is meant for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chaos.checker import (
    CHECKS,
    Expected,
    check,
    longest_silence_s,
    overlaps,
    recovery_s,
    slowest_recovery_s,
    vacuity,
    without_paused_trees,
)
from tests.chaos.history import (
    EVENTS,
    Active,
    Attempt,
    Claim,
    Deadline,
    Effect,
    Event,
    Fault,
    Finish,
    Limited,
    MalformedHistory,
    Recorder,
    Start,
    Submit,
    Terminal,
    Unclaim,
    from_line,
    read,
    to_line,
)

J, K = "job-1", "job-2"
History = list[Event]


def taken_over() -> History:
    """A is paused and loses the job; B completes it; A's late report is refused; a child follows."""
    return [
        Limited(at=0.0, limit="one", most=1),
        Submit(at=0.0, key="k1", outcome="ok", job=J, limit="one"),
        Submit(at=0.1, key="k2", outcome="ok", job=K, parents=(J,), limit="one"),
        Submit(at=0.2, key="k3", outcome="info"),
        Claim(at=1.0, job=J, worker="A", revision=10, lease=1),
        Start(at=1.1, job=J, attempt=1, fence=101, worker="A", started_at=1001.1),
        Effect(at=1.2, job=J, fence=101, step="begin"),
        Deadline(at=1.5, job=J, fence=101, expires_at=4.0),
        Fault(at=2.0, fault="pause A", step="begin"),
        Unclaim(at=4.5, job=J, created=10, revision=20),
        Claim(at=4.7, job=J, worker="B", revision=21, lease=2),
        Start(at=4.8, job=J, attempt=2, fence=102, worker="B", started_at=1004.8),
        Effect(at=4.9, job=J, fence=102, step="begin"),
        Effect(at=5.5, job=J, fence=102, step="end", result="42"),
        Finish(at=5.6, job=J, fence=102, outcome="completed", verdict="info"),
        Fault(at=6.0, fault="pause A", step="end"),
        Finish(at=6.1, job=J, fence=101, outcome="completed", verdict="lost"),
        Finish(at=6.2, job=J, fence=102, outcome="completed", verdict="repeated"),
        Unclaim(at=6.3, job=J, created=21, revision=30),
        Claim(at=7.0, job=K, worker="B", revision=31, lease=2),
        Start(at=7.1, job=K, attempt=1, fence=103, worker="B", started_at=1007.1),
        Effect(at=7.2, job=K, fence=103, step="end", result="7"),
        Finish(at=7.3, job=K, fence=103, outcome="completed", verdict="recorded"),
        Unclaim(at=7.4, job=K, created=31, revision=32),
        Attempt(at=9.0, job=J, attempt=1, fence=101, outcome="lost"),
        Attempt(at=9.0, job=J, attempt=2, fence=102, outcome="completed"),
        Attempt(at=9.0, job=K, attempt=1, fence=103, outcome="completed"),
        Terminal(at=9.0, job=J, state="completed", fence=102, finished_at=1005.6, result="42"),
        Terminal(at=9.0, job=K, state="completed", fence=103, finished_at=1007.3, result="7"),
    ]


def never_started() -> History:
    """A job that is canceled before anybody took it up has no attempt."""
    return [
        Submit(at=0.0, key="k", outcome="ok", job=J),
        Terminal(at=9.0, job=J, state="canceled", fence=None, finished_at=1.0),
    ]


def erased() -> History:
    """Etcd is erased: the claim has no deletion, and the next one has the same revision, in another cluster."""
    history = taken_over()
    second = history.index(next(one for one in history if isinstance(one, Unclaim)))
    del history[second]
    return [
        dataclasses.replace(one, cluster=1, revision=10)
        if isinstance(one, Claim) and one.revision == 21
        else dataclasses.replace(one, cluster=1, created=10)
        if isinstance(one, Unclaim) and one.created == 21
        else dataclasses.replace(one, cluster=1)
        if isinstance(one, Claim | Unclaim) and one.job == K
        else one
        for one in history
    ]


@pytest.mark.parametrize("good", [taken_over, never_started, erased], ids=lambda good: good.__name__)
def test_good_histories_pass(good: Callable[[], History]) -> None:
    assert check(good()) == []


def without(history: History, unwanted: Callable[[Event], bool]) -> History:
    return [event for event in history if not unwanted(event)]


def changed(history: History, which: Callable[[Event], bool], **fields: object) -> History:
    assert any(map(which, history)), "the forgery changes nothing"
    return [dataclasses.replace(event, **fields) if which(event) else event for event in history]  # type: ignore[arg-type]


def under(kind: type[Event], fence: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind) and getattr(event, "fence", None) == fence


FORGERIES: dict[str, tuple[str, Callable[[History], History]]] = {
    "an acknowledged job has no end": ("lost", lambda h: without(h, under(Terminal, 103))),
    "a job has two ends": (
        "lost",
        lambda h: [*h, Terminal(at=9.0, job=J, state="failed", fence=102, finished_at=1008.0)],
    ),
    "a job never ends": ("lost", lambda h: [*h, Active(at=9.0, job=K, state="executing")]),
    "two completions are acknowledged": (
        "completed-once",
        lambda h: changed(h, under(Finish, 101), verdict="recorded"),
    ),
    "two completions are recorded": (
        "completed-once",
        lambda h: changed(h, under(Attempt, 101), outcome="completed"),
    ),
    "a completion is acknowledged and not recorded": (
        "completed-once",
        lambda h: changed(h, under(Terminal, 103), state="failed"),
    ),
    "the zombie's result is kept": ("result", lambda h: changed(h, under(Terminal, 102), result="41")),
    "the winner's handler never ended": ("result", lambda h: changed(h, under(Effect, 103), step="tick")),
    "a fence is given twice": ("fence", lambda h: changed(h, under(Start, 101), fence=102)),
    "a fence goes back": ("fence", lambda h: changed(h, under(Start, 102), attempt=1)),
    "an older attempt completes": (
        "fence",
        lambda h: [*h, Start(at=5.0, job=J, attempt=3, fence=200, worker="C", started_at=1005.0)],
    ),
    "a handler works under another job's fence": ("effects", lambda h: changed(h, under(Effect, 103), job=J)),
    "a handler runs without a start": ("effects", lambda h: without(h, under(Start, 103))),
    "a fenced resource takes the zombie's write": (
        "effects",
        lambda h: [*h, Effect(at=6.0, job=J, fence=101, step="tick")],
    ),
    "two claims stand at once": (
        "claims",
        lambda h: without(h, lambda one: isinstance(one, Unclaim) and one.created == 10),
    ),
    "more jobs of a limit are claimed than it says": (
        "limits",
        lambda h: [
            *h,
            Claim(at=5.0, job=K, worker="C", revision=22, lease=3),
            Unclaim(at=5.1, job=K, created=22, revision=23),
        ],
    ),
    "somebody else's claim is deleted": (
        "claims",
        lambda h: changed(h, lambda one: isinstance(one, Unclaim) and one.created == 21, created=10),
    ),
    "a handler outlives its lease": (
        "stops-in-time",
        lambda h: [*h, Effect(at=4.2, job=J, fence=101, step="tick", accepted=False)],
    ),
    "a key stands for two jobs": ("idempotency", lambda h: [*h, Submit(at=0.3, key="k1", outcome="ok", job=K)]),
    "an unanswered submit left a second job": (
        "idempotency",
        lambda h: [*h, Terminal(at=9.0, job="job-3", state="canceled", fence=None, finished_at=1.0, key="k1")],
    ),
    "a child starts before its parent ends": (
        "dependencies",
        lambda h: changed(h, under(Start, 103), started_at=1005.0),
    ),
    "a child starts though its parent failed": (
        "dependencies",
        lambda h: changed(h, under(Terminal, 102), state="failed"),
    ),
    "a refused report is in the record": ("answers", lambda h: changed(h, under(Finish, 103), verdict="lost")),
    "a report is called recorded and is not": (
        "answers",
        lambda h: changed(h, under(Finish, 101), outcome="released", verdict="repeated"),
    ),
    "an attempt is recorded twice": (
        "attempts",
        lambda h: [*h, Attempt(at=9.0, job=J, attempt=1, fence=101, outcome="released")],
    ),
    "an attempt leaves no record": ("attempts", lambda h: without(h, under(Attempt, 101))),
    "an attempt is recorded that never started": (
        "attempts",
        lambda h: [*h, Attempt(at=9.0, job=K, attempt=2, fence=300, outcome="lost")],
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_caught(name: str) -> None:
    expected, forge = FORGERIES[name]
    assert expected in {violation.check for violation in check(forge(taken_over()))}


def test_every_check_has_a_forgery() -> None:
    """A check that has caught nothing is not known to work."""
    for one in CHECKS:
        assert any(
            {violation.check for violation in one(forge(taken_over()))} == {expected}
            for expected, forge in FORGERIES.values()
        ), one.__name__


def test_overlap_is_measured() -> None:
    assert overlaps(taken_over()) == []
    late = [Effect(at=at, job=J, fence=101, step="tick", accepted=False) for at in (5.2, 5.3)]
    (overlap,) = overlaps(sorted([*taken_over(), *late], key=lambda event: event.at))
    assert (overlap.job, overlap.fences, round(overlap.seconds, 3)) == (J, (101, 102), 0.1), "paused from 1.2 to 5.2"


def test_only_a_paused_tree_excuses_a_late_stop() -> None:
    """Of the attempts that were at work on that worker at that time, and of no others."""
    late = Effect(at=4.2, job=J, fence=101, step="tick", accepted=False)
    history = sorted([*taken_over(), late], key=lambda event: event.at)
    assert without_paused_trees(history, "pause-tree") == history
    tree = changed(history, lambda one: isinstance(one, Fault), fault="pause-tree A")
    assert check(tree)
    assert check(without_paused_trees(tree, "pause-tree")) == []
    begun = changed(
        without(tree, lambda one: under(Effect, 101)(one) and one != late), lambda one: one == late, at=6.01
    )
    assert check(begun)
    assert check(without_paused_trees(begun, "pause-tree")) == [], "it had begun, and wrote nothing before the pause"
    elsewhere = changed(history, lambda one: isinstance(one, Fault), fault="pause-tree B")
    assert check(without_paused_trees(elsewhere, "pause-tree"))
    before = changed(tree, lambda one: isinstance(one, Fault), at=0.5)
    assert check(without_paused_trees(before, "pause-tree"))


def test_recovery_is_measured() -> None:
    assert recovery_s(taken_over()) == pytest.approx(1.3)
    assert recovery_s(never_started()) is None
    assert slowest_recovery_s(taken_over()) == pytest.approx(1.3)
    assert slowest_recovery_s(never_started()) == 0.0
    assert longest_silence_s(taken_over()) == 0.0, "one completion was recorded, the other's answer was lost"
    twice = [*taken_over(), Finish(at=9.3, job=J, fence=102, outcome="completed", verdict="recorded")]
    assert longest_silence_s(twice) == pytest.approx(2.0)


def test_a_run_without_its_fault_is_not_exercised() -> None:
    expected = Expected(completions=2, faults=1, lost_attempts=1, refused_reports=1)
    assert vacuity(taken_over(), Expected(refused_writes=1))
    assert vacuity(taken_over(), expected) == []
    calm = without(taken_over(), lambda one: isinstance(one, Fault) or under(Finish, 101)(one))
    assert [violation.text.split(":")[0] for violation in vacuity(calm, expected)] == ["faults", "refused_reports"]
    assert vacuity([], Expected())


def test_histories_survive_the_disk(tmp_path: Path) -> None:
    """Events come back as they were, in the order of time; what a killed writer left of a line is dropped."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, part in ((first, taken_over()[::2]), (second, taken_over()[1::2])):
        recorder = Recorder(path, durable=False)
        for event in part:
            recorder.write(event)
        recorder.close()
    with second.open("a", encoding="utf-8") as file:
        file.write('{"event":"finish","at":3')
    assert sorted(map(to_line, read([first, second]))) == sorted(map(to_line, taken_over()))
    assert [event.at for event in read([first, second])] == sorted(event.at for event in taken_over())


@pytest.mark.parametrize("line", ["", "1", "{}", '{"event":"rumour","at":1}', '{"event":"fault","at":1}', "{"])
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(MalformedHistory):
        from_line(line)


def test_every_event_is_exercised() -> None:
    used = {type(event) for event in taken_over()} | {Active}
    assert used == set(EVENTS.values())
