"""The context: what a handler may know about its attempt, and what it may ask for while it runs.

Owns the two faces of one thing: ``AsyncContext`` (coroutines, for ``async def``) and ``Context`` (blocking calls, for
threads and processes), with the same names. Invariant: building one is cheap (events, logger and checkpoint are made
when first looked at), since most attempts look at little. Made by the engines; how the requests travel is the
``Link``'s business.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import pydantic_core
import structlog

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.dependencies import Trigger
from tenure.model.errors import FieldViolation, InvalidInput, OwnershipLost, Unavailable
from tenure.model.jobs import JobSpec, json_error, validate_spec
from tenure.model.logs import HANDLERS_LOGGER, Level, LogLine
from tenure.model.objects import CONTENT_TYPE, DEFAULT_CONTENT_TYPE, artifact_name_error
from tenure.probes import tracing
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Assignment, StopCause
from tenure.worker.log_capture import handler_logger
from tenure.worker.signals import Park, Reschedule
from tenure.worker.upstream import UpstreamJob, UpstreamPage

T = TypeVar("T")
Data = bytes | bytearray | memoryview | str | os.PathLike[str]
"""Of an artifact: what it holds, or where that lies."""
KEEP: Any = object()
"""For ``park``: the checkpoint stays as it was saved."""
REQUEST_TIMEOUT_S = 60.0
"""How long a handler waits for the answer to a request; the outcome is unknown after it."""


class Link(Protocol):
    """Carries a handler's requests to the attempt's reporter. Thread-safe; nothing here blocks."""

    @property
    def cause(self) -> StopCause | None:
        """Why the handler is told to stop, or None while it is not."""
        ...

    @property
    def timeout_at(self) -> float | None:
        """The monotonic instant at which the attempt times out."""
        ...

    def deadline(self) -> float:
        """Return the monotonic instant until which the claim is trusted."""
        ...

    def progress(self, fraction: float, message: str) -> Future[None]:
        """Send a progress report."""
        ...

    def save_checkpoint(self, text: str) -> Future[None]:
        """Send a checkpoint."""
        ...

    def submit_children(self, jobs: Sequence[JobSpec]) -> Future[list[str]]:
        """Send jobs to submit."""
        ...

    def read_upstream(self, after: str) -> Future[UpstreamPage]:
        """Ask for a page of what became of the jobs that this one waited for."""
        ...

    def load_result(self, job: str) -> Future[bytes]:
        """Ask for the result of a job that this one waited for."""
        ...

    def write_log(self, line: LogLine) -> None:
        """Add a line to the attempt's log; never raises."""
        ...

    @property
    def least_level(self) -> Level:
        """The level from which on lines are kept."""
        ...

    def save_artifact(self, name: str, source: Source, content_type: str) -> Future[Artifact]:
        """Upload a file."""
        ...


