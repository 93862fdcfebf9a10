"""Executes plain and async functions in processes of their own, forked from the fork server.

Invariant: what comes back is JSON, in bounded frames; the attempt has ended when the process is gone, however it went.
A handler that ends in a signal, ``os._exit`` or out of memory has failed with ``ProcessDied``.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tenure.model.jobs import validate_spec
from tenure.model.logs import Level, LogLine
from tenure.model.states import Outcome
from tenure.worker.artifact import Artifact
from tenure.worker.execute import outcome
from tenure.worker.execute.call import Call, Ended, ErrorReport, ParkRequest
from tenure.worker.execute.forkserver import EXTEND_EVERY_S
from tenure.worker.execute.process_host import ForkedExecution, ProcessHost
from tenure.worker.upstream import UpstreamPage

_LINGER_S = 2.0
"""How long a process may take to exit after it has said how its attempt ended."""
_STOPPED = frozenset({Outcome.CANCELED, Outcome.TIMED_OUT, Outcome.RELEASED})


class ProcessEngine:
    """Begins attempts from the control loop."""

    def __init__(self, host: ProcessHost) -> None:
        self._host = host

    def begin(self, call: Call, timeout_at: float | None = None) -> ProcessExecution:
        """Start an attempt; never blocks."""
        execution = ProcessExecution(self._host, call, timeout_at)
        self._host.begin(execution)
        return execution

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop and kill what runs; the host is closed with it."""
        await self._host.close(grace_s)


class ProcessExecution(ForkedExecution):
    """One attempt in a forked process."""

    _ended: Ended | None = None
    _ticker: asyncio.TimerHandle | None = None
    _spool: Path | None = None
    """Where the child puts bytes on their way to the worker. It goes with the child, however that ended."""

    def start(self) -> None:
        """Fork and send the assignment."""
        call = self.bridge.call
        assignment = call.assignment
        self._spool = Path(tempfile.gettempdir(), f"tenure-artifacts-{secrets.token_hex(8)}")
        request = {
            "what": "attempt",
            "reference": call.handler.reference,
            "assignment": {**assignment._asdict(), "labels": dict(assignment.labels)},
            "deadline": self.shared(self.bridge.deadline()),
            "timeout_at": self.shared(self.bridge.timeout_at),
            "least_level": int(call.least_level),
            "env": identity(call),
            "spool": str(self._spool),
        }
        self.spawn(request, [])
        if call.handler.takes_context:
            self._tick()

    def take(self, frame: dict[str, Any]) -> None:
        """Handle the handler's requests and its end."""
        match frame["what"]:
            case "request":
                self._request(frame["number"], frame["method"], frame["arguments"])
            case "log":
                self._log(frame["line"], frame["dropped"])
            case "ended":
                self._ended = ended_from(frame)
                if frame["dropped"]:  # the last lines, which no other was there to tell of
                    self.bridge.drop_logs(int(frame["dropped"]))
                self.host.thread.loop.call_later(_LINGER_S, self._kill)

    def conclude(self) -> None:
        """Report what the handler said, or how its process died."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._spool is not None and self._spool.exists():
            shutil.rmtree(self._spool, ignore_errors=True)
        ended = self._ended
        if ended is None:
            ended = self.died()
        elif ended.outcome in _STOPPED and self.bridge.first_cause is not None:
            # The child may have seen the signal before the cause.
            ended = outcome.stopped(self.bridge.first_cause, ended.error)
        self.finish(ended)

    def _tick(self) -> None:
        """Keep the child's view of its deadline fresh."""
        if self.channel is not None and self.exit is None:
            at = self.shared(self.bridge.deadline())
            if at is not None:
                self.channel.send({"what": "deadline", "at": at}, may_drop=True)
            self._ticker = self.host.thread.loop.call_later(EXTEND_EVERY_S, self._tick)

    def _log(self, line: list[Any], dropped: int) -> None:
        at, level, message, fields, logger, code = line
        try:
            when = datetime.fromtimestamp(float(at), UTC)
        except (OverflowError, OSError) as exc:
            raise ValueError("no time that a calendar knows") from exc
        if dropped:
            self.bridge.drop_logs(int(dropped))
        self.bridge.write_log(LogLine(when, Level(level), str(message), str(fields), str(logger), str(code)))

    def _request(self, number: int, method: str, arguments: list[Any]) -> None:
        try:
            future = self._ask(method, arguments)
        except Exception as exc:  # malformed arguments are answered like any refusal
            self._answer(number, None, exc)
            return
        future.add_done_callback(lambda done: self.host.thread.post(partial(self._forward, number, done)))

    def _ask(self, method: str, arguments: list[Any]) -> Future[Any]:
        asks: dict[str, Callable[..., Future[Any]]] = {
            "progress": self.bridge.progress,
            "save_checkpoint": self.bridge.save_checkpoint,
            "read_upstream": self.bridge.read_upstream,
            "save_artifact": lambda name, path, kind: self.bridge.save_artifact(name, Path(path), kind),
            "submit_children": lambda jobs: self.bridge.submit_children([validate_spec(job) for job in jobs]),
        }
        return asks[method](*arguments)

    def _forward(self, number: int, done: Future[Any]) -> None:
        if done.cancelled():
            self._answer(number, None, RuntimeError("canceled"))
        else:
            problem = done.exception()
            value = None if problem else done.result()
            if isinstance(value, UpstreamPage):
                value = value.to_frame()
            elif isinstance(value, Artifact):
                value = asdict(value)
            self._answer(number, value, problem)

    def _answer(self, number: int, value: Any, problem: BaseException | None) -> None:
        answer: dict[str, Any] = {"what": "answer", "number": number, "value": value}
        if problem is not None:
            answer |= {"error": type(problem).__name__, "message": str(problem)}
        if self.channel is not None:
            self.channel.send(answer)


def identity(call: Call) -> dict[str, str]:
    """Return the environment by which a handler's process, and what it starts, knows its attempt."""
    assignment = call.assignment
    return {
        "TENURE_JOB_ID": assignment.job_id,
        "TENURE_ATTEMPT": str(assignment.attempt),
        "TENURE_FENCE": str(assignment.fence),
    }


def ended_from(frame: dict[str, Any]) -> Ended:
    """Rebuild how an attempt ended from what its process said.

    Raises:
        KeyError, TypeError, ValueError: it is malformed.
    """
    error, park = frame["error"], frame["park"]
    return Ended(
        outcome=Outcome(frame["outcome"]),
        result=frame["result"],
        error=ErrorReport(**{**error, "bases": tuple(error["bases"])}) if error else None,
        retryable=bool(frame["retryable"]),
        delay_s=float(frame["delay_s"]),
        spends_budget=bool(frame["spends_budget"]),
        park=ParkRequest(**{**park, "children": tuple(park["children"])}) if park else None,
    )
