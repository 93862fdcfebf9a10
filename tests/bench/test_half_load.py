"""Jobs come when they are to come, answered or not; a stall counts for all that came meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tenure.bench.half_load import _instants, _submit_at


@dataclass
class _Submitted:
    id: str


class _Stalled:
    """A client that answers nobody until everybody has asked."""

    def __init__(self, jobs: int) -> None:
        self._left = jobs
        self._all_asked = asyncio.Event()

    async def submit(self, *what: Any, **how: Any) -> _Submitted:
        self._left -= 1
        if not self._left:
            self._all_asked.set()
        number = self._left
        await self._all_asked.wait()
        return _Submitted(str(number))


def test_instants_are_those_of_a_seed_and_of_the_rate() -> None:
    instants = list(_instants(7, 1_000.0, 10.0))
    assert instants == sorted(_instants(7, 1_000.0, 10.0)) != list(_instants(8, 1_000.0, 10.0))
    assert instants[0] == 0 and instants[-1] < 10e9 and 9_000 < len(instants) < 11_000
    assert list(_instants(1, 0.001, 0.1)) == [0]


async def test_a_job_is_submitted_although_none_was_answered_and_counts_from_its_instant() -> None:
    instants = [0, 1_000_000, 2_000_000, 2_000_000, 5_000_000]
    client: Any = _Stalled(len(instants))
    intended, late_ms = await _submit_at([client], instants)
    first = min(intended.values())
    assert sorted(at - first for at in intended.values()) == instants
    assert len(late_ms) == len(instants)
