"""What handlers hand in that is not what it should be: their own attempts fail, and no engine and no report stops."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tenure.model.states import Outcome
from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import define
from tenure.worker.harness import Harness
from tenure.worker.signals import Fail, Park, Reschedule


def _odd(kind: str) -> BaseException:
    match kind:
        case "an exception for a message":
            return Fail(ValueError("inner"))  # type: ignore[arg-type]
        case "a class for a type":
            return Fail("no", type=ValueError)  # type: ignore[arg-type]
        case "ids that are no text":
            return Park([uuid.uuid4()])  # type: ignore[list-item]
        case "a checkpoint that is no text":
            return Park(["a"], checkpoint={"a": 1})  # type: ignore[arg-type]
        case "half a character":
            return Reschedule(1.0, "\ud800")
    broken = Fail("x")
    broken.message = None  # type: ignore[assignment]
    return broken


async def in_a_loop(payload: str, ctx: AsyncContext) -> Any:
    if payload != "fine":
        raise _odd(payload)
    return "done"


def in_a_thread(payload: str, ctx: Context) -> Any:
    if payload != "fine":
        raise _odd(payload)
    return "done"


@pytest.mark.parametrize("function", [in_a_loop, in_a_thread])
async def test_an_odd_outcome_ends_its_own_attempt_alone(function: Any) -> None:
    handler = define("odd", function)
    async with Harness() as harness:
        ends = {
            "an exception for a message": (Outcome.FAILED, "Fail", "inner"),
            "a class for a type": (Outcome.FAILED, "ValueError", "no"),
            "ids that are no text": (Outcome.FAILED, "InvalidPark", "ids"),
            "a checkpoint that is no text": (Outcome.FAILED, "InvalidPark", "JSON"),
            "half a character": (Outcome.RESCHEDULED, "Reschedule", "?"),
            "nothing that can be told": (Outcome.FAILED, "InvalidOutcome", "cannot be told"),
        }
        for payload, (outcome, name, text) in ends.items():
            run = await harness.run(handler, payload)
            assert run.error is not None
            assert (run.outcome, run.error.type) == (outcome, name), payload
            assert text in run.error.message
            assert (await harness.run(handler, "fine")).outcome is Outcome.COMPLETED, f"the engine stopped: {payload}"
