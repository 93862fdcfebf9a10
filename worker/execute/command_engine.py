"""Executes commands: a program, its arguments and its environment, never a shell.

Invariants: nothing of the worker's environment reaches a command but the names that its definition lists; its output is
kept to a bounded tail; it is killed with everything that it started. The attempt has ended when the process is gone and
its output is read.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.logs import Level, LogLine
from tenure.worker.execute import outcome
from tenure.worker.execute.call import Call, Ended, StopCause
from tenure.worker.execute.forkserver import describe_status
from tenure.worker.execute.output import Input, Lines, Tail
from tenure.worker.execute.process_engine import identity
from tenure.worker.execute.process_host import ForkedExecution, ProcessHost
from tenure.worker.handler import CommandSpec

_OUTPUT_GRACE_S = 1.0
"""How long output is awaited after the command has ended: a survivor may hold the pipe."""


class CommandEngine:
    """Begins attempts from the control loop."""

    def __init__(self, host: ProcessHost) -> None:
        self._host = host

    def begin(self, call: Call, timeout_at: float | None = None) -> CommandExecution:
        """Start an attempt; never blocks."""
        execution = CommandExecution(self._host, call, timeout_at)
        self._host.begin(execution)
        return execution

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop and kill what runs; the host is closed with it."""
        await self._host.close(grace_s)


class CommandExecution(ForkedExecution):
    """One attempt that is a program."""

    _spec: CommandSpec
    _stdin: Input | None = None
    _stdout: Tail
    _stderr: Tail
    _problem = ""
    _patience: asyncio.TimerHandle | None = None
    _timeout: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Fork, execute, and begin to read."""
        call = self.bridge.call
        try:
            self._spec, text = _plan(call)
        except Exception as exc:  # ValueError or whatever a validator raises
            self.finish(outcome.invalid_payload(exc))
            return
        loop = self.host.thread.loop
        pairs = _pipes(3)
        (in_theirs, in_ours), (out_ours, out_theirs), (err_ours, err_theirs) = pairs
        self._stdout = Tail(loop, out_ours, self._spec.output_bytes, self._check, self._lines("stdout", Level.INFO))
        self._stderr = Tail(loop, err_ours, self._spec.output_bytes, self._check, self._lines("stderr", Level.WARNING))
        self._stdin = Input(loop, in_ours, text.encode())
        request = {
            "what": "command",
            "argv": list(self._spec.argv),
            "cwd": self._spec.cwd,
            "env": _environment(self._spec, call),
        }
        self.spawn(request, [in_theirs, out_theirs, err_theirs])
        if self._spec.timeout_s is not None:
            self._timeout = loop.call_later(self._spec.timeout_s, self._stop, StopCause.TIMED_OUT)

    def take(self, frame: dict[str, Any]) -> None:
        """Learn that the program could not be executed."""
        self._problem = str(frame["error"])

    def conclude(self) -> None:
        """Wait a moment for the rest of the output."""
        self._patience = self.host.thread.loop.call_later(_OUTPUT_GRACE_S, self._cut)
        self._check()

    def finish(self, ended: Ended) -> None:
        """Report the end and let go of the pipes."""
        super().finish(ended)
        if self._stdin is not None:
            self._stdin.close()
            self._stdout.close()
            self._stderr.close()
        for timer in (self._patience, self._timeout):
            if timer is not None:
                timer.cancel()

    def _check(self) -> None:
        if self.exit is not None and not self._stdout.is_open and not self._stderr.is_open:
            self.finish(self._judge())

    def _cut(self) -> None:
        self._stdout.close()
        self._stderr.close()
        self._check()

    def _lines(self, stream: str, level: Level) -> Lines:
        """Return what writes a stream of output to the attempt's log."""
        bridge, clock = self.bridge, self.host.clock

        def write(text: str) -> None:
            bridge.write_log(LogLine(clock.wall(), level, text, "", stream))

        return Lines(write, bridge.takes_logs, bridge.drop_logs)

    def _judge(self) -> Ended:
        status = self.exit.status if self.exit is not None else None
        if self._problem:
            return outcome.failed("CommandNotExecuted", f"{self._spec.argv[0]}: {self._problem}")
        expired = self.exit is not None and self.exit.is_expired
        if status is None or expired or (self.bridge.first_cause is not None and status != 0):
            return self.died()
        stderr = self._stderr.text()
        if status != 0:
            last = stderr.strip().rpartition("\n")[2] or self._stdout.text().strip().rpartition("\n")[2]
            message = f"{describe_status(status)}{last and ': '}{last[-1000:]}"
            return outcome.failed("CommandFailed", message, traceback_text=stderr)
        stdout = self._stdout.text()
        if not self._spec.result_is_output and not self._stdout.is_cut and _is_json(stdout):
            return outcome.completed(stdout.strip())
        return outcome.completed(_output(status, stdout, stderr))


def _plan(call: Call) -> tuple[CommandSpec, str]:
    """Return what to run and its stdin.

    Raises: whatever the check of the payload raises.
    """
    handler, payload = call.handler, call.assignment.payload
    if handler.plan is not None:
        return handler.plan(handler.decode(payload))
    if handler.command is None:
        raise ValueError(f"kind {handler.kind!r} names no command")
    return handler.command, payload


def _environment(spec: CommandSpec, call: Call) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in spec.inherit_env if name in os.environ}
    return {**inherited, **spec.env, **identity(call)}


def _pipes(count: int) -> list[tuple[int, int]]:
    """Make pipes, all or none.

    Raises:
        OSError: there are too many open files.
    """
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for pair in made:
            os.close(pair[0])
            os.close(pair[1])
        raise
    return made


def _is_json(text: str) -> bool:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _output(status: int, stdout: str, stderr: str) -> str:
    """Return the output as a result, the ends of it if all is more than a result may be."""
    while True:
        text = json.dumps({"exit_code": status, "stdout": stdout, "stderr": stderr}, ensure_ascii=False)
        if len(text.encode()) <= DEFAULT_BOUNDS.result_bytes:
            return text
        stdout, stderr = _halved(stdout, stderr)


def _halved(stdout: str, stderr: str) -> tuple[str, str]:
    if len(stdout) >= len(stderr):
        return stdout[-(len(stdout) * 3 // 4) :], stderr
    return stdout, stderr[-(len(stderr) * 3 // 4) :]
