"""``speak.py PEER prepare|work|submit``: a Python peer behind the JSON of ``tenure.bench.peers.program``.

Stamps are CLOCK_MONOTONIC in nanoseconds. The place of the peer's tables or keys is in the environment as
``PEER_PLACE``. A program ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

POLL_S = 0.01


class Submitter(Protocol):
    """The client of a peer, connected."""

    async def submit(self, payload: str) -> None:
        """Submit one no-op job; one with a payload tells when it began."""

    async def submit_bulk(self, jobs: int) -> None:
        """Submit so many no-op jobs by one call."""

    async def is_empty(self) -> bool:
        """Return whether no job is left to run or running."""


class Peer(Protocol):
    """What a peer's module offers under the name ``PEER``."""

    async def prepare(self, place: str) -> None:
        """Lay the peer's tables in an empty place."""

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        """Run one worker until the process ends; its handler calls ``began`` with the payload and does nothing else."""

    async def submitter(self, place: str, connections: int) -> Submitter:
        """Connect a client that may have so many submits in flight."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the event loop that the peer itself uses."""


def began(payload: str) -> None:
    """Tell when a handler began, for the jobs that were submitted to learn it."""
    if payload:
        tell({"began_ns": time.monotonic_ns()})


def tell(answer: dict[str, Any]) -> None:
    """Write one line, whole, from whichever process or thread."""
    os.write(1, json.dumps(answer).encode() + b"\n")


async def work(peer: Peer, place: str) -> None:
    """Stand ready, and work once told to."""
    tell({"ready": True})
    if await asyncio.to_thread(sys.stdin.readline):
        await peer.work(place, began)


async def submit(peer: Peer, place: str) -> None:
    """Carry out orders, one a line."""
    orders = None
    submitter: Submitter | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        orders = json.loads(line)
        if submitter is None:
            submitter = await peer.submitter(place, orders.get("in_flight", 1))
        tell(await carry_out(submitter, orders))


async def carry_out(submitter: Submitter, order: dict[str, Any]) -> dict[str, Any]:
    """Do what one order says and return what there is to tell."""
    match order["do"]:
        case "connect":
            return {"is_empty": await submitter.is_empty()}
        case "singles":
            return await singles(submitter, order["in_flight"], order.get("jobs"), order.get("seconds"))
        case "bulk":
            return await bulk(submitter, order["batch"], order.get("jobs"), order.get("seconds"))
        case "stamp":
            called_ns = time.monotonic_ns()
            await submitter.submit("stamp")
            return {"called_ns": called_ns}
        case "wait_until_empty":
            while not await submitter.is_empty():  # noqa: ASYNC110  a peer has no signal for it
                await asyncio.sleep(POLL_S)
            return {"empty_ns": time.monotonic_ns()}
    raise ValueError(order)


async def singles(submitter: Submitter, in_flight: int, jobs: int | None, seconds: float | None) -> dict[str, Any]:
    """Submit one by one, so many jobs or so many seconds long."""
    submitted, began_ns = 0, time.monotonic_ns()

    async def one_after_the_other() -> None:
        nonlocal submitted
        while (time.monotonic_ns() - began_ns) / 1e9 < seconds if seconds else submitted < (jobs or 0):
            submitted += 1
            await submitter.submit("")

    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    return {"jobs": submitted, "began_ns": began_ns, "ended_ns": time.monotonic_ns()}


async def bulk(submitter: Submitter, batch: int, jobs: int | None, seconds: float | None) -> dict[str, Any]:
    """Submit in batches, one after the other, so many jobs or so many seconds long."""
    submitted, began_ns = 0, time.monotonic_ns()
    while (time.monotonic_ns() - began_ns) / 1e9 < seconds if seconds else submitted < (jobs or 0):
        size = min(batch, jobs - submitted) if jobs else batch
        await submitter.submit_bulk(size)
        submitted += size
    return {"jobs": submitted, "began_ns": began_ns, "ended_ns": time.monotonic_ns()}


def main() -> None:
    """Play the part that the command line names."""
    name, part = sys.argv[1:]
    peer: Peer = importlib.import_module(name).PEER
    place = os.environ["PEER_PLACE"]
    if part == "prepare":
        peer.run(peer.prepare(place))
    else:
        peer.run({"work": work, "submit": submit}[part](peer, place))
    os._exit(0)  # threads that wait for a line need not end first


if __name__ == "__main__":
    main()
