"""Async handlers on the handler loop: isolation from each other and from the control loop, stopping, throughput."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenure.model.clock import SystemClock
from tenure.model.errors import OwnershipLost
from tenure.model.states import Outcome
from tenure.worker.artifact import Artifact, Source
from tenure.worker.context import AsyncContext
from tenure.worker.execute.async_engine import AsyncEngine
from tenure.worker.execute.call import Assignment, Call, Ended, StopCause
from tenure.worker.handler import Fail, Handler, Reschedule, define
from tenure.worker.harness import Harness, Reports
from tenure.worker.upstream import UpstreamPage


class Trusted:
    """A reporter that is never lost and keeps nothing."""

    def deadline(self) -> float:
        return float("inf")

    async def progress(self, fraction: float, message: str) -> None: ...

    async def save_checkpoint(self, text: str) -> None: ...

    async def submit_children(self, jobs: Any) -> list[str]:
        return []

    async def read_upstream(self, after: str) -> UpstreamPage:
        return UpstreamPage(())

    async def load_result(self, job: str) -> bytes:
        raise OwnershipLost("old fence")

    async def save_artifact(self, name: str, source: Source, content_type: str) -> Artifact:
        raise NotImplementedError


def call(handler: Handler, on_ended: Callable[[Ended], None], payload: str = "null") -> Call:
    return Call(handler, Assignment("job", 1, 1, "default", handler.kind, "default", payload), Trusted(), on_ended)


async def drain(engine: AsyncEngine, handlers: list[Handler]) -> list[Ended]:
    """Run one attempt per handler, all at once."""
    ended: list[Ended] = []
    done = asyncio.Event()
    control = threading.get_ident()

    def on_ended(one: Ended) -> None:
        assert threading.get_ident() == control
        ended.append(one)
        if len(ended) == len(handlers):
            done.set()

    for handler in handlers:
        engine.begin(call(handler, on_ended))
    async with asyncio.timeout(60):
        await done.wait()
    return ended


@pytest.fixture
async def engine() -> Any:
    engine = AsyncEngine(SystemClock())
    yield engine
    await engine.close()


async def test_many_attempts_each_end_once(engine: AsyncEngine) -> None:
    async def quick() -> int:
        return 1

    async def slow() -> int:
        await asyncio.sleep(0)
        return 2

    async def slower() -> int:
        await asyncio.sleep(0.01)
        return 3

    kinds = [define("quick", quick), define("slow", slow), define("slower", slower)]
    ended = await drain(engine, [kinds[i % 3] for i in range(6_000)])
    assert sorted(one.result or "" for one in ended) == ["1"] * 2_000 + ["2"] * 2_000 + ["3"] * 2_000


async def test_a_handler_sees_the_loop_as_in_any_task(engine: AsyncEngine) -> None:
    tasks = set()

    async def uses_tasks() -> str:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        tasks.add(id(task))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(5)
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
        return child.result()

    ended = await drain(engine, [define("uses-tasks", uses_tasks)] * 20)
    assert {one.result for one in ended} == {'"child"'}


async def test_context_variables_do_not_leak(engine: AsyncEngine) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def bump() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    ended = await drain(engine, [define("bump", bump)] * 200)
    assert {one.result for one in ended} == {"1"}


async def test_a_cancellation_never_hits_the_next_attempt(engine: AsyncEngine) -> None:
    async def poisons() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def innocent() -> str:
        await asyncio.sleep(0)
        return "fine"

    kinds = [define("poisons", poisons), define("innocent", innocent)]
    ended = await drain(engine, kinds * 50)
    assert [one.result for one in ended].count('"fine"') == 50


@pytest.mark.parametrize("error", [SystemExit("out"), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
async def test_whatever_is_raised_ends_only_its_attempt(engine: AsyncEngine, error: BaseException) -> None:
    async def raises() -> None:
        raise error

    async def innocent() -> None: ...

    ended = await drain(engine, [define("raises", raises), define("innocent", innocent)])
    assert sorted(one.outcome for one in ended) == [Outcome.COMPLETED, Outcome.FAILED]
    reports = [one.error.type for one in ended if one.error]
    assert reports == [type(error).__name__]


async def test_a_blocking_handler_does_not_block_the_control_loop(engine: AsyncEngine) -> None:
    began, go_on = threading.Event(), threading.Event()

    async def blocks() -> None:
        began.set()
        go_on.wait(30)

    ended: list[Ended] = []
    engine.begin(call(define("blocks", blocks), ended.append))
    await asyncio.to_thread(began.wait, 30)
    # The control loop runs (this very coroutine) while the handler loop is stuck.
    for _ in range(100):
        await asyncio.sleep(0)
    assert ended == []
    go_on.set()


async def test_stopped_before_it_began(engine: AsyncEngine) -> None:
    began, go_on = threading.Event(), threading.Event()
    ran = []

    async def blocks() -> None:
        began.set()
        go_on.wait(30)

    async def never() -> None:
        ran.append(1)

    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    engine.begin(call(define("blocks", blocks), lambda _: None))
    await asyncio.to_thread(began.wait, 30)
    execution = engine.begin(call(define("never", never), ended.set_result))
    execution.stop(StopCause.CANCELED)
    execution.stop(StopCause.RELEASED)
    go_on.set()
    assert (await ended).outcome in (Outcome.CANCELED, Outcome.COMPLETED)


async def test_close_releases_what_runs() -> None:
    engine = AsyncEngine(SystemClock())
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def sleeps() -> None:
        loop.call_soon_threadsafe(began.set)
        await asyncio.sleep(60)

    ended: list[Ended] = []
    engine.begin(call(define("sleeps", sleeps), ended.append))
    await began.wait()
    await engine.close()
    assert [one.outcome for one in ended] == [Outcome.RELEASED]


async def test_close_abandons_a_handler_that_will_not_stop() -> None:
    engine = AsyncEngine(SystemClock())
    go_on = threading.Event()
    ended: list[Ended] = []
    began = threading.Event()

    async def blocks() -> None:
        began.set()
        go_on.wait(30)

    engine.begin(call(define("blocks", blocks), ended.append))
    await asyncio.to_thread(began.wait, 30)
    before = time.monotonic()
    await engine.close(0.1)
    assert time.monotonic() - before < 10
    assert ended == [], "nobody may be told that a handler which still runs has ended"
    go_on.set()


async def test_causes_and_what_the_handler_sees() -> None:
    async def waits(ctx: AsyncContext) -> None:
        try:
            await ctx.progress(0.5)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ctx.log.info("told", cause=ctx.cause, stopping=ctx.stopping.is_set(), lost=ctx.lost.is_set())
            raise

    handler = define("waits", waits)
    async with Harness() as harness:
        canceled = await harness.run(handler, cancel_after=Reports(1))
        lost = await harness.run(handler, lose_claim_after=Reports(1))
        released = await harness.run(handler, release_after=Reports(1))
        timed_out = await harness.run(handler, timeout_s=0.05)
    runs = [canceled, lost, released, timed_out]
    assert [run.outcome for run in runs] == [
        Outcome.CANCELED,
        Outcome.RELEASED,
        Outcome.RELEASED,
        Outcome.TIMED_OUT,
    ]
    assert [(run.logs[0]["cause"], run.logs[0]["lost"]) for run in runs] == [
        ("canceled", False),
        ("lost", True),
        ("released", False),
        ("timed_out", False),
    ]
    assert all(run.logs[0]["stopping"] for run in runs)


async def test_a_handler_that_finishes_although_told_to_stop_has_completed() -> None:
    async def finishes(ctx: AsyncContext) -> str:
        try:
            await ctx.progress(0.5)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "done"

    run = await Harness().run(define("finishes", finishes), cancel_after=Reports(1))
    assert (run.outcome, run.result) == (Outcome.COMPLETED, "done")


async def test_a_refused_write_says_that_the_claim_is_lost() -> None:
    async def writes(ctx: AsyncContext) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # it may come before the answer
            await ctx.progress(0.5)
        while True:
            try:
                await ctx.save_checkpoint({"n": 1})
            except OwnershipLost:
                assert ctx.lost.is_set()
                assert ctx.cause is StopCause.LOST
                raise
            except asyncio.CancelledError:
                continue  # stubborn: it goes on, and learns it from the refusal

    run = await Harness().run(define("writes", writes), lose_claim_after=Reports(1))
    assert run.outcome is Outcome.RELEASED
    assert run.refused >= 1


async def test_results_and_requests() -> None:
    async def asks(payload: str, ctx: AsyncContext) -> Any:
        match payload:
            case "return later":
                return Reschedule(2.5, "not yet")
            case "raise later":
                raise Reschedule(2.5)
            case "ask later":
                ctx.reschedule(2.5, "not yet", spend_budget=True)
            case "fail":
                raise Fail("no use", type="Gone")
            case "fail softly":
                return Fail("try again", retryable=True)
            case "nan":
                return {"x": float("nan"), "t": (1, 2)}
            case "nul":
                return "a\0b"
            case "large":
                return "x" * (16 * 1024 * 1024)
            case "object":
                return object()
        raise ValueError("\0 \ud800 odd " + "y" * 20_000)

    handler = define("asks", asks)
    async with Harness() as harness:
        runs = {name: await harness.run(handler, name) for name in (
            "return later", "raise later", "ask later", "fail", "fail softly", "nan", "nul", "large", "object", "other"
        )}  # fmt: skip
    later = (runs["return later"], runs["raise later"], runs["ask later"])
    assert {(r.outcome, r.ended.delay_s) for r in later} == {(Outcome.RESCHEDULED, 2.5)}
    assert [r.ended.spends_budget for r in later] == [False, False, True]
    errors = {name: (run.error.type, run.ended.retryable) for name, run in runs.items() if run.error}
    assert errors["fail"] == ("Gone", False)
    assert errors["fail softly"] == ("Fail", True)
    assert errors["nul"] == ("InvalidResult", False)
    assert errors["large"] == ("ResultTooLarge", False)
    assert errors["object"] == ("InvalidResult", False)
    assert errors["other"] == ("ValueError", True)
    assert runs["nan"].result == {"x": None, "t": [1, 2]}
    other = runs["other"].error
    assert other is not None
    assert len(other.message) <= 8_192
    assert "\0" not in other.message
    other.message.encode()
    assert "async_engine.py" not in other.traceback.replace("test_async_engine.py", ""), (
        "the engine's own frames are of no interest to the user"
    )
