"""Plain functions in threads: bounded, asked to stop, never killed."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from tests.worker_execute.test_async_engine import call

from tenure.model.clock import SystemClock
from tenure.model.errors import OwnershipLost
from tenure.model.states import Outcome
from tenure.worker.context import Context
from tenure.worker.execute.call import Ended, StopCause
from tenure.worker.execute.thread_engine import ThreadEngine
from tenure.worker.handler import define
from tenure.worker.harness import Harness, Reports


async def test_no_more_than_its_threads_at_once_and_each_ends_once() -> None:
    engine = ThreadEngine(4, SystemClock())
    lock, running, peak = threading.Lock(), 0, 0
    barrier = threading.Barrier(4)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def work() -> int:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        barrier.wait(30)  # passes only if four run together
        with lock:
            running -= 1
        variable.set(variable.get() + 1)
        return variable.get()

    ended: list[Ended] = []
    done = asyncio.Event()

    def on_ended(one: Ended) -> None:
        ended.append(one)
        if len(ended) == 100:
            done.set()

    for _ in range(100):
        engine.begin(call(define("work", work), on_ended))
    async with asyncio.timeout(60):
        await done.wait()
    await engine.close()
    assert peak == 4
    assert {one.result for one in ended} == {"1"}


async def test_asked_to_stop() -> None:
    def waits(ctx: Context) -> None:
        ctx.progress(0.5)
        assert ctx.stopping.wait(30)
        raise RuntimeError(f"{ctx.cause} {ctx.lost.is_set()}")

    handler = define("waits", waits)
    async with Harness() as harness:
        canceled = await harness.run(handler, cancel_after=Reports(1))
        lost = await harness.run(handler, lose_claim_after=Reports(1))
        timed_out = await harness.run(handler, timeout_s=0.05)
    assert canceled.outcome is Outcome.CANCELED
    assert canceled.error is not None
    assert canceled.error.message == "canceled False"
    assert lost.outcome is Outcome.RELEASED
    assert lost.error is not None
    assert lost.error.message == "lost True"
    assert timed_out.outcome is Outcome.TIMED_OUT


async def test_a_zombie_is_refused_and_told() -> None:
    def ignores(ctx: Context) -> bool:
        ctx.progress(0.1)
        while True:
            try:
                ctx.save_checkpoint([1])
            except OwnershipLost:
                return ctx.lost.is_set()

    run = await Harness().run(define("ignores", ignores), lose_claim_after=Reports(1))
    assert run.result is True
    assert run.refused == 1


async def test_stopped_in_the_queue_it_never_runs() -> None:
    engine = ThreadEngine(1, SystemClock())
    go_on = threading.Event()
    ran = []
    loop = asyncio.get_running_loop()
    first: asyncio.Future[Ended] = loop.create_future()
    second: asyncio.Future[Ended] = loop.create_future()
    engine.begin(call(define("blocks", lambda: go_on.wait(30)), first.set_result))
    execution = engine.begin(call(define("never", lambda: ran.append(1)), second.set_result))
    execution.stop(StopCause.RELEASED)
    execution.kill()
    go_on.set()
    assert (await first).outcome is Outcome.COMPLETED
    assert (await second).outcome is Outcome.RELEASED
    assert ran == []
    await engine.close()


async def test_close_does_not_wait_for_ever() -> None:
    engine = ThreadEngine(1, SystemClock())
    began, go_on, ended = threading.Event(), threading.Event(), list[Ended]()

    def blocks() -> None:
        began.set()
        go_on.wait(30)

    engine.begin(call(define("blocks", blocks), ended.append))
    await asyncio.to_thread(began.wait, 30)
    await engine.close(0.05)
    assert ended == []
    go_on.set()


def test_sync_harness_and_children() -> None:
    def parent(payload: dict[str, int], ctx: Context) -> list[str]:
        same = [ctx.submit_child("scan", {"group": 1}), ctx.submit_child("scan", {"group": 1})]
        return [*same, ctx.submit_child("policy", None, ref="policy", depends_on=same)]

    runs = [
        Harness().run_sync(
            define("parent", parent), {"n": 1}, attempt=number, namespace="acme", route="pool-a/x", job_id="1" * 8
        )
        for number in (1, 2)
    ]
    children = [[(c.kind, c.ref, c.namespace, c.route) for c in run.children] for run in runs]
    assert [kind for kind, *_ in children[0]] == ["scan", "scan", "policy"]
    assert children[0][0][1] != children[0][1][1]
    assert [c[1] for c in children[0][:2]] == [c[1] for c in children[1][:2]], "a repeated attempt names them the same"
    assert {c[2:] for c in children[0]} == {("acme", "pool-a/x")}


async def test_without_room_for_a_thread_an_attempt_waits_or_fails_and_the_worker_goes_on() -> None:
    """A handler that uses up the process ids (or the memory, as here) must not end the worker with its neighbours."""
    engine = ThreadEngine(2, SystemClock())
    loop = asyncio.get_running_loop()
    ends: list[asyncio.Future[Ended]] = [loop.create_future() for _ in range(3)]
    go_on = threading.Event()
    usual = threading.stack_size(1 << 46)  # no machine has it: the next thread cannot be started
    try:
        engine.begin(call(define("alone", lambda: None), ends[0].set_result))
        threading.stack_size(usual)
        engine.begin(call(define("blocks", lambda: go_on.wait(30)), ends[1].set_result))
        threading.stack_size(1 << 46)
        engine.begin(call(define("queued", lambda: None), ends[2].set_result))
    finally:
        threading.stack_size(usual)
    failed = await ends[0]
    assert (failed.outcome, failed.retryable) == (Outcome.FAILED, True)
    assert failed.error is not None
    assert failed.error.type == "ThreadNotStarted"
    assert not ends[2].done()
    go_on.set()
    assert [(await end).outcome for end in ends[1:]] == [Outcome.COMPLETED, Outcome.COMPLETED]
    await engine.close()
