"""Process handlers: what they are given, every way in which they end, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.worker_execute import sample_handlers as sample
from tests.worker_execute.processes import is_running, wait_until_gone
from tests.worker_execute.test_async_engine import Trusted

from tenure.model.clock import SystemClock
from tenure.model.errors import OwnershipLost
from tenure.model.logs import LogLine
from tenure.model.states import JobState, Outcome
from tenure.worker.execute.call import Assignment, Call, Ended, StopCause
from tenure.worker.execute.engines import Engines
from tenure.worker.execute.forkserver import start_forkserver
from tenure.worker.execute.spool import spooled
from tenure.worker.handler import Registry, definitions_of
from tenure.worker.harness import Harness, Reports
from tenure.worker.upstream import UpstreamJob


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Harness(modules=[sample.__name__], stop_grace_s=0.5) as one:
        yield one


async def test_runs_in_a_session_of_its_own(harness: Harness) -> None:
    run = await harness.run(sample.plain, {"width": 3}, checkpoint={"at": 1})
    assert run.result["width"] == 3
    assert run.result["checkpoint"] == {"at": 1}
    assert run.result["pid"] == run.result["sid"] != os.getpid()
    wait_until_gone(run.result["pid"])


async def test_async_class_environment_and_requests(harness: Harness) -> None:
    run = await harness.run(sample.coroutine, {"width": 3})
    assert (run.result, run.progress) == (3, [(0.5, "half")])
    assert (await harness.run(sample.CountedInProcess, {"width": 3})).result == 1
    known = (await harness.run(sample.environment, job_id="abc", attempt=4)).result
    assert (known["TENURE_JOB_ID"], known["TENURE_ATTEMPT"]) == ("abc", "4")
    run = await harness.run(sample.requests, namespace="acme")
    assert run.progress == [(0.25, "begun")]
    assert run.checkpoints == [{"row": 7}]
    assert [(c.kind, c.payload, c.priority, c.namespace) for c in run.children] == [("noop", '{"n":1}', 3, "acme")]
    assert len(run.result) == 36


async def test_a_payload_that_does_not_fit(harness: Harness) -> None:
    for handler in (sample.plain, sample.coroutine):
        run = await harness.run(handler, {"width": "wide"})
        assert run.error is not None
        assert run.error.type == "InvalidPayload"
        assert "width" in run.error.message
        assert not run.ended.retryable


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (sample.segfault, "SIGSEGV"),
        (sample.vanish, "exit code 5"),
        (sample.killed, "out of memory?"),
    ],
)
async def test_a_process_that_dies_has_failed(harness: Harness, handler: Callable[..., Any], says: str) -> None:
    run = await harness.run(handler)
    assert (run.outcome, run.ended.retryable) == (Outcome.FAILED, True)
    assert run.error is not None
    assert run.error.type == "ProcessDied"
    assert says in run.error.message


async def test_what_it_has_put_aside_for_the_worker_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with Harness(modules=[sample.__name__], stop_grace_s=0.5) as harness:
        run = await harness.run(sample.saves_and_dies)
        assert run.outcome is Outcome.FAILED
    assert [name for name in os.listdir(tmp_path) if name.startswith("tenure-artifacts-")] == []


async def test_a_slow_disk_under_a_result_that_it_reads_holds_up_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the worker's, which keeps claims alive, nor that of processes; and what comes too late is not left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads: list[str] = []
    may_write = threading.Event()

    def slowly(data: bytes, folder: Path) -> Path:
        threads.append(threading.current_thread().name)
        assert may_write.wait(30)
        return spooled(data, folder)

    monkeypatch.setattr("tenure.worker.execute.process_engine.spooled", slowly)
    upstream = [UpstreamJob("j", "k", "", JobState.COMPLETED, result_text="1" * 100_000)]
    async with Harness(modules=[sample.__name__], stop_grace_s=0.5) as harness:
        run = await harness.run(sample.reads_large_and_dies, upstream=upstream)
        assert run.outcome is Outcome.FAILED, "both loops go on meanwhile"
        may_write.set()
        run = await harness.run(sample.reads_large, upstream=upstream)
        assert run.result == 100_000

        def are_left() -> list[str]:
            return [name for name in os.listdir(tmp_path) if name.startswith("tenure-artifacts-")]

        async with asyncio.timeout(30):
            while are_left():  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.02)
    assert len(threads) == 2 and not {"MainThread", "tenure-processes"} & set(threads)


async def test_raised_and_returned(harness: Harness) -> None:
    assert (await harness.run(sample.raises, "fail")).ended.retryable is False
    assert (await harness.run(sample.raises, "key")).ended.retryable is False
    assert (await harness.run(sample.raises, "value")).ended.retryable is True
    later = await harness.run(sample.raises, "later")
    assert (later.outcome, later.ended.delay_s, later.ended.spends_budget) == (Outcome.RESCHEDULED, 3.5, False)
    assert (await harness.run(sample.raises, "spend")).ended.spends_budget is True
    key = (await harness.run(sample.raises, "key")).error
    assert key is not None
    assert (key.type, key.bases) == ("KeyError", ("LookupError", "Exception", "BaseException"))
    for handler, type_ in [
        (sample.exits, "SystemExit"),
        (sample.huge, "ResultTooLarge"),
        (sample.unserialisable, "InvalidResult"),
    ]:
        run = await harness.run(handler)
        assert run.error is not None
        assert run.error.type == type_


async def test_asked_to_stop_it_may_finish(harness: Harness) -> None:
    canceled = await harness.run(sample.polite, cancel_after=Reports(1))
    assert (canceled.outcome, canceled.result) == (Outcome.COMPLETED, "canceled, lost: False")
    lost = await harness.run(sample.polite, lose_claim_after=Reports(1))
    assert lost.result in ("lost, lost: True", None)


async def test_without_a_context_it_is_interrupted(harness: Harness, tmp_path: Path) -> None:
    note = tmp_path / "note"
    run = await harness.run(
        sample.interrupted, str(note), cancel_after=lambda: note.exists() and note.read_text() != ""
    )
    assert run.outcome is Outcome.CANCELED
    assert note.read_text() == "cleaned up"


async def test_a_coroutine_is_cancelled_and_cleans_up(harness: Harness, tmp_path: Path) -> None:
    run = await harness.run(sample.cancelled, str(tmp_path / "note"), cancel_after=Reports(1))
    assert run.outcome is Outcome.CANCELED
    assert (tmp_path / "note").read_text() == "cleaned up: canceled"


async def test_a_stubborn_one_is_killed(harness: Harness) -> None:
    run = await harness.run(sample.stubborn, cancel_after=Reports(1))
    assert run.outcome is Outcome.CANCELED
    assert run.error is not None
    assert "killed" in run.error.message
    assert not is_running(int(run.progress[0][1]))


async def test_kill_needs_no_stop(harness: Harness) -> None:
    run = await harness.run(sample.stubborn, kill_after=Reports(1))
    assert (run.outcome, run.error and run.error.type) == (Outcome.FAILED, "ProcessDied")


async def test_a_stopped_process_is_killed_too() -> None:
    handler = definitions_of(sample.stubborn)[0]
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()
    ended: asyncio.Future[Ended] = loop.create_future()

    class Telling(Trusted):
        async def progress(self, fraction: float, message: str) -> None:
            told.set_result(int(message))

    engines = Engines(Registry([handler]), stop_grace_s=0.3)
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    execution = engines.begin(Call(handler, assignment, Telling(), ended.set_result))
    pid = await told
    os.kill(pid, signal.SIGSTOP)
    execution.stop(StopCause.TIMED_OUT)
    assert (await ended).outcome is Outcome.TIMED_OUT
    assert not is_running(pid)
    await engines.close()


async def test_its_descendants_die_with_it(harness: Harness, tmp_path: Path) -> None:
    """In its group, in a session of their own, and daemons."""
    run = await harness.run(sample.parent, str(tmp_path / "daemon"), cancel_after=Reports(1))
    pids = [int(word) for word in run.progress[0][1].split()]
    assert len(pids) == 4
    for pid in pids:
        wait_until_gone(pid)


async def test_what_it_leaves_behind_is_killed(harness: Harness) -> None:
    run = await harness.run(sample.leaver)
    assert run.outcome is Outcome.COMPLETED
    wait_until_gone(run.result)


async def test_a_thread_does_not_keep_it(harness: Harness) -> None:
    assert (await harness.run(sample.linger)).result == "done"


async def test_back_pressure(harness: Harness) -> None:
    """A handler that reports without pause waits for each answer; nothing piles up, nothing is lost."""
    run = await harness.run(sample.chatty)
    assert run.result == len(run.progress) == 2_000


async def test_many_at_once(harness: Harness) -> None:
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(harness.run(sample.plain, {"width": n})) for n in range(60)]
    assert [task.result().result["width"] for task in runs] == list(range(60))


async def test_remaining_time_is_known_in_the_process(harness: Harness) -> None:
    before, after = (await harness.run(sample.remaining, timeout_s=30.0)).result
    assert 20 < after <= before < 30


async def test_a_module_that_is_missing_there() -> None:
    handler = definitions_of(sample.plain)[0]
    import dataclasses
    import types

    fake = types.FunctionType((lambda: None).__code__, {}, "absent")
    fake.__module__, fake.__qualname__ = "tenure_test_absent", "absent"
    run = await Harness().run(dataclasses.replace(handler, target=fake), {"width": 1})
    assert run.error is not None
    assert (run.error.type, run.ended.retryable) == ("HandlerNotFound", False)
    assert "tenure_test_absent" in run.error.message


class Fading(Trusted):
    """A reporter whose trust ends ``after_s`` seconds after the first progress report."""

    def __init__(self, after_s: float) -> None:
        self.clock = SystemClock()
        self.after_s = after_s
        self.ends_at = self.clock.monotonic() + 600
        self.pid = 0

    def deadline(self) -> float:
        return self.ends_at

    async def progress(self, fraction: float, message: str) -> None:
        self.pid = int(message)
        self.ends_at = self.clock.monotonic() + self.after_s


@pytest.mark.parametrize("after_s", [1.0, -math.inf])
async def test_the_watchdog_kills_when_trust_ends_though_nobody_asks(after_s: float) -> None:
    """Nothing is stopped here: only the deadline passes, or the claim is known to be gone."""
    handler = definitions_of(sample.stubborn)[0]
    engines = Engines(Registry([handler]), forkserver=start_forkserver([sample.__name__]))
    reporter = Fading(after_s)
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    engines.begin(Call(handler, assignment, reporter, ended.set_result))
    one = await ended
    assert reporter.clock.monotonic() >= reporter.ends_at
    assert one.outcome is Outcome.RELEASED
    assert reporter.pid
    assert not is_running(reporter.pid)
    await engines.close()


async def test_what_is_begun_when_its_claim_is_gone_already_is_killed_too() -> None:
    handler = definitions_of(sample.stubborn)[0]
    engines = Engines(Registry([handler]), forkserver=start_forkserver([sample.__name__]))
    reporter = Fading(600)
    reporter.ends_at = -math.inf
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    engines.begin(Call(handler, assignment, reporter, ended.set_result))
    assert (await ended).outcome is Outcome.RELEASED
    assert reporter.pid == 0, "it never ran"
    await engines.close()


async def test_a_fork_server_that_dies_takes_its_processes_and_is_replaced(tmp_path: Path) -> None:
    handler = definitions_of(sample.parent)[0]
    server = start_forkserver([sample.__name__])
    engines = Engines(Registry([handler]), forkserver=server)
    told: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    class Telling(Trusted):
        async def progress(self, fraction: float, message: str) -> None:
            told.set_result([int(word) for word in message.split()])

    payload = f'"{tmp_path / "daemon"}"'
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", payload)
    engines.begin(Call(handler, assignment, Telling(), ended.set_result))
    leader, near, far, daemon = await told
    server.process.kill()
    one = await ended
    assert one.error is not None
    assert "fork server died" in one.error.message
    wait_until_gone(leader)
    wait_until_gone(near)
    # These left the session; with their fork server gone nobody else can know them.
    for pid in (far, daemon):
        os.kill(pid, signal.SIGKILL)
    again: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    plain = definitions_of(sample.plain)[0]
    second = Assignment("job", 2, 2, "default", plain.kind, "default", '{"width": 1}')
    engines.begin(Call(plain, second, Trusted(), again.set_result))
    assert (await again).outcome is Outcome.COMPLETED
    await engines.close()


async def test_requests_after_a_loss_are_refused_in_the_process_too() -> None:
    handler = definitions_of(sample.requests)[0]

    class Lost(Trusted):
        async def save_checkpoint(self, text: str) -> None:
            raise OwnershipLost("old fence")

    engines = Engines(Registry([handler]))
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    engines.begin(Call(handler, assignment, Lost(), ended.set_result))
    one = await ended
    assert one.outcome is Outcome.RELEASED
    assert one.error is not None
    assert one.error.type == "OwnershipLost"
    await engines.close()


async def test_close_ends_what_runs_and_the_fork_server() -> None:
    handler = definitions_of(sample.stubborn)[0]
    server = start_forkserver([sample.__name__])
    engines = Engines(Registry([handler]), forkserver=server)
    reporter = Fading(600)
    ended: list[Ended] = []
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    execution = engines.begin(Call(handler, assignment, reporter, ended.append))
    execution.stop(StopCause.RELEASED)
    await engines.close(0.2)
    assert [one.outcome for one in ended] == [Outcome.RELEASED]
    assert server.process.poll() is not None
    if reporter.pid:
        wait_until_gone(reporter.pid)


async def test_each_line_that_a_process_logs_arrives_or_is_counted() -> None:
    class Sink:
        lines = dropped = 0

        def write_log(self, line: LogLine) -> None:
            self.lines += 1

        def takes_logs(self) -> bool:
            return True

        def drop_logs(self, lines: int) -> None:
            self.dropped += lines

    handler, sink = definitions_of(sample.loquacious)[0], Sink()
    engines = Engines(Registry([handler]))
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "5000")
    engines.begin(Call(handler, assignment, Trusted(), ended.set_result, sink=sink))
    assert (await ended).outcome is Outcome.COMPLETED
    assert sink.lines + sink.dropped == 5_000 and sink.lines > 0
    await engines.close()
