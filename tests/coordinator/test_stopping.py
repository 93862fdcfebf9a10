"""The second signal: a graceful end is waited for until then, and no longer."""

from __future__ import annotations

import asyncio

import pytest

from tenure.coordinator.coordinator import _within


async def test_a_graceful_end_is_waited_for() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)
    await _within(asyncio.Event(), _until(done, []))
    assert done.is_set()


async def test_the_second_signal_ends_it_at_once() -> None:
    abort, ended = asyncio.Event(), list[str]()
    asyncio.get_running_loop().call_later(0.05, abort.set)
    async with asyncio.timeout(30):
        await _within(abort, _until(asyncio.Event(), ended))
    assert ended == ["cancelled"], "nothing is left running behind"


async def test_an_error_on_the_way_is_not_swallowed() -> None:
    async def failing() -> None:
        raise OSError("the socket is gone")

    with pytest.raises(ExceptionGroup) as caught:
        await _within(asyncio.Event(), failing())
    assert caught.group_contains(OSError)


async def _until(event: asyncio.Event, ended: list[str]) -> None:
    try:
        await event.wait()
    except asyncio.CancelledError:
        ended.append("cancelled")
        raise
