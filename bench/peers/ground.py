"""The ground that a peer stands on for one measurement: an empty database or Redis, its workers and its client.

Owns the processes; whatever happens they are gone at the end, and the database with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from tenure.bench.cpu import Meter
from tenure.bench.peers.installing import NotInstalledError
from tenure.bench.peers.peer import Peer, Place
from tenure.bench.peers.program import PeerError, Program
from tenure.cli.embedded import ports
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.embedded.processes import Child, spawn

DATABASE = "peer"
START_S = 30.0


class Ground:
    """An empty place for a peer's jobs. Made by ``laid``."""

    def __init__(self, peer: Peer, interpreter: Path, place: str, broker_pid: int, logs: Path) -> None:
        self._peer = peer
        self._interpreter = interpreter
        self._place = place
        self._broker_pid = broker_pid
        self._log = logs / f"peer-{peer.name}.log"
        self._workers: list[Program] = []
        self.submitter: Program

    async def prepare(self) -> None:
        """Lay the tables and start the client."""
        await (await self._start("prepare")).end()
        self.submitter = await self._start("submit")

    async def add_workers(self, count: int) -> list[Program]:
        """Start workers and return when all stand ready; each works once it is told anything."""
        added = [await self._start("work") for _ in range(count)]
        self._workers += added
        for worker in added:
            await worker.answer()
        return added

    async def wait_until_empty(self) -> int:
        """Return the instant at which no job was left.

        Raises:
            PeerError: a worker ended.
        """
        asked = asyncio.create_task(self.submitter.ask(do="wait_until_empty"))
        workers = [asyncio.create_task(worker.fail()) for worker in self._workers]
        try:
            await asyncio.wait([asked, *workers], return_when=asyncio.FIRST_COMPLETED)
            for worker in workers:
                if worker.done():
                    await worker
            return int((await asked)["empty_ns"])
        finally:
            for task in (asked, *workers):
                task.cancel()

    def meter(self) -> Meter:
        """Begin to measure the CPU of every process that takes part."""
        workers = tuple(worker.pid for worker in self._workers)
        return Meter({self._peer.place: (self._broker_pid,), "workers": workers, "submitter": (self.submitter.pid,)})

    async def clear(self) -> None:
        """Kill the peer's processes."""
        for program in (*self._workers, *((self.submitter,) if hasattr(self, "submitter") else ())):
            await program.kill()

    async def _start(self, part: str) -> Program:
        env = {
            "PEER_PLACE": self._place,
            "PEER_HOME": str(self._interpreter.parents[min(3, len(self._interpreter.parents) - 1)]),
            "PYTHONPATH": str(self._peer.programs),
        }
        return await Program.start(
            f"{self._peer.name} {part}", self._peer.command(self._interpreter, part), env, self._log
        )


@contextlib.asynccontextmanager
async def laid(peer: Peer, interpreter: Path, postgres: EmbeddedPostgres, folder: Path) -> AsyncIterator[Ground]:
    """Give a peer empty ground: a database of its own on this server, or a Redis of its own.

    Raises:
        NotInstalledError: there is no Redis here.
    """
    async with contextlib.AsyncExitStack() as stack:
        if peer.place is Place.POSTGRES:
            place, pid = await stack.enter_async_context(_database(postgres)), postgres.pid
        else:
            place, pid = stack.enter_context(_redis(folder))
        ground = Ground(peer, interpreter, place, pid, folder)
        stack.push_async_callback(ground.clear)
        await ground.prepare()
        yield ground


@contextlib.asynccontextmanager
async def _database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(DATABASE))
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(drop)
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        try:
            yield postgres.dsn_of(DATABASE)
        finally:
            await connection.execute(drop)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, int]]:
    program = redis_program()
    port = ports.choose()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    child: Child = spawn("redis", [program, *options], log=folder / "redis.log", env={})
    try:
        _wait_until_it_listens(child, port)
        yield f"redis://127.0.0.1:{port}/0", child.pid
    finally:
        child.stop()


def _wait_until_it_listens(child: Child, port: int) -> None:
    deadline = time.monotonic() + START_S
    while ports.is_free(port):
        if not child.alive or time.monotonic() > deadline:
            raise PeerError(f"redis-server did not start:\n{child.said()}")
        time.sleep(0.02)


def redis_program() -> str:
    """Return where redis-server is.

    Raises:
        NotInstalledError: nowhere.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise NotInstalledError("redis-server is not installed (apt-get install redis-server)")
    return program
