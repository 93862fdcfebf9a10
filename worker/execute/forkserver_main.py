"""The fork server: a small single-threaded process that forks handler processes and is their watchdog.

Started by ``forkserver`` with ``python -m``, so it never holds gRPC's threads or locks; it imports the user's modules
once, and each attempt is a fork of that. Invariants: every handler process leads its own session and process group and
dies with this process (PDEATHSIG); a group whose deadline passes is killed, with whatever it started; when the
worker is gone, all are killed and this process ends. It lives in a session of its own, so that what stops or interrupts
the worker's group does not reach it, and it ignores SIGTERM while the worker lives, since the worker may be draining.

Descendants that leave the group (``setsid``, double fork) are found too: leaders and this process are *subreapers*,
so an orphan belongs to its leader while that lives and to this process afterwards. A child of this process that leads
nothing is therefore the leftover of an ended attempt, and is killed.

The socket to the worker keeps message boundaries (SOCK_SEQPACKET); messages are JSON, file descriptors ride along.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any, NoReturn

from tenure.worker.execute import child
from tenure.worker.execute.watchdog import Watchdog, boottime

MAX_MESSAGE_BYTES = 128 * 1024
MAX_FDS = 4
FORKS_PER_ROUND = 8
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Serve until the worker is gone."""
    fd, worker_pid = int(sys.argv[1]), int(sys.argv[2])
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    server = Server(control, worker_pid)
    hello = json.loads(control.recv(MAX_MESSAGE_BYTES) or b"{}")
    if not hello:
        return
    sys.path[:] = hello["path"]
    child.preload(hello["modules"])
    # What is loaded now is shared by all forks: keep the collector from touching (and so copying) its pages.
    gc.collect()
    gc.freeze()
    server.serve()


class Server:
    """The leaders that run, by the number that the worker gave them."""

    def __init__(self, control: socket.socket, worker_pid: int) -> None:
        self._control = control
        self._worker_pid = worker_pid
        self._waiting: dict[int, list[int]] = {}
        self._pids: dict[int, int] = {}
        self._keys: dict[int, int] = {}
        self._watchdog = Watchdog()
        self._outbox: deque[bytes] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        control.setblocking(True)

    def serve(self) -> None:
        """Answer requests, reap and watch."""
        self._control.setblocking(False)
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        while os.getppid() == self._worker_pid:
            poll.register(self._control, select.POLLIN | (select.POLLOUT if self._outbox else 0))
            poll.poll(self._timeout_ms())
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            if not self._receive():
                break
            self._reap()
            for key in self._watchdog.expired(boottime()):
                self._send({"event": "expired", "key": key})
                self._kill(key)
            self._start_some()
            self._flush()
        self._end_all()

    def _timeout_ms(self) -> float | None:
        if self._waiting:
            return 0
        deadline = self._watchdog.next_deadline()
        # Rounded up by a millisecond, so that the poll never returns just before the deadline and spins.
        return None if deadline is None else max(0.0, (deadline - boottime()) * 1000 + 1)

    def _receive(self) -> bool:
        """Handle all messages that have come; False when the worker is gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, MAX_FDS)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not data:
                return False
            self._handle(json.loads(data), fds)

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["op"]:
            case "start":
                # Forked later: a fork takes milliseconds, and the extensions behind it must be seen first.
                self._waiting[message["key"]] = fds
                self._watchdog.guard(message["key"], message["deadline"])
            case "signal":
                self._signal(message["key"], message["signal"])
            case "kill":
                self._kill(message["key"])
            case "extend":
                for key, deadline in message["deadlines"]:
                    self._watchdog.extend(key, deadline)

    def _start_some(self) -> None:
        """Fork what waits, a few at a time: deadlines are looked at in between."""
        for key in list(self._waiting)[:FORKS_PER_ROUND]:
            self._start(key, self._waiting.pop(key))

    def _start(self, key: int, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as exc:
            self._watchdog.release(key)
            self._send({"event": "exited", "key": key, "error": f"cannot fork: {exc.strerror}"})
        else:
            if pid == 0:
                self._become_child(fds)
            self._pids[key] = pid
            self._keys[pid] = key
            self._send({"event": "started", "key": key, "pid": pid})
        close_all(fds)

    def _forget(self, key: int, number: int) -> bool:
        """End a process that was not forked yet, as if by a signal; False if it was."""
        fds = self._waiting.pop(key, None)
        if fds is None:
            return False
        close_all(fds)
        self._watchdog.release(key)
        self._send({"event": "exited", "key": key, "status": -number})
        return True

    def _become_child(self, fds: list[int]) -> NoReturn:
        """In the fork: cut what ties it to this process, then run the attempt."""
        try:
            server_pid = os.getppid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            prctl(_PR_SET_CHILD_SUBREAPER, 1)
            if os.getppid() != server_pid:
                os._exit(child.EXIT_ORPHANED)
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            prefer_for_oom()
            child.run(fds)
        except BaseException as exc:
            sys.stderr.write(f"tenure handler process: {type(exc).__name__}: {exc}\n")
        finally:
            os._exit(child.EXIT_BROKEN)

    def _signal(self, key: int, number: int) -> None:
        pid = self._pids.get(key)
        if not self._forget(key, number) and pid is not None:
            send_to_group(pid, number)
            # A stopped process sees no SIGTERM until it goes on.
            send_to_group(pid, signal.SIGCONT)

    def _kill(self, key: int) -> None:
        pid = self._pids.get(key)
        if not self._forget(key, signal.SIGKILL) and pid is not None:
            send_to_group(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collect the dead. A leader's group is killed before its pid is given back, so it is surely its own."""
        ended = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            key = self._keys.pop(found.si_pid, None)
            if key is not None:
                ended = True
                send_to_group(found.si_pid, signal.SIGKILL)
                del self._pids[key]
                self._watchdog.release(key)
            _, status = os.waitpid(found.si_pid, 0)
            if key is not None:
                self._send({"event": "exited", "key": key, "status": os.waitstatus_to_exitcode(status)})
            ended = True
        if ended:
            self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill children that lead no attempt; what they started comes here in its turn."""
        for pid in children_of(os.getpid()):
            if pid not in self._keys:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        for key in list(self._pids):
            self._kill(key)
        while True:
            self._kill_orphans()
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _send(self, message: dict[str, Any]) -> None:
        self._outbox.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        """Send what the worker's socket takes. A stopped worker takes little: the rest waits, and nothing blocks."""
        while self._outbox:
            try:
                self._control.send(self._outbox[0])
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.ENOBUFS:
                    return
                self._outbox.clear()
                return
            self._outbox.popleft()


def close_all(fds: list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def send_to_group(pid: int, number: int) -> None:
    """Signal a leader's group; the leader alone while it has not yet made its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:
        # A member that changed its user; the others were signalled.
        pass


def children_of(pid: int) -> list[int]:
    """Return the children of a process, from /proc."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return [one for one in processes() if parent_of(one) == pid]


def processes() -> list[int]:
    """Return every process id that can be seen."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if it is gone."""
    return int(stat_fields(pid)[1]) if stat_fields(pid) else 0


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name is in brackets and may hold anything, brackets too.
            return file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; nothing where the system has none (then only the end of a pipe tells)."""
    if sys.platform == "linux":
        _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def prefer_for_oom() -> None:
    """Have the kernel end a handler rather than the worker when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


_libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
