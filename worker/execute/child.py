"""What runs in a forked handler process: one attempt, then the end.

Invariant: the process says how the attempt ended in one frame and exits; whatever happens otherwise (a signal,
``os._exit``, an end of memory) is seen by the worker as an exit without that frame. Called by ``forkserver_main`` in
the fork. SIGTERM asks the handler to stop: one that takes a context sees ``ctx.stopping``; one that takes none could
not look, so ``Stopped`` is raised in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import structlog

from tenure.model import errors
from tenure.model.clock import SystemClock
from tenure.model.jobs import JobSpec
from tenure.model.logs import Level, LogLine, bounded
from tenure.worker.artifact import Artifact, Source
from tenure.worker.context import AsyncContext, Context
from tenure.worker.execute import frames, outcome
from tenure.worker.execute.call import Assignment, Ended, StopCause
from tenure.worker.execute.thread_engine import perform
from tenure.worker.execute.watchdog import boottime
from tenure.worker.handler import Handler, definitions_of
from tenure.worker.log_capture import capturing
from tenure.worker.upstream import UpstreamPage

EXIT_BROKEN = 70
EXIT_ORPHANED = 71
EXIT_NOT_EXECUTED = 127
_CAUSE_WAIT_S = 0.1
_LOCK_WAIT_S = 0.1
"""How long a line of a log waits for another frame that is being sent."""

_preload_errors: dict[str, str] = {}


class Stopped(BaseException):
    """Raised by SIGTERM in a process handler that takes no context. Let it pass."""


def preload(modules: Sequence[str]) -> None:
    """Import the modules that the forks will need; one that fails is reported by each attempt that needs it."""
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as exc:  # a module may even call sys.exit; the others are still wanted
            _preload_errors[name] = f"{type(exc).__name__}: {exc}"
            sys.stderr.write(f"tenure: module {name!r} cannot be imported in the fork server\n")
            traceback.print_exc()


def run(fds: list[int]) -> NoReturn:
    """Read the request from the first descriptor and perform it."""
    connection = socket.socket(fileno=fds[0])
    request = frames.read(connection)
    if request is None:
        os._exit(EXIT_ORPHANED)
    if request["what"] == "command":
        _execute(connection, request, fds[1:])
    os.environ.update(request["env"])
    ended = _attempt(connection, request)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: neither exit handlers inherited from the fork server nor stray threads have a say.
    os._exit(0 if ended else EXIT_BROKEN)


def _execute(connection: socket.socket, request: dict[str, Any], stdio: list[int]) -> NoReturn:
    """Become the command. The connection closes itself when the program starts: its end says that it did."""
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target, inheritable=True)
        if request["cwd"]:
            os.chdir(request["cwd"])
        # Python ignores SIGPIPE; programs expect it.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except (OSError, ValueError) as exc:
        connection.sendall(frames.encode({"what": "not_executed", "error": str(exc)}))
    os._exit(EXIT_NOT_EXECUTED)


def _attempt(connection: socket.socket, request: dict[str, Any]) -> bool:
    link = PipeLink(connection, request)
    try:
        module, path = request["reference"]
        handler = find(module, path, request["assignment"]["kind"])
    except (ImportError, AttributeError, LookupError) as exc:
        ended = outcome.failed("HandlerNotFound", f"in the handler process: {exc}", retryable=False)
    else:
        assignment = Assignment(**request["assignment"])
        with capturing(10 * link.least_level, link.write_log):
            ended = (
                _asynchronously(handler, assignment, link) if handler.is_async else _plainly(handler, assignment, link)
            )
    nested = {name: asdict(one) for name in ("error", "park") if (one := getattr(ended, name)) is not None}
    return link.send({"what": "ended", **ended._asdict(), **nested, "dropped": link.dropped})


def find(module: str, path: str, kind: str) -> Handler:
    """Return the handler of a kind by where its function or class is.

    Raises:
        ImportError, AttributeError, LookupError: it is not there.
    """
    if module in _preload_errors:
        raise ImportError(f"module {module!r} could not be imported: {_preload_errors[module]}")
    target: Any = importlib.import_module(module)
    for name in path.split("."):
        target = getattr(target, name)
    for definition in definitions_of(target):
        if definition.kind == kind:
            return definition
    raise LookupError(f"{module}.{path} does not declare kind {kind!r}")


def _plainly(handler: Handler, assignment: Assignment, link: PipeLink) -> Ended:
    context = Context(assignment, link, SystemClock(), _shown())
    link.on_stop = context.notice

    def stop(*_: object) -> None:
        link.told_by_signal()
        if not handler.takes_context:
            raise Stopped

    signal.signal(signal.SIGTERM, stop)
    link.listen()
    ended = perform(handler, assignment.payload, link, lambda: context)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return ended


def _asynchronously(handler: Handler, assignment: Assignment, link: PipeLink) -> Ended:
    async def attempt() -> Ended:
        loop = asyncio.get_running_loop()
        context = AsyncContext(assignment, link, SystemClock(), _shown())
        task = asyncio.current_task()

        def stop() -> None:
            context.notice()
            if task is not None:
                task.cancel()

        link.on_stop = lambda: loop.call_soon_threadsafe(stop)
        loop.add_signal_handler(signal.SIGTERM, link.told_by_signal)
        link.listen()
        try:
            arguments = handler.arguments(assignment.payload, lambda: context)
        except Exception as exc:  # ValueError or whatever a user's validator raises
            return outcome.invalid_payload(exc)
        try:
            return outcome.returned(await handler.function()(*arguments))
        except BaseException as exc:  # whatever user code raises ends the attempt
            return outcome.raised(exc, handler, link.first_cause)

    return asyncio.run(attempt())


def _shown() -> Any:
    """Return what shows the lines of ``ctx.log`` in the worker's own log; None: as a module of the user's has set up.

    Without anything structlog would show tracebacks with variables, which may hold secrets.
    """
    if structlog.is_configured():
        return None
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


class PipeLink:
    """The link of an attempt in its own process: requests go over the connection, a thread reads the answers."""

    def __init__(self, connection: socket.socket, request: dict[str, Any]) -> None:
        self.first_cause: StopCause | None = None
        self.cause: StopCause | None = None
        self.on_stop: Callable[[], object] = lambda: None
        self._connection = connection
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._told = threading.Event()
        self._numbers = itertools.count()
        self._clock = SystemClock()
        self._deadline: float | None = request["deadline"]
        self._timeout_at: float | None = request["timeout_at"]
        self.least_level = Level(request["least_level"])
        self._spool = Path(request["spool"])
        self.dropped = 0

    @property
    def timeout_at(self) -> float | None:
        """The instant of the timeout, by this process' clock."""
        return None if self._timeout_at is None else self._local(self._timeout_at)

    def deadline(self) -> float:
        """Return the instant until which the claim is trusted, as last heard from the worker."""
        return float("inf") if self._deadline is None else self._local(self._deadline)

    def progress(self, fraction: float, message: str) -> Future[None]:
        """Send a progress report."""
        return self._ask("progress", [fraction, message])

    def save_checkpoint(self, text: str) -> Future[None]:
        """Send a checkpoint."""
        return self._ask("save_checkpoint", [text])

    def submit_children(self, jobs: Sequence[JobSpec]) -> Future[list[str]]:
        """Send jobs to submit."""
        return self._ask("submit_children", [[job.model_dump(mode="json", exclude_unset=True) for job in jobs]])

    def read_upstream(self, after: str) -> Future[UpstreamPage]:
        """Ask for a page of what became of the jobs that this one waited for."""
        page: Future[UpstreamPage] = Future()

        def take(answer: Future[Any]) -> None:
            if problem := answer.exception():
                page.set_exception(problem)
            else:
                page.set_result(UpstreamPage.from_frame(answer.result()))

        self._ask("read_upstream", [after]).add_done_callback(take)
        return page

    def save_artifact(self, name: str, source: Source, content_type: str) -> Future[Artifact]:
        """Have the worker upload a file; bytes go there through one."""
        saved: Future[Artifact] = Future()
        path, mine = (_spooled(source, self._spool), True) if isinstance(source, bytes) else (source, False)

        def take(answer: Future[Any]) -> None:
            if mine:
                path.unlink(missing_ok=True)
            if problem := answer.exception():
                saved.set_exception(problem)
            else:
                saved.set_result(Artifact(**answer.result()))

        self._ask("save_artifact", [name, str(path), content_type]).add_done_callback(take)
        return saved

    def send(self, frame: dict[str, Any]) -> bool:
        """Send a frame; False if the worker is gone."""
        try:
            data = frames.encode(frame)
            with self._sending:
                self._connection.sendall(data)
        except (OSError, frames.BrokenFrame):
            return False
        return True

    def write_log(self, line: LogLine) -> None:
        """Send a line if the worker takes it now; else it is dropped, and the next one says so. Never raises."""
        at, level, *texts = bounded(line)
        # Where the lock is held for long, the worker reads nothing: it is stopped, or busy with what a thread sends.
        if not self._sending.acquire(timeout=_LOCK_WAIT_S):
            self.dropped += 1
            return
        try:
            data = frames.encode({"what": "log", "line": [at.timestamp(), level, *texts], "dropped": self.dropped})
            sent = self._connection.send(data, socket.MSG_DONTWAIT)
            self.dropped = 0
            if sent < len(data):  # a frame that was begun must be ended
                self._connection.sendall(data[sent:])
        except (OSError, frames.BrokenFrame):
            self.dropped += 1
        finally:
            self._sending.release()

    def listen(self) -> None:
        """Begin to read what the worker sends."""
        threading.Thread(target=self._listen, name="tenure-link", daemon=True).start()

    def told_by_signal(self) -> None:
        """Take note of a SIGTERM; its cause comes (or came) as a frame, unless somebody else sent the signal."""
        self._told.wait(_CAUSE_WAIT_S)
        self._stop(self.cause or StopCause.RELEASED)

    def _ask(self, method: str, arguments: list[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        number = next(self._numbers)
        self._waiting[number] = future
        if not self.send({"what": "request", "number": number, "method": method, "arguments": arguments}):
            del self._waiting[number]
            future.set_exception(errors.OwnershipLost("the worker is gone"))
        return future

    def _listen(self) -> None:
        # A broken connection is the end of the worker as far as this process can tell.
        with contextlib.suppress(OSError, frames.BrokenFrame):
            while (frame := frames.read(self._connection)) is not None:
                self._take(frame)
        self._stop(StopCause.LOST)
        while self._waiting:
            _, future = self._waiting.popitem()
            future.set_exception(errors.OwnershipLost("the worker is gone"))

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["what"]:
            case "stop":
                self._stop(StopCause(frame["cause"]))
            case "deadline":
                self._deadline = frame["at"]
            case "answer":
                future = self._waiting.pop(frame["number"], None)
                if future is not None and frame.get("error"):
                    future.set_exception(error_from(frame["error"], frame["message"]))
                elif future is not None:
                    future.set_result(frame["value"])

    def _stop(self, cause: StopCause) -> None:
        if self.first_cause is None:
            self.first_cause = cause
        if self.cause is None or cause is StopCause.LOST:
            self.cause = cause
        self._told.set()
        self.on_stop()

    def _local(self, instant: float) -> float:
        return self._clock.monotonic() + (instant - boottime())


def _spooled(data: bytes, folder: Path) -> Path:
    """Return a file that holds some bytes: more than fit into a frame. The worker removes the folder in the end."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Path(name)


def error_from(name: str, message: str) -> Exception:
    """Return the error that a reporter raised, rebuilt from its name."""
    known = {cls.__name__: cls for cls in errors.BY_GRPC_STATUS.values()}
    if name == "InvalidInput":
        return errors.InvalidInput([errors.FieldViolation("request", message)])
    return known.get(name, errors.TenureError)(message)
