"""Judges a history: pure functions from events to violations.

Owns: what the promises of DESIGN.md mean for a run with faults. A check looks at what the run recorded and at nothing
else. Overlap of handlers is measured, not forbidden: nobody can promise that a paused one stops (``overlaps``). A run
in which nothing happened proves nothing: ``vacuity`` says what must have been seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeVar

from tests.chaos.history import (
    Active,
    Attempt,
    Claim,
    Deadline,
    Effect,
    Event,
    Fault,
    Finish,
    Limited,
    Start,
    Submit,
    Terminal,
    Unclaim,
)

History = Sequence[Event]
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept, where."""

    check: str
    job: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.job}: {self.text}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two attempts of a job whose handlers were at work at the same time, by what they wrote themselves."""

    job: str
    fences: tuple[int, int]
    seconds: float


def check(history: History) -> list[Violation]:
    """Return everything that is wrong with a history."""
    return [violation for one in CHECKS for violation in one(history)]


def lost(history: History) -> Iterator[Violation]:
    """Every acknowledged submit has one terminal row at the end; no job is active still, and none came from nowhere."""
    ended = Counter(row.job for row in _of(history, Terminal))
    for submit in _of(history, Submit):
        if submit.outcome == "ok" and not ended[submit.job]:
            yield Violation("lost", submit.job, "acknowledged, and no terminal state at the end")
    for row in _of(history, Active):
        yield Violation("lost", row.job, f"still {row.state} after the quiet")
    for job, rows in ended.items():
        if rows > 1:
            yield Violation("lost", job, f"{rows} terminal states")


def completed_once(history: History) -> Iterator[Violation]:
    """At most one completion is recorded per job, by acknowledgement and by attempts, and it is the row's."""
    told: dict[str, set[int]] = defaultdict(set)
    for finish in _of(history, Finish):
        if finish.outcome == "completed" and finish.verdict in ("recorded", "repeated"):
            told[finish.job].add(finish.fence)
    rows: dict[str, list[int]] = defaultdict(list)
    for attempt in _of(history, Attempt):
        if attempt.outcome == "completed":
            rows[attempt.job].append(attempt.fence)
    final = {row.job: row.fence for row in _of(history, Terminal) if row.state == "completed"}
    for job in sorted({*told, *rows, *final}):
        fences = {*told[job], *rows[job]}
        if len(fences) > 1 or len(rows[job]) > 1:
            yield Violation("completed-once", job, f"completed under fences {sorted([*fences])}, rows {rows[job]}")
        elif fences != {final.get(job)} or len(rows[job]) != 1:
            yield Violation("completed-once", job, f"row {final.get(job)}, told {told[job]}, attempts {rows[job]}")


def result_is_the_winners(history: History) -> Iterator[Violation]:
    """The recorded result is what the handler under the recorded fence returned."""
    returned = {(one.job, one.fence): one.result for one in _of(history, Effect) if one.step == "end"}
    for row in _of(history, Terminal):
        if row.state != "completed" or row.fence is None:
            continue
        handed = returned.get((row.job, row.fence))
        if handed is None:
            yield Violation("result", row.job, f"completed under {row.fence}, whose handler never ended")
        elif handed != row.result:
            yield Violation("result", row.job, f"recorded {row.result!r}, the handler returned {handed!r}")


def fences_grow(history: History) -> Iterator[Violation]:
    """No fence is given twice; fences and attempts of a job grow together; the last one started is what completes."""
    given = Counter(start.fence for start in _of(history, Start))
    by_job: dict[str, list[Start]] = defaultdict(list)
    for start in _of(history, Start):
        by_job[start.job].append(start)
        if given[start.fence] > 1:
            yield Violation("fence", start.job, f"fence {start.fence} was given {given[start.fence]} times")
    for job, starts in by_job.items():
        ordered = sorted(starts, key=lambda start: start.fence)
        for before, after in pairwise(ordered):
            if after.attempt <= before.attempt and after.fence != before.fence:
                text = f"attempt {after.attempt} has fence {after.fence}, attempt {before.attempt} {before.fence}"
                yield Violation("fence", job, text)
    for row in _of(history, Terminal):
        starts = by_job.get(row.job, [])
        newest = max((start.fence for start in starts), default=None)
        if row.state == "completed" and row.fence != newest:
            yield Violation("fence", row.job, f"completed under {row.fence}, but {newest} was started")


