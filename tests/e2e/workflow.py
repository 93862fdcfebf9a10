"""Random workflows and what must become of them, told by an evaluator that shares no code with tenure.

The evaluator knows nothing of time: it repeats "what do the ends that are certain make certain?" until nothing new is.
That an answer does not depend on the order in which jobs end is what lets a real run be compared with it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

TRIGGERS = ("all_completed", "all_finished", "any_completed", "any_finished")


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a workflow. ``parents`` are indices; ``fails`` is what its handler does, should it ever run."""

    parents: tuple[int, ...]
    trigger: str
    upstream_failure: str
    fails: bool


def random_workflow(steps: int, seed: int) -> list[Step]:
    """Draw a workflow: shallow and deep parts, fan-ins and fan-outs, many roots."""
    draw = random.Random(seed)
    made: list[Step] = []
    for index in range(steps):
        wanted = draw.choices((0, 1, 2, 3, 8, 40), weights=(8, 40, 30, 15, 6, 1))[0] if index else 0
        near = draw.random() < 0.5  # the neighbourhood gives depth, the whole past gives fan-out
        first = max(0, index - 300) if near else 0
        parents = {draw.randrange(first, index) for _ in range(wanted)}
        made.append(
            Step(
                tuple(sorted(parents)),
                draw.choices(TRIGGERS, weights=(4, 3, 2, 1))[0],
                draw.choice(("cancel", "fail")),
                draw.random() < 0.2,
            )
        )
    return made


def expected_ends(workflow: list[Step]) -> list[str]:
    """Return the state in which each job must end: completed, failed or canceled."""
    children: dict[int, list[int]] = defaultdict(list)
    for index, step in enumerate(workflow):
        for parent in step.parents:
            children[parent].append(index)
    ends: dict[int, str] = {}
    uncertain = set(range(len(workflow)))
    while uncertain:
        looked_at, uncertain = uncertain, set()
        for index in looked_at:
            if index not in ends and (end := _end_of(workflow[index], ends)) is not None:
                ends[index] = end
                uncertain.update(children[index])
    assert len(ends) == len(workflow), "every job of a workflow without cycles ends"
    return [ends[index] for index in range(len(workflow))]


def _end_of(step: Step, ends: dict[int, str]) -> str | None:
    own = "failed" if step.fails else "completed"
    broken = "failed" if step.upstream_failure == "fail" else "canceled"
    known = [ends[parent] for parent in step.parents if parent in ends]
    everything = len(known) == len(step.parents)
    if not step.parents:
        return own
    if step.trigger == "all_completed":
        if set(known) - {"completed"}:
            return broken
        return own if everything else None
    if step.trigger == "any_completed":
        if "completed" in known:
            return own
        return broken if everything else None
    if step.trigger == "any_finished":
        return own if known else None
    return own if everything else None
