"""What handlers of every mode write, as the lines of their attempt's log."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tenure.model.logs import Level, LogLine
from tenure.worker.context import AsyncContext, Context
from tenure.worker.execute.output import MAX_LINE_BYTES, Lines
from tenure.worker.handler import command_handler, handler
from tenure.worker.harness import Harness
from tenure.worker.log_capture import capturing, writes_to

log = logging.getLogger("tests.shop")


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Harness(modules=["tests.worker_execute.test_logs"], stop_grace_s=0.5) as one:
        yield one


def _say(ctx: Any) -> None:
    ctx.log.info("by ctx", n=1, odd={1, 2})
    log.info("by %s", "logging", extra={"order": 7})
    log.debug("in detail")
    try:
        raise ValueError("no")
    except ValueError:
        ctx.log.exception("failed")
        log.exception("failed, too")


@handler("says-async")
async def says_async(ctx: AsyncContext) -> None:
    _say(ctx)


@handler("says-thread")
def says_thread(ctx: Context) -> None:
    _say(ctx)


@handler("says-process", mode="process")
def says_process(ctx: Context) -> None:
    _say(ctx)


@handler("says-async-process", mode="process")
async def says_async_process(ctx: AsyncContext) -> None:
    _say(ctx)


@pytest.mark.parametrize("target", [says_async, says_thread, says_process, says_async_process])
async def test_lines_of_every_mode(harness: Harness, target: Any) -> None:
    run = await harness.run(target)
    by_ctx, by_logging, detail, failed, failed_too = run.logs
    assert by_ctx == {"event": "by ctx", "log_level": "info", "n": 1, "odd": [1, 2]}
    assert by_logging == {"event": "by logging", "log_level": "info", "logger": "tests.shop", "order": 7}
    assert (detail["event"], detail["log_level"]) == ("in detail", "debug")
    assert (failed["event"], failed["log_level"]) == ("failed", "error")
    assert failed["exception"].startswith("Traceback") and failed["exception"].endswith("ValueError: no")
    assert failed_too["exception"].endswith("ValueError: no")


@handler("says-nothing")
async def says_nothing(ctx: AsyncContext) -> None:
    pass


async def test_who_says_nothing_has_no_lines(harness: Harness) -> None:
    assert (await harness.run(says_nothing)).logs == []


@handler("says-apart")
async def says_apart(name: str, ctx: AsyncContext) -> None:
    async def task() -> None:
        await asyncio.sleep(0.01)
        log.warning("task of %s", name)

    def thread(how: str) -> None:
        log.warning("%s of %s", how, name)

    async with asyncio.TaskGroup() as group:
        group.create_task(task())
        group.create_task(asyncio.to_thread(thread, "thread"))
    copied = threading.Thread(target=contextvars.copy_context().run, args=(thread, "copied thread"))
    copied.start()
    copied.join()
    bare = threading.Thread(target=thread, args=("bare thread",))
    bare.start()
    bare.join()
    other = threading.Thread(target=ctx.log.warning, args=(f"ctx in a bare thread of {name}",))
    other.start()
    other.join()


async def test_tasks_and_threads_belong_to_their_attempt(harness: Harness) -> None:
    """But for bare threads, whose records of ``logging`` belong to nobody."""
    names = [f"h{n}" for n in range(20)]
    runs = await asyncio.gather(*(harness.run(says_apart, name) for name in names))
    for name, run in zip(names, runs, strict=True):
        assert sorted(line["event"] for line in run.logs) == sorted(
            f"{what} of {name}" for what in ("task", "thread", "copied thread", "ctx in a bare thread")
        )


@handler("says-odd-things")
def says_odd_things(ctx: Context) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("not today")

        __repr__ = __str__

    ctx.log.info("odd", thing=Odd(), nul="a\0b", half="\ud800")
    log.info("too many %s", "arguments", "here")
    log.info(Odd())
    ctx.log.info("x" * 50_000)


@handler("says-odd-things-in-a-process", mode="process")
def says_odd_things_in_a_process(ctx: Context) -> None:
    says_odd_things(ctx)


@pytest.mark.parametrize("target", [says_odd_things, says_odd_things_in_a_process])
async def test_odd_things_are_told_as_far_as_they_go(harness: Harness, target: Any) -> None:
    run = await harness.run(target)
    assert run.error is None
    assert [line["event"][:8] for line in run.logs] == ["odd", "too many", "(Odd: ca", "xxxxxxxx"]
    assert run.logs[0]["thing"] == "(Odd: cannot be shown, RuntimeError)"


async def test_output_of_commands_line_by_line(harness: Harness) -> None:
    code = (
        "import sys, time\n"
        "print('one'); sys.stdout.flush(); time.sleep(0.05)\n"
        "print('a note', file=sys.stderr)\n"
        "sys.stdout.write('two\\r\\nhalf'); sys.stdout.flush(); time.sleep(0.05)\n"
        "print(' a line'); sys.stdout.flush(); sys.stdout.buffer.write(b'\\xff\\x00 no end')\n"
    )
    run = await harness.run(command_handler("python", [sys.executable, "-S", "-c", code]))
    out = [line["event"] for line in run.logs if line["logger"] == "stdout"]
    assert out == ["one", "two", "half a line", "\ufffd\ufffd no end"]
    errors = [(line["event"], line["log_level"]) for line in run.logs if line["logger"] == "stderr"]
    assert errors == [("a note", "warning")]


async def test_a_command_that_prints_nothing_has_no_lines(harness: Harness) -> None:
    assert (await harness.run(command_handler("true", ["true"]))).logs == []


def test_long_lines_are_cut_while_they_are_read() -> None:
    written: list[str] = []
    lines = Lines(written.append, lambda: True, lambda count: None)
    for _ in range(10):
        lines.feed(b"x" * MAX_LINE_BYTES)
    lines.feed(b"\nshort\n")
    assert written == [f"{'x' * MAX_LINE_BYTES} [cut: {9 * MAX_LINE_BYTES} more bytes]", "short"]


def test_output_that_finds_no_room_is_counted() -> None:
    written: list[str] = []
    dropped: list[int] = []
    room = True
    lines = Lines(written.append, lambda: room, dropped.append)
    lines.feed(b"one\ntw")
    room = False
    lines.feed(b"o\nthree\nfo")
    lines.feed(b"ur")
    room = True
    lines.feed(b"\nfive")
    lines.end()
    assert written == ["one", "four", "five"]
    assert dropped == [2]


def test_what_the_worker_shows_stays_as_it_was() -> None:
    """Capturing lowers the root's level, and the handlers that were there see no more for it."""
    root = logging.getLogger()
    seen: list[str] = []
    kept: list[LogLine] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    shown, level, others = Seen(), root.level, list(root.handlers)
    chatty = logging.getLogger("tests.chatty")
    for one in others:
        root.removeHandler(one)
    root.addHandler(shown)
    root.setLevel(logging.WARNING)
    chatty.setLevel(logging.DEBUG)
    token = writes_to.set(kept.append)
    try:
        with capturing(logging.INFO), capturing(logging.INFO):
            log.info("info")
            log.warning("warning")
            chatty.debug("asked for")
            logging.getLogger("httpx").info("GET https://example.com/?token=secret")
        log.info("afterwards")
        assert root.level == logging.WARNING
        assert root.handlers == [shown]
    finally:
        writes_to.reset(token)
        chatty.setLevel(logging.NOTSET)
        root.removeHandler(shown)
        root.setLevel(level)
        for one in others:
            root.addHandler(one)
    assert seen == ["warning", "asked for"]
    assert [(line.message, line.level) for line in kept] == [("info", Level.INFO), ("warning", Level.WARNING)]
    assert kept[0].code.startswith("test_logs:")