def effects_are_fenced(history: History) -> Iterator[Violation]:
    """Handlers work only under fences that were given to that job; a fenced resource never goes back."""
    given = {(start.job, start.fence) for start in _of(history, Start)}
    highest: dict[str, int] = {}
    for effect in _of(history, Effect):
        if (effect.job, effect.fence) not in given:
            yield Violation("effects", effect.job, f"{effect.step} under {effect.fence}, which was never given to it")
        if effect.accepted and effect.fence < highest.get(effect.job, 0):
            text = f"{effect.step} under {effect.fence} was accepted after {highest[effect.job]}"
            yield Violation("effects", effect.job, text)
        if effect.accepted:
            highest[effect.job] = max(effect.fence, highest.get(effect.job, 0))


def claims_do_not_overlap(history: History) -> Iterator[Violation]:
    """In the order of revisions, and within one etcd, a job's claim is put and deleted in turn."""
    events: dict[tuple[int, str], list[tuple[int, Claim | Unclaim]]] = defaultdict(list)
    for event in history:
        if isinstance(event, Claim | Unclaim):
            events[event.cluster, event.job].append((event.revision, event))
    for (_, job), sequence in events.items():
        held = 0
        for revision, event in sorted(sequence, key=lambda pair: (pair[0], isinstance(pair[1], Claim))):
            if isinstance(event, Claim):
                if held:
                    yield Violation("claims", job, f"claimed at {revision} while the claim of {held} stood")
                held = revision
            else:
                if event.created != held:
                    yield Violation("claims", job, f"{event.created} deleted at {revision}, {held or 'none'} stood")
                held = 0


def limits_hold(history: History) -> Iterator[Violation]:
    """In the order of revisions, and within one etcd, no more jobs of a limit are claimed at a time than it says."""
    for limit, most in {one.limit: one.most for one in _of(history, Limited)}.items():
        for cluster, held in _claimed_at_once(history, limit):
            if len(held) > most:
                text = f"{len(held)} jobs of {limit} are claimed in etcd {cluster}, {most} may be: {sorted(held)}"
                yield Violation("limits", min(held), text)


def most_at_once(history: History, limit: str) -> int:
    """Return how many jobs of a limit were claimed at a time at most."""
    return max((len(held) for _, held in _claimed_at_once(history, limit)), default=0)


def _claimed_at_once(history: History, limit: str) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield the jobs of a limit that are claimed, after each change, with the etcd's number."""
    limited = {submit.job for submit in _of(history, Submit) if submit.limit == limit and submit.job}
    changes = [event for event in history if isinstance(event, Claim | Unclaim) and event.job in limited]
    held: dict[int, frozenset[str]] = defaultdict(frozenset)
    for event in sorted(changes, key=lambda event: (event.cluster, event.revision, isinstance(event, Claim))):
        before = held[event.cluster]
        held[event.cluster] = before | {event.job} if isinstance(event, Claim) else before - {event.job}
        yield event.cluster, held[event.cluster]


def stops_in_time(history: History) -> Iterator[Violation]:
    """A handler whose deadlines were recorded does nothing after the last of them."""
    deadlines: dict[tuple[str, int], float] = {}
    for one in _of(history, Deadline):
        deadlines[one.job, one.fence] = max(one.expires_at, deadlines.get((one.job, one.fence), 0.0))
    for effect in _of(history, Effect):
        until = deadlines.get((effect.job, effect.fence))
        if until is not None and effect.at > until:
            text = f"{effect.step} under {effect.fence} {effect.at - until:.3f} s after its lease could expire"
            yield Violation("stops-in-time", effect.job, text)


