"""A coordinator or a worker of a deployment as a child process: start, wait until it serves, signal, stop.

Each start gets an id of its own, so that a member that comes back is never taken for the one that died.
A member dies with the deployment's process by SIGKILL: it is built to be killed, and draining without stores is futile.
"""

from __future__ import annotations

import http.client
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from tenure.cli.embedded.processes import STOPPED_S, Child, EmbeddedError, spawn, wait_until_stopped


class Role(StrEnum):
    """What a member is; the name of its command too, but for runners."""

    COORDINATOR = "coordinator"
    WORKER = "worker"


class Member:
    """One process of tenure.

    Args:
        role: coordinator or worker.
        number: its number among its kind, from 1.
        arguments: what follows ``tenure coordinator`` or ``tenure worker``.
        env: its whole environment.
        log: where its output goes.
        grpc: ``host:port`` that it serves gRPC on (coordinators).
        http: ``host:port`` that it answers ``/readyz`` on (coordinators).
        command: the command that it runs, if it is not that of its role.
        prefix: what to put in front of its command; it must become the command, not its parent (``nsenter``).
    """

    def __init__(
        self,
        role: Role,
        number: int,
        arguments: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        grpc: str = "",
        http: str = "",
        command: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        self.role = role
        self.name = f"{role}{number}"
        self.id = ""
        self.log = log
        self.grpc = grpc
        self.http = http
        self.python = sys.executable
        """The interpreter that the next start uses: that of another version of tenure has it roll over."""
        self._command = command or role.value
        self._arguments = list(arguments)
        self._env = dict(env)
        self._prefix = list(prefix)
        self._child: Child | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """How its process ended (negative: by that signal); None while it runs or before the first start."""
        return self._child.process.poll() if self._child is not None else None

    def start(self) -> None:
        """Start its process, under a new id; do not wait until it serves."""
        self.id = f"{self.name}-{secrets.token_hex(4)}"
        env = {**self._env, f"TENURE_{self.role.upper()}_ID": self.id}
        command = [*self._prefix, self.python, "-m", "tenure.cli", self._command, *self._arguments]
        self._child = spawn(self.name, command, log=self.log, env=env, death_signal=signal.SIGKILL)

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until ``GET /readyz`` says 200 (coordinators only).

        Raises:
            EmbeddedError: its process ended, or the monotonic deadline passed.
        """
        while not is_ready(self.http):
            self.check_alive()
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready in time:\n{self.said()}")
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raise ``EmbeddedError`` with the end of its log when its process has ended."""
        if not self.alive:
            raise EmbeddedError(f"{self.name} ended with {self.exit_code}:\n{self.said()}")

    def terminate(self) -> None:
        """SIGTERM: drain and stop. Returns at once."""
        self._running().send(signal.SIGTERM)

    def stop(self, grace_s: float = 30.0) -> None:
        """Drain and stop; kill what still runs after ``grace_s``. A no-op when it does not run."""
        if self._child is not None:
            self._child.stop(((signal.SIGTERM, grace_s),))

    def wait(self, timeout_s: float) -> bool:
        """Wait until its process has ended. False when it still runs."""
        return self._running().wait(timeout_s)

    def kill(self, *, tree: bool = False) -> None:
        """SIGKILL its process alone, as the kernel's memory killer would; with ``tree`` its descendants too."""
        child = self._running()
        if tree:
            child.kill()
        else:
            child.send(signal.SIGKILL)
            child.wait(10.0)

    def pause(self, *, tree: bool = True) -> None:
        """SIGSTOP its process, and its descendants unless told otherwise."""
        child = self._running()
        if tree:
            child.pause()
            return
        child.send(signal.SIGSTOP)
        wait_until_stopped([child.pid], STOPPED_S)

    def resume(self) -> None:
        """SIGCONT its process and its descendants."""
        self._running().resume()

    def restart(self) -> None:
        """Stop its process where it runs, and start it again under a new id."""
        self.stop()
        self.start()

    def output(self) -> str:
        """Return all its output since it was started."""
        return self._child.output() if self._child is not None else ""

    def said(self) -> str:
        """Return its output since it was started, the middle left out where it is long."""
        return self._child.said() if self._child is not None else ""

    def _running(self) -> Child:
        if self._child is None:
            raise EmbeddedError(f"{self.name} was never started")
        return self._child


def is_ready(address: str, timeout_s: float = 2.0) -> bool:
    """Ask a coordinator's ``/readyz``."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
