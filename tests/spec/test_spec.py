"""The claim protocol holds in every state that can be reached, and each rule is needed: its mutant is caught."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from tests.spec.explore import TooManyStates, explore
from tests.spec.model import State
from tests.spec.protocol import ClaimProtocol
from tests.spec.rules import Bounds, Rules
from tests.spec.table import README, row
from tests.spec.variants import LIMITS, MUTANTS, PROTOCOL, Variant, run


@pytest.mark.parametrize("setting", PROTOCOL, ids=lambda setting: setting.name)
def test_the_protocol_holds(setting: Variant) -> None:
    result = run(setting)
    assert result.broken is None, result.story()
    assert result.states >= setting.states, "too little was explored to say anything"
    assert row(setting, result) in README.read_text(encoding="utf-8"), "run: python -m tests.spec.table"


@pytest.mark.parametrize("mutant", (*MUTANTS, *LIMITS), ids=lambda mutant: mutant.name)
def test_each_mutant_is_caught(mutant: Variant) -> None:
    result = run(mutant)
    print(result.story())
    assert result.broken == mutant.expected, result.story()
    assert row(mutant, result) in README.read_text(encoding="utf-8"), "run: python -m tests.spec.table"


def test_every_rule_has_a_mutant() -> None:
    """A rule that nobody switches off is not known to be needed."""
    rules = Rules()
    switched = {
        name for mutant in MUTANTS for name in Rules.__slots__ if getattr(mutant.rules, name) != getattr(rules, name)
    }
    assert switched == set(Rules.__slots__)


class Move(NamedTuple):
    """A step of a toy whose states are numbers."""

    label: str
    state: int
    broken: str | None


def test_a_story_is_the_shortest_way() -> None:
    """The explorer itself: breadth first, with the labels in order."""

    def steps(number: int) -> list[Move]:
        return [Move(f"add {by}", number + by, "seven" if number + by == 7 else None) for by in (1, 3)]

    result = explore(0, steps, lambda _number: None)
    assert result.broken == "seven"
    assert len(result.trace) == 3
    assert result.story().startswith("seven is violated after 3 steps")


def test_an_exploration_that_is_cut_short_says_so() -> None:
    protocol = ClaimProtocol(Rules(), Bounds())
    with pytest.raises(TooManyStates):
        explore(protocol.initial(), protocol.steps, protocol.check, limit=100)


def test_a_lost_job_completes_elsewhere() -> None:
    """Vacuity: what is explored includes a job that one worker lost and another completed."""
    protocol = ClaimProtocol(Rules(), Bounds())

    def witness(state: State) -> str | None:
        return "found" if [outcome for _, outcome in state.row.ended] == ["lost", "completed"] else None

    result = explore(protocol.initial(), protocol.steps, witness)
    assert result.broken == "found"
    assert any("vanishes" in label for label in result.trace)