def one_job_per_key(history: History) -> Iterator[Violation]:
    """An idempotency key stands for one job, by what clients were told and by the rows (of unanswered submits, too)."""
    jobs: dict[str, set[str]] = defaultdict(set)
    for submit in _of(history, Submit):
        if submit.outcome == "ok":
            jobs[submit.key].add(submit.job)
    for row in history:
        if isinstance(row, Terminal | Active) and row.key:
            jobs[row.key].add(row.job)
    for key, found in jobs.items():
        if len(found) > 1:
            yield Violation("idempotency", min(found), f"key {key} stands for {sorted(found)}")


def parents_come_first(history: History) -> Iterator[Violation]:
    """A job starts after its parents completed, by Postgres' clock."""
    ended = {row.job: row for row in _of(history, Terminal)}
    parents = {submit.job: submit.parents for submit in _of(history, Submit) if submit.outcome == "ok"}
    for start in _of(history, Start):
        for parent in parents.get(start.job, ()):
            row = ended.get(parent)
            if row is None or row.state != "completed" or row.finished_at > start.started_at:
                yield Violation("dependencies", start.job, f"started before its parent {parent} had completed")


def answers_are_true(history: History) -> Iterator[Violation]:
    """A report is called recorded if and only if it is in the record."""
    rows = {(attempt.job, attempt.fence): attempt.outcome for attempt in _of(history, Attempt)}
    for finish in _of(history, Finish):
        recorded = rows.get((finish.job, finish.fence))
        if finish.verdict in ("recorded", "repeated") and recorded != finish.outcome:
            text = f"{finish.outcome} under {finish.fence} was called {finish.verdict}; the record says {recorded}"
            yield Violation("answers", finish.job, text)
        if finish.verdict == "lost" and recorded == finish.outcome:
            text = f"{finish.outcome} under {finish.fence} was refused, and is in the record"
            yield Violation("answers", finish.job, text)


def attempts_recorded_once(history: History) -> Iterator[Violation]:
    """Every started attempt ends once in the record, and nothing is recorded that did not start."""
    recorded = Counter((attempt.job, attempt.fence) for attempt in _of(history, Attempt))
    started = {(start.job, start.fence) for start in _of(history, Start)}
    for (job, fence), rows in recorded.items():
        if rows > 1:
            yield Violation("attempts", job, f"the attempt under {fence} is recorded {rows} times")
        if (job, fence) not in started:
            yield Violation("attempts", job, f"the attempt under {fence} is recorded and never started")
    for job, fence in sorted(started - recorded.keys()):
        yield Violation("attempts", job, f"the attempt under {fence} started, and its end is not in the record")


CHECKS: tuple[Callable[[History], Iterator[Violation]], ...] = (
    lost,
    completed_once,
    result_is_the_winners,
    fences_grow,
    effects_are_fenced,
    claims_do_not_overlap,
    limits_hold,
    stops_in_time,
    one_job_per_key,
    parents_come_first,
    answers_are_true,
    attempts_recorded_once,
)


# -- what is measured, and whether the run was worth judging --


AT_WORK_S = 1.0
"""Handlers write ten times a second: one that wrote nothing for this long was paused, not at work."""


def overlaps(history: History) -> list[Overlap]:
    """Return, for each two attempts of a job, how long both handlers were at work, where they were."""
    spans: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for effect in _of(history, Effect):
        known = spans[effect.job][effect.fence]
        if known and effect.at - known[-1][1] <= AT_WORK_S:
            known[-1] = (known[-1][0], effect.at)
        else:
            known.append((effect.at, effect.at))
    found = []
    for job, by_fence in spans.items():
        for (fence, one), (other, two) in combinations(sorted(by_fence.items()), 2):
            shared = [
                min(end, other_end) - max(begin, other_begin) for begin, end in one for other_begin, other_end in two
            ]
            if together := [seconds for seconds in shared if seconds >= 0]:
                found.append(Overlap(job, (fence, other), sum(together)))
    return found


