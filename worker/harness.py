"""Tests handlers without any server: the real engines, with a recording in place of the service.

    harness = Harness()
    run = await harness.run(resize, {"width": 100}, attempt=2, checkpoint={"done": 3})
    assert run.outcome == "completed" and run.result == {"pixels": 100}

For users' tests, and ours. Invariant: what a handler sees here is what it sees in a worker: the same payload checks,
threads, processes, cancellations and refusals.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydantic_core
import structlog

from tenure.model.clock import SystemClock
from tenure.model.errors import ConfigurationError, FieldViolation, InvalidInput, NotFound, OwnershipLost
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec
from tenure.model.logs import Level, LogLine, bounded
from tenure.model.states import Outcome
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Assignment, Call, Ended, ErrorReport, Execution, StopCause
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Handler, Registry, definitions_of
from tenure.worker.log_capture import capturing
from tenure.worker.upstream import UpstreamJob, UpstreamPage


@dataclass(frozen=True, slots=True)
class Reports:
    """A moment in an attempt: after its ``count``-th progress report or checkpoint has been taken."""

    count: int = 1


Moment = float | Reports | Callable[[], bool]
"""Seconds after the attempt began, a number of reports, or a condition of the outside world (looked at often)."""
_LOOK_EVERY_S = 0.02
_UPSTREAM_PAGE = 100


@dataclass(slots=True)
class Run:
    """What an attempt did. ``result`` is parsed; ``logs`` holds what it logged: ``event``, ``log_level``, fields."""

    ended: Ended
    progress: list[tuple[float, str]] = field(default_factory=list)
    checkpoints: list[Any] = field(default_factory=list)
    children: list[JobSpec] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """What it saved, by name."""
    logs: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    """How many of its requests were refused because the claim was lost."""

    @property
    def outcome(self) -> Outcome:
        """How the attempt ended."""
        return self.ended.outcome

    @property
    def result(self) -> Any:
        """The result, None unless completed."""
        return json.loads(self.ended.result) if self.ended.result is not None else None

    @property
    def error(self) -> ErrorReport | None:
        """What went wrong."""
        return self.ended.error


class Harness:
    """Runs handlers. As an ``async with`` block it keeps its threads and processes between runs."""

    def __init__(self, *, modules: Sequence[str] = (), stop_grace_s: float = 1.0) -> None:
        self._modules = modules
        self._stop_grace_s = stop_grace_s
        self._engines: Engines | None = None

    async def __aenter__(self) -> Self:
        self._engines = self._make()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engines is not None:
            await self._engines.close(self._stop_grace_s)
            self._engines = None

    def run_sync(self, target: Callable[..., Any] | Handler, payload: Any = None, **options: Any) -> Run:
        """Run one attempt from a plain test; arguments as ``run``."""
        return asyncio.run(self.run(target, payload, **options))

    async def run(
        self,
        target: Callable[..., Any] | Handler,
        payload: Any = None,
        *,
        attempt: int = 1,
        checkpoint: Any = None,
        kind: str | None = None,
        job_id: str | None = None,
        namespace: str = "default",
        route: str = "default",
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        parked_attempt: int | None = None,
        upstream: Sequence[UpstreamJob] = (),
        timeout_s: float | None = None,
        cancel_after: Moment | None = None,
        lose_claim_after: Moment | None = None,
        release_after: Moment | None = None,
        kill_after: Moment | None = None,
    ) -> Run:
        """Run one attempt of a decorated function or class, or of a ``Handler``, to its end.

        ``payload`` and ``checkpoint`` are values (turned into JSON). The ``…_after`` moments stop the attempt as the
        service would. ``kind`` chooses among several kinds of one function. ``ctx.upstream()`` gives ``upstream``.

        Raises:
            ConfigurationError: the target declares no handler, or not this kind.
        """
        definition = _definition(target, kind)
        assignment = Assignment(
            job_id=job_id or str(new_id()),
            attempt=attempt,
            fence=(1 << 47) + attempt,
            namespace=namespace,
            kind=definition.kind,
            route=route,
            payload=pydantic_core.to_json(payload).decode(),
            checkpoint=None if checkpoint is None else pydantic_core.to_json(checkpoint).decode(),
            labels=labels or {},
            timeout_s=timeout_s,
            parent_id=parent_id,
            parked_attempt=parked_attempt,
        )
        moments = [
            (StopCause.CANCELED, cancel_after),
            (StopCause.LOST, lose_claim_after),
            (StopCause.RELEASED, release_after),
            (None, kill_after),
        ]
        engines = self._engines or self._make()
        try:
            return await _Recording(definition, assignment, upstream).perform(engines, moments)
        finally:
            if engines is not self._engines:
                await engines.close(self._stop_grace_s)

    def _make(self) -> Engines:
        return Engines(Registry(), modules=self._modules, stop_grace_s=self._stop_grace_s)


class _Recording:
    """The service's part in one attempt."""

    def __init__(self, definition: Handler, assignment: Assignment, upstream: Sequence[UpstreamJob]) -> None:
        self._definition = definition
        self._assignment = assignment
        self._upstream = upstream
        self._clock = SystemClock()
        self._run = Run(Ended(Outcome.LOST))
        self._reports = 0
        self._is_lost = False
        self._triggers: dict[int, list[Callable[[], None]]] = {}

    async def perform(self, engines: Engines, moments: list[tuple[StopCause | None, Moment | None]]) -> Run:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Ended] = loop.create_future()
        # Lines are recorded, and shown nowhere.
        log = structlog.wrap_logger(None, processors=[_drop], context_class=dict, cache_logger_on_first_use=False)
        timers: list[asyncio.TimerHandle] = []
        execution: Execution = engines.begin(
            Call(self._definition, self._assignment, self, ended.set_result, log, self, Level.DEBUG),
        )
        for cause, moment in moments:
            if isinstance(moment, Reports):
                self._triggers.setdefault(moment.count, []).append(self._stopper(execution, cause))
            elif callable(moment):
                self._when(timers, moment, self._stopper(execution, cause))
            elif moment is not None:
                timers.append(loop.call_later(moment, self._stopper(execution, cause)))
        try:
            with capturing(logging.DEBUG):
                self._run.ended = await ended
        finally:
            for timer in timers:
                timer.cancel()
        return self._run

    def deadline(self) -> float:
        return self._clock.monotonic() if self._is_lost else math.inf

    async def progress(self, fraction: float, message: str) -> None:
        self._admit()
        self._run.progress.append((fraction, message))
        self._count()

    async def save_checkpoint(self, text: str) -> None:
        self._admit()
        self._run.checkpoints.append(json.loads(text))
        self._count()

    async def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        self._admit()
        self._run.children.extend(jobs)
        return [str(new_id()) for _ in jobs]

    async def save_artifact(self, name: str, source: Source, content_type: str) -> Artifact:
        self._admit()
        data = source if isinstance(source, bytes) else await asyncio.to_thread(_read, source)
        self._run.artifacts[name] = data
        return Artifact(name, len(data), hashlib.sha256(data).hexdigest())

    async def read_upstream(self, after: str) -> UpstreamPage:
        self._admit()
        place = int(after or 0)
        rest = len(self._upstream) > place + _UPSTREAM_PAGE
        return UpstreamPage(self._upstream[place : place + _UPSTREAM_PAGE], str(place + _UPSTREAM_PAGE) if rest else "")

    async def load_result(self, job: str) -> bytes:
        self._admit()
        found = next((one for one in self._upstream if one.id == job and one.result_text is not None), None)
        if found is None or found.result_text is None:
            raise NotFound(f"there is no result of job {job}: give its ``result_text``")
        return found.result_text.encode()

    def write_log(self, line: LogLine) -> None:
        line = bounded(line)
        fields = json.loads(line.fields) if line.fields else {}
        named = {"logger": line.logger} if line.logger else {}
        self._run.logs.append({**fields, **named, "event": line.message, "log_level": line.level.word})

    def takes_logs(self) -> bool:
        return True

    def drop_logs(self, lines: int) -> None:
        pass

    def _stopper(self, execution: Execution, cause: StopCause | None) -> Callable[[], None]:
        def act() -> None:
            if cause is None:
                execution.kill()
                return
            self._is_lost = self._is_lost or cause is StopCause.LOST
            execution.stop(cause)

        return act

    def _when(self, timers: list[asyncio.TimerHandle], holds: Callable[[], bool], act: Callable[[], None]) -> None:
        if holds():
            act()
        else:
            loop = asyncio.get_running_loop()
            timers[:] = [one for one in timers if one.when() > loop.time()]
            timers.append(loop.call_later(_LOOK_EVERY_S, self._when, timers, holds, act))

    def _admit(self) -> None:
        if self._is_lost:
            self._run.refused += 1
            raise OwnershipLost("the claim is lost")

    def _count(self) -> None:
        self._reports += 1
        for act in self._triggers.pop(self._reports, ()):
            act()


def _drop(logger: Any, method: str, event: Any) -> Any:
    raise structlog.DropEvent


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidInput([FieldViolation("path", f"{path} cannot be read: {exc.strerror}")]) from exc


def _definition(target: Callable[..., Any] | Handler, kind: str | None) -> Handler:
    found = [one for one in definitions_of(target) if kind in (None, one.kind)]
    if len(found) != 1:
        raise ConfigurationError(
            f"{target!r} declares {len(found)} handlers" + (f" of kind {kind!r}" if kind else ""),
            hint='decorate it with @handler("kind"); if it has several kinds, say which: run(..., kind="…")',
        )
    return found[0]
