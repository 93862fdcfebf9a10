"""Child processes that never outlive their parent: spawn, signal, pause, stop with escalation.

Every child is put on a leash (``leash.py``): the kernel signals it when this process dies, by SIGKILL too. The kernel
watches the *thread* that spawned, so all children are spawned by one thread that lives as long as the process.
Each child gets its own session: Ctrl-C in the terminal reaches the parent alone, which then stops its children in
order. Used by the embedded stores and the deployment; what the children are is not known here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tenure.model.errors import TenureError

LEASH = Path(__file__).with_name("leash.py")
SAID_CHARS = 3000
STOPPED_S = 5.0
"""How long a pause waits for threads that the kernel cannot stop at once."""
LOG_KEPT_BYTES = 16 * 1024 * 1024
"""A log larger than this is moved aside (``.1``) before a child appends to it."""


class EmbeddedError(TenureError):
    """An embedded process could not be started or stopped; the message holds the end of its log."""


@dataclass
class Child:
    """A running child. All methods may be called from any thread; none raises when the process is gone."""

    name: str
    argv: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]
    identity: str = ""
    """Tells this process from a later one with the same pid."""
    log_start: int = 0
    """Where in the log its own output begins."""

    @property
    def pid(self) -> int:
        """The process id of the program itself (the leash becomes the program)."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs (a paused one does)."""
        return self.process.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended. False when it still runs after ``timeout_s``."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, steps: Sequence[tuple[int, float]] = ((signal.SIGTERM, 15.0),)) -> None:
        """Send each signal in turn and wait its seconds; what still runs then is killed with its descendants."""
        for number, grace_s in steps:
            self.send(signal.SIGCONT)
            self.send(number)
            if self.wait(grace_s):
                return
        self.kill()

    def kill(self) -> None:
        """SIGKILL the process and its descendants, as a crash would, and wait until they are gone."""
        members = descendants(self.pid) if self.alive else []
        self.send(signal.SIGKILL)
        for pid in members:
            send(pid, signal.SIGKILL)
        self.wait(10.0)
        wait_until_gone(members, 5.0)

    def pause(self) -> None:
        """SIGSTOP the process and its descendants; wait until all their threads stand still, at most ``STOPPED_S``."""
        pids = (self.pid, *descendants(self.pid))
        for pid in pids:
            send(pid, signal.SIGSTOP)
        wait_until_stopped(pids, STOPPED_S)

    def resume(self) -> None:
        """SIGCONT the process and its descendants."""
        for pid in (*descendants(self.pid), self.pid):
            send(pid, signal.SIGCONT)

    def output(self) -> str:
        """Return all its output so far."""
        try:
            with self.log.open("rb") as file:
                file.seek(self.log_start)
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def said(self) -> str:
        """Return its output so far for people to read, the middle left out where it is long."""
        text = self.output()
        return text if len(text) <= SAID_CHARS else f"{text[: SAID_CHARS // 3]}\n…\n{text[-SAID_CHARS * 2 // 3 :]}"


def spawn(
    name: str, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str], death_signal: int = signal.SIGTERM
) -> Child:
    """Start a program on a leash, its output appended to ``log``.

    Args:
        name: what messages call it.
        argv: the program and its arguments.
        log: the file for its output, made where missing, readable by the owner alone.
        env: its whole environment.
        death_signal: what the kernel sends it when this process dies.

    Raises:
        OSError: it could not be started.
    """
    program = [str(part) for part in argv]
    leash = [sys.executable, "-I", "-S", str(LEASH), str(int(death_signal)), str(os.getpid())]
    with _open_log(log) as output:
        log_start = output.tell()
        process = _spawner(os.getpid()).call(
            functools.partial(
                subprocess.Popen,
                [*leash, *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        )
    return Child(name, program, log, process, identity_of(process.pid), log_start)


class _Spawner:
    """One thread that outlives every caller, as the kernel ties a child's leash to the thread that made it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[functools.partial[subprocess.Popen[bytes]], Future[object]]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="tenure-spawner", daemon=True).start()

    def call(self, make: functools.partial[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start the process in the thread and return it."""
        future: Future[object] = Future()
        self._calls.put((make, future))
        process = future.result(timeout=60)
        assert isinstance(process, subprocess.Popen)
        return process

    def _run(self) -> None:
        while True:
            make, future = self._calls.get()
            try:
                future.set_result(make())
            except Exception as error:  # handed to the caller, who decides
                future.set_exception(error)


@functools.cache
def _spawner(pid: int) -> _Spawner:
    """Return the spawner of this process (a forked child needs its own, hence the argument)."""
    return _Spawner()


def _open_log(log: Path) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_KEPT_BYTES:
            log.replace(log.with_name(log.name + ".1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")


def send(pid: int, number: int) -> bool:
    """Send a signal to any process. False when there is none or it is not ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def identity_of(pid: int) -> str:
    """Return the instant at which a process started, in its system's own words; empty when there is none.

    A zombie counts as gone. With the pid it names a process for good: pids are used again.
    """
    try:
        # The second field is the program's name in parentheses and may hold anything, spaces too.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if sys.platform == "linux" else _identity_by_ps(pid)
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def _identity_by_ps(pid: int) -> str:
    return _ps("-o", "lstart=", "-p", str(pid)).strip()


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, timeout=10, check=False).stdout


def descendants(pid: int) -> list[int]:
    """Return the children of a process, their children and so on."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return found


def _parents() -> Iterable[tuple[int, int]]:
    if sys.platform != "linux":
        for line in _ps("-A", "-o", "pid=,ppid=").splitlines():
            child, parent = line.split()
            yield int(child), int(parent)
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def wait_until_stopped(pids: Iterable[int], timeout_s: float) -> bool:
    """Wait until SIGSTOP has reached every thread of some processes: one that runs on another core may still answer.

    False when one goes on; True at once where there is no ``/proc`` to tell.
    """
    left = list(pids) if sys.platform == "linux" else []
    deadline = time.monotonic() + timeout_s
    while left := [pid for pid in left if not _stands_still(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _stands_still(pid: int) -> bool:
    try:
        threads = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False  # a thread has just ended: look again
    return all(text.rpartition(")")[2].split()[0] in "TtZX" for text in threads)


def wait_until_gone(pids: Iterable[int], timeout_s: float) -> bool:
    """Wait until processes that need not be our children have ended. False when one still runs."""
    left = list(pids)
    deadline = time.monotonic() + timeout_s
    while left := [pid for pid in left if identity_of(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