def without_paused_trees(history: History, fault: str) -> list[Event]:
    """Return the history without the deadlines of attempts that nobody could stop in time.

    While a worker is paused with its watchdog and its handlers' processes (``fault``, then its id), nobody is there to
    kill; the fence has to do. What was at work on it in that time is excused, and nothing else.
    """
    paused: dict[str, list[tuple[float, float]]] = defaultdict(list)
    begun: dict[str, float] = {}
    for event in _of(history, Fault):
        if event.fault.startswith(f"{fault} "):
            if event.step == "begin":
                begun[event.fault] = event.at
            else:
                paused[event.fault.partition(" ")[2]].append((begun.get(event.fault, 0.0), event.at))
    spans: dict[int, tuple[float, float]] = {}
    for one in history:
        if isinstance(one, Deadline | Effect):  # it is at work from its first deadline on, before it writes anything
            spans[one.fence] = (spans.get(one.fence, (one.at,))[0], one.at)
    excused = {
        start.fence
        for start in _of(history, Start)
        for begin, end in paused.get(start.worker, ())
        if start.fence in spans and spans[start.fence][0] <= end and spans[start.fence][1] >= begin
    }
    return [event for event in history if not (isinstance(event, Deadline) and event.fence in excused)]


def recovery_s(history: History) -> float | None:
    """Return the seconds from the end of the last fault to the next completion; None if there was none of either."""
    healed = max((fault.at for fault in _of(history, Fault) if fault.step == "end"), default=None)
    if healed is None:
        return None
    done = (one.at for one in _of(history, Finish) if one.outcome == "completed" and one.verdict == "recorded")
    return min((at - healed for at in done if at >= healed), default=None)


def slowest_recovery_s(history: History) -> float:
    """Return the longest time from the end of a fault to the next completion; 0 if there was none of either."""
    done = sorted(one.at for one in _of(history, Finish) if one.outcome == "completed" and one.verdict == "recorded")
    slowest = 0.0
    for fault in _of(history, Fault):
        place = bisect_left(done, fault.at)
        if fault.step == "end" and place < len(done):
            slowest = max(slowest, done[place] - fault.at)
    return slowest


def longest_silence_s(history: History) -> float:
    """Return the longest time without a completion, from the first to the last."""
    done = sorted(one.at for one in _of(history, Finish) if one.outcome == "completed" and one.verdict == "recorded")
    return max((after - before for before, after in pairwise(done)), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a run must have seen, or it was not exercised."""

    completions: int = 1
    faults: int = 0
    lost_attempts: int = 0
    refused_reports: int = 0
    """Late reports of zombies: where workers were paused there must be some."""
    refused_writes: int = 0
    """Writes of zombies to a resource that compares fences."""


def vacuity(history: History, expected: Expected) -> list[Violation]:
    """Return what did not happen often enough for the run to mean anything."""
    seen = {
        "completions": sum(row.state == "completed" for row in _of(history, Terminal)),
        "faults": sum(fault.step == "begin" for fault in _of(history, Fault)),
        "lost_attempts": sum(attempt.outcome == "lost" for attempt in _of(history, Attempt)),
        "refused_reports": sum(finish.verdict == "lost" for finish in _of(history, Finish)),
        "refused_writes": sum(not effect.accepted for effect in _of(history, Effect)),
    }
    return [
        Violation("vacuity", "-", f"{name}: {count} seen, {getattr(expected, name)} expected at least")
        for name, count in seen.items()
        if count < getattr(expected, name)
    ]


def _of(history: History, kind: type[E]) -> Iterator[E]:
    return (event for event in history if isinstance(event, kind))
