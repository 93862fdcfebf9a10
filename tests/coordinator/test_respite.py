"""The pause after a term that failed: it grows while terms fail at once, and is short again after one that lasted."""

from __future__ import annotations

from tenure.coordinator.leader import MAX_RESPITE_S, RESPITE_S, next_respite_s


def test_terms_that_fail_at_once_are_ever_rarer_up_to_a_bound() -> None:
    pauses = [RESPITE_S]
    for _ in range(10):
        pauses.append(next_respite_s(pauses[-1], 0.1))
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == pauses[-2] == MAX_RESPITE_S


def test_a_term_that_lasted_is_followed_soon() -> None:
    assert next_respite_s(MAX_RESPITE_S, 60.0) == RESPITE_S
