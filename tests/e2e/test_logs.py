"""Logs on real processes: what handlers write is read while they run, whoever dies, and a zombie adds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Setting, Stage, either_link

from tenure.client import LogLine


async def _lines(found: AsyncIterator[LogLine], count: int) -> list[LogLine]:
    """Return the next so many lines of a stream that goes on."""
    async with asyncio.timeout(60):
        return [await anext(found) for _ in range(count)]


def _over(tmp_path: Path) -> None:
    (tmp_path / "trace.over").touch()


@either_link
async def test_a_follow_shows_lines_while_the_handler_runs(stage: Setting, tmp_path: Path) -> None:
    on = await stage()
    job = await on.client.submit("says", {"lines": 3})
    following = on.client.logs(job.id, follow=True)
    first = await _lines(following, 4)
    assert [line.word for line in on.lines(job.id)] == ["began"], "the handler still runs"
    assert [(line.attempt, line.seq, line.level, line.message) for line in first] == [
        (1, 1, "info", "by ctx"),
        (1, 2, "info", "by ctx"),
        (1, 3, "info", "by ctx"),
        (1, 4, "warning", "by logging"),
    ]
    assert [line.fields for line in first] == [{"n": 0}, {"n": 1}, {"n": 2}, {}]
    assert first[0].code.startswith("tests.e2e.handlers:")
    assert first[3].logger == "tests.says"
    _over(tmp_path)
    [last] = [line async for line in following]
    assert (last.seq, last.level, last.message) == (5, "error", "last words")
    done = await on.client.wait(job.id)
    assert done.result == "said"
    assert [line async for line in on.client.logs(job.id)] == [*first, last]
    assert [line async for line in on.client.logs(job.id, level="warning", tail=1)] == [last]
    assert await on.postgres("SELECT count(*) FROM tenure.log_head") == 1


@either_link
async def test_lines_of_a_process_and_of_a_command(stage: Setting, tmp_path: Path) -> None:
    on = await stage(args=("--allow-command",))
    process = await on.client.submit("says-process")
    following = on.client.logs(process.id, follow=True)
    assert [line.message for line in await _lines(following, 2)] == ["by ctx", "by logging"]
    assert (await on.client.get(process.id)).state == "executing"
    _over(tmp_path)
    assert [line.message async for line in following] == ["last words"]
    command = await on.client.submit("command", {"argv": ["sh", "-c", "echo one; echo two >&2"]})
    await on.client.wait(command.id)
    said = {(line.logger, line.level, line.message) async for line in on.client.logs(command.id)}
    assert said == {("stdout", "info", "one"), ("stderr", "warning", "two")}


async def test_a_follow_goes_on_through_the_death_of_a_coordinator(stage: Setting) -> None:
    on = await stage(coordinators=2)
    job = await on.client.submit("counts", {"lines": 100, "pause_s": 0.02})
    following = on.client.logs(job.id, follow=True)
    seen = await _lines(following, 5)
    asked = on.client._link._peer().address
    [dying] = [one for one, at in zip(on.deployment.coordinators, on.deployment.coordinator_addresses, strict=True)
               if at == asked]  # fmt: skip
    dying.kill()
    seen += [line async for line in following]
    assert [(line.seq, line.message) for line in seen] == [(n + 1, f"1-{n}") for n in range(100)]
    assert (await on.client.wait(job.id)).result == 100


@pytest.mark.slow
@either_link
async def test_a_zombie_adds_nothing(stage: Setting, tmp_path: Path) -> None:
    """A worker is stopped for longer than its claim lives, and wakes up with lines to send."""
    on = await stage(workers=2)
    job = await on.client.submit("counts", {"lines": 1_000_000, "pause_s": 0.01}, ttl_s=2)
    first = await on.executing(job.id)
    following = on.client.logs(job.id, follow=True)
    seen = await _lines(following, 5)
    assert first.claim is not None
    zombie = on.member(first.claim.worker)
    zombie.pause()
    try:
        await on.executing(job.id, attempt=2)
        while seen[-1].attempt == 1:
            seen += await _lines(following, 1)
    finally:
        zombie.resume()
    written = await on.postgres("SELECT last_seq FROM tenure.log_head WHERE attempt = 1")
    seen += await _lines(following, 200)
    _over(tmp_path)
    await on.until(lambda: _ended(on, job.id))
    seen += [line async for line in following]
    assert await on.postgres("SELECT last_seq FROM tenure.log_head WHERE attempt = 1") == written
    for attempt in (1, 2):
        own = [line for line in seen if line.attempt == attempt]
        assert [line.message for line in own] == [f"{attempt}-{n}" for n in range(len(own))], "none lost, none doubled"


async def _ended(on: Stage, job_id: str) -> bool:
    """Say whether both handlers have returned."""
    return sum(line.word == "ended" for line in on.lines(job_id)) == 2
