"""A running program of a peer, asked and answering in lines of JSON over its standard input and output.

Invariant: it dies with this process (the leash of ``tenure.cli.embedded``), and ``kill`` leaves none of its children.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenure.cli.embedded.processes import LEASH, descendants, send

ANSWER_S = 600.0


class PeerError(Exception):
    """A peer's program ended or said nothing; the message holds what it wrote last."""


class Program:
    """One process. Made by ``start``."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> Program:
        """Start a program; what it writes on its standard error goes to ``log``."""
        leash = [sys.executable, "-I", "-S", str(LEASH), str(int(signal.SIGKILL)), str(os.getpid())]
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *leash,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **env},
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        await self.tell(**order)
        return await self.answer()

    async def tell(self, **order: Any) -> None:
        """Give an order that is not answered."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()

    async def answer(self) -> dict[str, Any]:
        """Return the next thing that it says.

        Raises:
            PeerError: it ended, or says nothing.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise self._error("said nothing") from None
        if not line:
            raise self._error("ended")
        said: dict[str, Any] = json.loads(line)
        return said

    async def fail(self) -> None:
        """Wait until it has ended, and raise.

        Raises:
            PeerError: always: it should not have.
        """
        await self._process.wait()
        raise self._error("ended")

    async def end(self) -> None:
        """Wait until it has ended by itself.

        Raises:
            PeerError: it failed.
        """
        async with asyncio.timeout(ANSWER_S):
            if await self._process.wait():
                raise self._error(f"ended with {self._process.returncode}")

    async def kill(self) -> None:
        """SIGKILL it with its children: nothing is measured after its work."""
        if self._process.returncode is None:
            for pid in (*descendants(self.pid), self.pid):
                send(pid, signal.SIGKILL)
        await self._process.wait()

    def _error(self, what: str) -> PeerError:
        said = self._log.read_text(errors="replace")[-2000:]
        return PeerError(f"{self._name} {what}:\n{said}")
