"""A short chaos run in the test suite: one of each fault that makes zombies, and a few that do not.

The long mixtures are ``make chaos``. The plan is the same each time; what happens is not, and has to be right.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from rich.console import Console
from tests.chaos.nemesis import FAULTS, plan
from tests.chaos.network import why_not
from tests.chaos.run import Settings, run, show

SEED = 8
SECONDS = 50.0
LOCAL = ("pause-worker", "pause-worker", "kill-worker", "kill-leader", "kill-postgres", "pause-worker-tree")
PARTITIONS = () if why_not() else ("cut-worker-etcd", "lose-etcd-to-worker")


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_short_mixture_of_faults_breaks_no_promise(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "run", SEED, SECONDS, (*LOCAL, *PARTITIONS), rate=15.0, workers=3)
    console = Console(width=120, highlight=False)
    result = run(settings, console)
    show(result, console)
    assert (result.violations, result.not_exercised) == ([], [])


def test_a_plan_is_its_seeds_alone_and_tries_everything() -> None:
    first, again, other = (plan(random.Random(seed), list(FAULTS), 600.0) for seed in (1, 1, 2))
    assert first == again != other
    assert {step.fault for step in first} == set(FAULTS)
    assert all(step.at_s + step.seconds <= 600.0 for step in first)


def test_a_plan_has_at_most_two_faults_at_once() -> None:
    steps = plan(random.Random(3), list(FAULTS), 600.0)
    for step in steps:
        assert sum(one.at_s <= step.at_s < one.at_s + one.seconds for one in steps) <= 2
