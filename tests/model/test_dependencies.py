"""Verdicts on jobs that wait for others: every trigger, any counts, and any order in which the parents end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.dependencies import Trigger, Verdict, verdict

ENDS = st.lists(st.booleans(), max_size=12)
"""For each parent whether it completes."""


def _judge(trigger: Trigger, ends: list[bool], *, ended: int) -> Verdict:
    seen = ends[:ended]
    return verdict(trigger, left=len(ends) - ended, completed=sum(seen), otherwise=ended - sum(seen))


def _met(trigger: Trigger, ends: list[bool]) -> bool:
    """Say whether a trigger is met once all have ended, in other words than the rule's."""
    wanted = {
        Trigger.ALL_COMPLETED: False not in ends,
        Trigger.ALL_FINISHED: True,
        Trigger.ANY_COMPLETED: True in ends or ends == [],
        Trigger.ANY_FINISHED: True,
    }
    return wanted[trigger]


@given(trigger=st.sampled_from(Trigger), ends=ENDS)
def test_a_verdict_is_right_once_all_have_ended(trigger: Trigger, ends: list[bool]) -> None:
    assert _judge(trigger, ends, ended=len(ends)) is (Verdict.RUN if _met(trigger, ends) else Verdict.BROKEN)


@given(trigger=st.sampled_from(Trigger), ends=ENDS, data=st.data())
def test_a_verdict_is_final(trigger: Trigger, ends: list[bool], data: st.DataObject) -> None:
    early = _judge(trigger, ends, ended=data.draw(st.integers(0, len(ends))))
    assert early in (Verdict.WAIT, _judge(trigger, ends, ended=len(ends)))


@pytest.mark.parametrize(
    ("trigger", "ends", "decided_by"),
    [
        (Trigger.ALL_COMPLETED, [True, True, True], 3),
        (Trigger.ALL_COMPLETED, [True, False, True], 2),
        (Trigger.ALL_FINISHED, [False, True, False], 3),
        (Trigger.ANY_COMPLETED, [False, True, False], 2),
        (Trigger.ANY_COMPLETED, [False, False, False], 3),
        (Trigger.ANY_FINISHED, [False, True, True], 1),
    ],
)
def test_nobody_waits_longer_than_the_trigger_needs(trigger: Trigger, ends: list[bool], decided_by: int) -> None:
    verdicts = [_judge(trigger, ends, ended=ended) for ended in range(len(ends) + 1)]
    assert verdicts[:decided_by] == [Verdict.WAIT] * decided_by
    assert Verdict.WAIT not in verdicts[decided_by:]
