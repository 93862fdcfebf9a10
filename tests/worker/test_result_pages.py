"""Where a result is asked of a coordinator that does not know how: it answers a page, or no URL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tenure.model.clock import SystemClock
from tenure.model.errors import NotFound, Unavailable
from tenure.model.states import JobState
from tenure.v1.transfer import Files
from tenure.worker import upload
from tenure.worker.execute.call import SavedResult
from tenure.worker.fetch_result import fetch_result
from tenure.worker.upstream import UpstreamJob

OTHER = UpstreamJob("other", "k", "", JobState.COMPLETED, result_text="1")
ITSELF = UpstreamJob("j", "k", "", JobState.COMPLETED, result_text="2")
NO_URL = UpstreamJob("j", "k", "", JobState.COMPLETED, large=SavedResult(1, "00" * 32))


class Coordinators:
    """Some that answer pages, and perhaps one that knows better; whoever is turned away is not asked again."""

    def __init__(self, *answers: Sequence[UpstreamJob]) -> None:
        self.answers = list(answers)

    async def ask(self, job: str) -> Sequence[UpstreamJob]:
        """Answer."""
        assert job == "j"
        return self.answers[0]

    def turn_away(self) -> None:
        """Go to the next one."""
        self.answers.append(self.answers.pop(0))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_PAUSE_S", 0.05)


async def read(far: Coordinators) -> bytes:
    return await fetch_result(far.ask, Files(), SystemClock(), "j", far.turn_away)


@pytest.mark.parametrize("page", [[OTHER], [OTHER, NO_URL], [NO_URL]])
async def test_another_coordinator_is_asked(page: Sequence[UpstreamJob]) -> None:
    assert await asyncio.wait_for(read(Coordinators(page, page, [ITSELF])), 30) == b"2"


async def test_where_there_is_none_it_is_told() -> None:
    far = Coordinators([], [ITSELF])
    with pytest.raises(NotFound):
        await read(far)
    assert far.answers[0] == [], "it was not turned away"
    with pytest.raises(Unavailable):
        await read(Coordinators([OTHER]))
