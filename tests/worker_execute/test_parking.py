"""Parking and upstream results, in each mode that has a context: the same rules, and the same words on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from tests.worker_execute import sample_handlers as sample

from tenure.model.states import JobState, Outcome
from tenure.worker.execute.call import ErrorReport
from tenure.worker.harness import Harness
from tenure.worker.upstream import UpstreamJob

MODES = [sample.parks_async, sample.parks_in_a_thread, sample.parks_in_a_process]
MANY = 250


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Harness(modules=[sample.__name__]) as made:
        yield made


@pytest.mark.parametrize("handler", MODES)
async def test_it_parks_on_what_it_submitted(harness: Harness, handler: Callable[..., Any]) -> None:
    run = await harness.run(handler, 3)
    assert run.outcome is Outcome.PARKED
    assert run.error is None
    assert run.ended.park is not None
    assert len(run.ended.park.children) == len(run.children) == 3
    assert (run.ended.park.checkpoint, run.ended.park.trigger) == ('{"parts":3}', "all_finished")


@pytest.mark.parametrize("handler", MODES)
async def test_it_resumes_with_what_became_of_them(harness: Harness, handler: Callable[..., Any]) -> None:
    """More than a page of them, in order, with results and errors."""
    upstream = [UpstreamJob(f"{n:04}", "k", f"part-{n}", JobState.COMPLETED, str(n)) for n in range(MANY)]
    error = ErrorReport("ValueError", "no", "trace", ("Exception",))
    upstream.append(UpstreamJob(f"{MANY:04}", "k", "bad", JobState.FAILED, None, error, "error 1 of 1"))
    run = await harness.run(handler, 3, attempt=2, checkpoint={"parts": 3}, parked_attempt=1, upstream=upstream)
    assert run.result == {
        "sum": sum(range(MANY)),
        "failed": ["bad: ValueError: no"],
        "checkpoint": {"parts": 3},
        "ids": [job.id for job in upstream],
    }


@pytest.mark.parametrize("handler", MODES)
async def test_a_checkpoint_that_is_too_large_fails_the_attempt(harness: Harness, handler: Callable[..., Any]) -> None:
    run = await harness.run(handler, -1)
    assert (run.outcome, run.ended.park) == (Outcome.FAILED, None)
    assert run.error is not None
    assert run.error.type == "InvalidInput"