class Attempt(ABC):
    """What both contexts know. Not used by itself."""

    def __init__(self, assignment: Assignment, link: Link, clock: Clock, log: Any = None) -> None:
        self._assignment = assignment
        self._link = link
        self._clock = clock
        self._log = log
        self._children: dict[str, int] = {}
        self._refused = False

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._assignment.job_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._assignment.attempt

    @property
    def fence(self) -> int:
        """The fence of this attempt: hand it to your own external writes and refuse smaller ones there."""
        return self._assignment.fence

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        return self._assignment.namespace

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self._assignment.kind

    @property
    def route(self) -> str:
        """The job's route."""
        return self._assignment.route

    @property
    def labels(self) -> Mapping[str, str]:
        """The job's labels."""
        return dict(self._assignment.labels)  # one that can be pickled, and written as JSON

    @property
    def parent_id(self) -> str | None:
        """The id of the job whose attempt submitted this one."""
        return self._assignment.parent_id

    @cached_property
    def checkpoint(self) -> Any:
        """What an earlier attempt saved last, parsed; None if nothing."""
        text = self._assignment.checkpoint
        return json.loads(text) if text else None

    @property
    def resumed_from_park(self) -> bool:
        """Whether an earlier attempt parked: ``upstream`` then tells of the children that it parked on."""
        return self._assignment.parked_attempt is not None

    @cached_property
    def log(self) -> Any:
        """A structlog logger: its lines are kept in the attempt's log, and shown in the worker's own with the job."""
        logger = self._log if self._log is not None else structlog.get_logger(HANDLERS_LOGGER)
        shown = logger.bind(job_id=self.job_id, attempt=self.attempt, kind=self.kind, namespace=self.namespace)
        return handler_logger(self._link.write_log, shown, self._link.least_level)

    @property
    def cause(self) -> StopCause | None:
        """Why this attempt is to stop, or None while it is not."""
        return self._link.cause or (StopCause.LOST if self._refused else None)

    @property
    def deadline(self) -> float:
        """The monotonic instant until which this attempt may act: its trust (which moves on) or its timeout."""
        trusted, timeout_at = self._link.deadline(), self._link.timeout_at
        return trusted if timeout_at is None else min(trusted, timeout_at)

    def remaining_s(self) -> float:
        """Return the seconds until ``deadline``, never negative."""
        return max(0.0, self.deadline - self._clock.monotonic())

    def reschedule(self, delay_s: float, reason: str = "", *, spend_budget: bool = False) -> NoReturn:
        """End this attempt here, and run the job again after ``delay_s`` seconds.

        Counts as no error unless ``spend_budget``: then the job fails when its ``max_attempts`` are used up.

        Raises:
            Reschedule: always; let it through. ValueError: the delay is out of range.
        """
        raise Reschedule(delay_s, reason, spend_budget=spend_budget)

    def park(
        self, children: Iterable[str], *, checkpoint: Any = KEEP, trigger: Trigger | str = Trigger.ALL_FINISHED
    ) -> NoReturn:
        """End this attempt here, and run the job again when ``children`` have ended as ``trigger`` says.

        ``children`` are ids that ``submit_children`` gave, of this attempt or an earlier one; while the job waits for
        them it occupies no worker. ``checkpoint`` is kept with it, in one transaction. Counts as no error.

        Raises:
            Park: always; let it through. InvalidInput: the checkpoint is too large.
        """
        raise Park(
            children, checkpoint=None if checkpoint is KEEP else self._checkpoint_text(checkpoint), trigger=trigger
        )

    def _is_lost(self) -> bool:
        return self._refused or self._link.cause is StopCause.LOST

    @abstractmethod
    def _lose(self) -> None: ...

    def _child(self, kind: str, payload: Any, spec: Mapping[str, Any]) -> JobSpec:
        """Build a child: in the parent's namespace and on its route unless said otherwise, with a name of its own."""
        values: dict[str, Any] = {"namespace": self.namespace, "route": self.route, **spec}
        values["kind"] = kind
        values["payload"] = pydantic_core.to_json(payload).decode()
        if not values.get("ref") and not values.get("idempotency_key"):
            # The same children from a repeated attempt must get the same names: by content, then by count.
            text = json.dumps([kind, values["payload"], {k: str(v) for k, v in spec.items()}], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()[:24]
            count = self._children[digest] = self._children.get(digest, 0) + 1
            values["ref"] = f"auto-{digest}-{count}"
        return validate_spec(values)

    @staticmethod
    def _checkpoint_text(value: Any) -> str:
        text = pydantic_core.to_json(value).decode()
        if problem := json_error(text, max_bytes=DEFAULT_BOUNDS.checkpoint_bytes, max_depth=DEFAULT_BOUNDS.json_depth):
            raise InvalidInput([FieldViolation("checkpoint", problem)])
        return text

    @staticmethod
    def _artifact(name: str, data: Data, content_type: str) -> tuple[str, Source, str]:
        problems = [("name", artifact_name_error(name))]
        if not CONTENT_TYPE.fullmatch(content_type):
            problems.append(("content_type", "must be such as text/csv"))
        if violations := [FieldViolation(field, problem) for field, problem in problems if problem]:
            raise InvalidInput(violations)
        source = Path(data).absolute() if isinstance(data, str | os.PathLike) else bytes(data)
        return name, source, content_type

    @staticmethod
    def _progress(fraction: float, message: str) -> tuple[float, str]:
        if not 0.0 <= fraction <= 1.0:
            raise InvalidInput([FieldViolation("fraction", f"is {fraction}; it must be 0 to 1")])
        return float(fraction), message[: DEFAULT_BOUNDS.progress_message_chars]


class AsyncContext(Attempt):
    """The context of an ``async def`` handler. It is cancelled to stop; the events say why."""

    @cached_property
    def lost(self) -> asyncio.Event:
        """Set when the claim is lost: stop, and write nothing more to the outside."""
        return _event(asyncio.Event(), self._is_lost())

    @cached_property
    def stopping(self) -> asyncio.Event:
        """Set when the handler is told to stop, for whatever ``cause``."""
        return _event(asyncio.Event(), self.cause is not None)

    def notice(self) -> None:
        """Set the events after a stop; called by the engine on the handler loop."""
        made = self.__dict__
        if self._is_lost() and "lost" in made:
            self.lost.set()
        if "stopping" in made:
            self.stopping.set()

    async def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, 0 to 1.

        Raises:
            InvalidInput: out of range; OwnershipLost: the claim is gone; Unavailable: no answer.
        """
        await self._ask(self._link.progress(*self._progress(fraction, message)))

    async def save_checkpoint(self, value: Any) -> None:
        """Keep a JSON-able value for the job's next attempt.

        Raises:
            InvalidInput: it is too large; OwnershipLost: the claim is gone; Unavailable: no answer.
        """
        await self._ask(self._link.save_checkpoint(self._checkpoint_text(value)))

    async def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Submit jobs on behalf of this attempt, all or none; return their ids in order.

        Each needs a ``ref`` or an ``idempotency_key``: a repeated attempt finds them again under it.

        Raises:
            InvalidInput: a bad job; OwnershipLost: the claim is gone; Unavailable: no answer.
        """
        return await self._ask(self._link.submit_children(tracing.carrying(jobs)))

    async def upstream(self) -> list[UpstreamJob]:
        """Return what became of the jobs that this one waited for last, with their results, in the order of their ids.

        Those that it depends on; once an attempt has parked, the children that it parked on.

        Raises:
            OwnershipLost: the claim is gone; Unavailable: no answer.
        """
        jobs: list[UpstreamJob] = []
        page = await self._ask(self._link.read_upstream(""))
        jobs.extend(page.jobs)
        while page.next:
            page = await self._ask(self._link.read_upstream(page.next))
            jobs.extend(page.jobs)
        return jobs

    async def result_of(self, job: UpstreamJob) -> Any:
        """Return the result of a job that ``upstream`` gave, wherever it is kept; None if it has none.

        One that is ``large`` is fetched from the object store, of at most 16 MiB, and compared with its SHA-256.

        Raises:
            NotFound: it was lost. OwnershipLost: the claim is gone. Unavailable: it could not be fetched.
        """
        if job.large is None:
            return job.result
        text: bytes = await self._ask(self._link.load_result(job.id), timeout_s=None)
        return json.loads(text)

    async def submit_child(self, kind: str, payload: Any = None, **spec: Any) -> str:
        """Submit one job on behalf of this attempt and return its id; ``spec`` are fields of ``JobSpec``.

        Raises: as ``submit_children``.
        """
        return (await self.submit_children([self._child(kind, payload, spec)]))[0]

    async def save_artifact(self, name: str, data: Data, *, content_type: str = DEFAULT_CONTENT_TYPE) -> Artifact:
        """Save a file of this attempt in the object store: bytes, or (a text or path) what lies there.

        It belongs to the attempt, and is there to read once this returns; the same name again replaces it. Sent again a
        few times where that fails.

        Raises:
            InvalidInput: a bad name, no file, or too large; OwnershipLost: the claim is gone; WrongState: there is no
            object store; Unavailable: it could not be sent.
        """
        return await self._ask(self._link.save_artifact(*self._artifact(name, data, content_type)), timeout_s=None)

    async def _ask(self, future: Future[T], timeout_s: float | None = REQUEST_TIMEOUT_S) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as exc:
            raise Unavailable(f"no answer within {REQUEST_TIMEOUT_S:g} s; the outcome is unknown") from exc
        except OwnershipLost:
            self._lose()
            raise

    def _lose(self) -> None:
        self._refused = True
        self.notice()


class Context(Attempt):
    """The context of a plain function, in a thread or in a process. Its requests block the caller."""

    @property
    def lost(self) -> threading.Event:
        """Set when the claim is lost: stop, and write nothing more to the outside."""
        event: threading.Event = self.__dict__.setdefault("_lost", threading.Event())
        # A stop that comes while the event is made sees none to set: look again now that it is there.
        if self._is_lost():
            event.set()
        return event

    @property
    def stopping(self) -> threading.Event:
        """Set when the handler is told to stop, for whatever ``cause``. Look at it often: a thread cannot be killed."""
        event: threading.Event = self.__dict__.setdefault("_stopping", threading.Event())
        if self.cause is not None:
            event.set()
        return event

    def notice(self) -> None:
        """Set the events after a stop; called by the engine from another thread."""
        made = self.__dict__
        if self._is_lost() and "_lost" in made:
            made["_lost"].set()
        if "_stopping" in made:
            made["_stopping"].set()

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, 0 to 1. Raises as ``AsyncContext.progress``."""
        self._ask(self._link.progress(*self._progress(fraction, message)))

    def save_checkpoint(self, value: Any) -> None:
        """Keep a JSON-able value for the job's next attempt. Raises as ``AsyncContext.save_checkpoint``."""
        self._ask(self._link.save_checkpoint(self._checkpoint_text(value)))

    def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Submit jobs on behalf of this attempt. As ``AsyncContext.submit_children``."""
        return self._ask(self._link.submit_children(tracing.carrying(jobs)))

    def upstream(self) -> list[UpstreamJob]:
        """Return what became of the jobs that this one waited for last. As ``AsyncContext.upstream``."""
        page = self._ask(self._link.read_upstream(""))
        jobs = list(page.jobs)
        while page.next:
            page = self._ask(self._link.read_upstream(page.next))
            jobs.extend(page.jobs)
        return jobs

    def result_of(self, job: UpstreamJob) -> Any:
        """Return the result of a job that ``upstream`` gave, wherever it is kept. As ``AsyncContext.result_of``."""
        if job.large is None:
            return job.result
        return json.loads(self._ask(self._link.load_result(job.id), timeout_s=None))

    def submit_child(self, kind: str, payload: Any = None, **spec: Any) -> str:
        """Submit one job on behalf of this attempt and return its id. As ``AsyncContext.submit_child``."""
        return self.submit_children([self._child(kind, payload, spec)])[0]

    def save_artifact(self, name: str, data: Data, *, content_type: str = DEFAULT_CONTENT_TYPE) -> Artifact:
        """Save a file of this attempt in the object store. As ``AsyncContext.save_artifact``."""
        return self._ask(self._link.save_artifact(*self._artifact(name, data, content_type)), timeout_s=None)

    def _ask(self, future: Future[T], timeout_s: float | None = REQUEST_TIMEOUT_S) -> T:
        try:
            return future.result(timeout_s)
        except TimeoutError as exc:
            raise Unavailable(f"no answer within {REQUEST_TIMEOUT_S:g} s; the outcome is unknown") from exc
        except OwnershipLost:
            self._lose()
            raise

    def _lose(self) -> None:
        self._refused = True
        self.notice()


def _event(event: asyncio.Event, is_set: bool) -> asyncio.Event:
    if is_set:
        event.set()
    return event
