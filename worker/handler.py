"""Handlers: how user code says which kinds it performs, and how a worker finds them.

Owns the decorator, the definition that it makes (``Handler``), and the registry. Invariant: a definition is complete
and checked when it is declared; nothing about it is discovered while a job runs. Called by user modules, the worker and
the harness. Runs nothing: that is ``worker/execute``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import ModuleType
from typing import Any, TypeVar

import pydantic_core
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from tenure.model.errors import ConfigurationError
from tenure.model.routes import kind_error
from tenure.worker.context import AsyncContext, Context
from tenure.worker.signals import Fail as Fail
from tenure.worker.signals import Park as Park
from tenure.worker.signals import Reschedule as Reschedule

T = TypeVar("T", bound=Callable[..., Any])
_ATTRIBUTE = "__tenure_handlers__"
_CONTEXTS = (Context, AsyncContext)
INHERITED_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")


class Mode(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    """On the handler loop, cancelled to stop."""
    THREAD = "thread"
    """In a thread, asked to stop through ``ctx.stopping``; cannot be killed."""
    PROCESS = "process"
    """In a process of its own, which can be killed."""
    COMMAND = "command"
    """A program, which can be killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """What a command handler runs. Nothing in it comes from the payload, which goes to the program's stdin."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the inherited environment (see ``inherit_env``)."""
    cwd: str | None = None
    inherit_env: tuple[str, ...] = INHERITED_ENV
    """Names taken over from the worker's environment; its secrets stay behind."""
    output_bytes: int = 64 * 1024
    """How much of the end of stdout and of stderr is kept, each."""
    timeout_s: float | None = None
    """A bound that came with the payload, beside the job's and the handler's."""
    result_is_output: bool = False
    """True: the result is always {exit_code, stdout, stderr}, also where stdout is JSON."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Handler:
    """One kind and what performs it. Made by ``handler`` and ``command_handler``."""

    kind: str
    mode: Mode
    target: Callable[..., Any] | None = None
    """The function or class; None for a command."""
    payload: TypeAdapter[Any] | None = None
    """Checks payloads; None: whatever JSON it is."""
    takes_payload: bool = True
    takes_context: bool = False
    is_async: bool = False
    timeout_s: float | None = None
    """Upper bound of an attempt; the job's own timeout may be shorter."""
    retryable: bool = True
    """Whether exceptions that the handler raises are worth another attempt."""
    non_retryable: tuple[type[BaseException], ...] = ()
    command: CommandSpec | None = None
    plan: Callable[[Any], tuple[CommandSpec, str]] | None = None
    """For the built-in ``command`` kind: makes the command and its stdin from the payload."""
    instance: list[Any] = field(default_factory=list, repr=False)

    @property
    def reference(self) -> tuple[str, str]:
        """Return the module and the path within it under which another process finds the target."""
        target = self.target
        return (getattr(target, "__module__", ""), getattr(target, "__qualname__", ""))

    def decode(self, text: str) -> Any:
        """Return the payload as the handler's type.

        Raises:
            pydantic.ValidationError: it does not fit; ValueError: it is not JSON.
        """
        if self.payload is None:
            return pydantic_core.from_json(text)
        return self.payload.validate_json(text)

    def function(self) -> Callable[..., Any]:
        """Return what to call: the function itself, or the bound ``run`` of the class' one instance."""
        target = self.target
        if not isinstance(target, type):
            if target is None:
                raise ConfigurationError(f"kind {self.kind!r} is a command, not a function")
            return target
        if not self.instance:
            with _instances:
                if not self.instance:
                    self.instance.append(target().run)
        run: Callable[..., Any] = self.instance[0]
        return run

    def arguments(self, payload: str, context: Callable[[], Any]) -> tuple[Any, ...]:
        """Return the positional arguments; ``context`` is asked only if the handler takes one.

        Raises: as ``decode``.
        """
        if self.takes_payload:
            value = self.decode(payload)
            return (value, context()) if self.takes_context else (value,)
        return (context(),) if self.takes_context else ()


_instances = threading.Lock()


def handler(
    kind: str,
    *,
    mode: Mode | str | None = None,
    timeout_s: float | None = None,
    retryable: bool = True,
    non_retryable: tuple[type[BaseException], ...] = (),
) -> Callable[[T], T]:
    """Declare that a function or class performs ``kind``; it stays callable as it was.

    ``async def`` runs on the handler loop, ``def`` in a thread, either in a process with ``mode="process"``. The
    first parameter is the payload, checked against its annotation; a parameter named ``ctx`` (or annotated as a
    context) receives the ``AsyncContext`` or ``Context``. A class has a method ``run`` with these parameters and
    one instance per process, made at its first attempt without arguments.

    Raises:
        ConfigurationError: a bad kind, mode, timeout or signature.
    """

    def declare(target: T) -> T:
        definition = define(
            kind, target, mode=mode, timeout_s=timeout_s, retryable=retryable, non_retryable=non_retryable
        )
        # Kept on the function, not in a global list: what a worker serves is what its modules show.
        setattr(target, _ATTRIBUTE, (*definitions_of(target), definition))
        return target

    return declare


def define(
    kind: str,
    target: Callable[..., Any],
    *,
    mode: Mode | str | None = None,
    timeout_s: float | None = None,
    retryable: bool = True,
    non_retryable: tuple[type[BaseException], ...] = (),
) -> Handler:
    """Return a handler without declaring it on its function: for bound methods, closures and tests.

    Raises:
        ConfigurationError: as ``handler``.
    """
    _check_kind(kind)
    if timeout_s is not None and timeout_s <= 0:
        raise ConfigurationError(f"handler {kind!r}: timeout_s is {timeout_s}; it must be more than 0")
    run = target.run if isinstance(target, type) and hasattr(target, "run") else target
    if isinstance(run, type) or not callable(run):
        raise ConfigurationError(f"handler {kind!r}: a class needs a method run(self, payload, ctx)")
    is_async = inspect.iscoroutinefunction(run)
    where = _mode(kind, mode, is_async=is_async)
    if where is Mode.PROCESS and "<locals>" in target.__qualname__:
        raise ConfigurationError(
            f"handler {kind!r}: {target.__qualname__} is local to a function; another process could not find it"
        )
    adapter, takes_payload, takes_context = _signature(kind, run, skip_self=run is not target)
    return Handler(
        kind=kind,
        mode=where,
        target=target,
        payload=adapter,
        takes_payload=takes_payload,
        takes_context=takes_context,
        is_async=is_async,
        timeout_s=timeout_s,
        retryable=retryable,
        non_retryable=non_retryable,
    )


def command_handler(
    kind: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout_s: float | None = None,
    output_bytes: int = 64 * 1024,
    inherit_env: Sequence[str] = INHERITED_ENV,
) -> Handler:
    """Return a handler that runs a fixed program, never through a shell; keep it in a module-level name.

    The payload goes to its stdin as JSON. The result is its stdout where that is JSON, else
    ``{"exit_code", "stdout", "stderr"}``. A non-zero exit code fails the attempt. ``TENURE_JOB_ID``,
    ``TENURE_ATTEMPT`` and ``TENURE_FENCE`` are in its environment.

    Raises:
        ConfigurationError: a bad kind or an empty argv.
    """
    _check_kind(kind)
    if not argv or not all(isinstance(part, str) and "\0" not in part for part in argv):
        raise ConfigurationError(f"handler {kind!r}: argv must be a non-empty list of strings without NUL")
    spec = CommandSpec(
        argv=tuple(argv), env=dict(env or {}), cwd=cwd, output_bytes=output_bytes, inherit_env=tuple(inherit_env)
    )
    return Handler(kind=kind, mode=Mode.COMMAND, command=spec, timeout_s=timeout_s)


def definitions_of(target: object) -> tuple[Handler, ...]:
    """Return the handlers declared on a function or class, or the handler itself; empty if there are none."""
    if isinstance(target, Handler):
        return (target,)
    # Of the object itself: a subclass does not inherit the kinds of its parent.
    found: tuple[Handler, ...] = getattr(target, "__dict__", {}).get(_ATTRIBUTE, ())
    return found


class Registry:
    """The kinds that a worker serves. A kind has one handler."""

    def __init__(self, handlers: Sequence[Handler] = ()) -> None:
        self._by_kind: dict[str, Handler] = {}
        for definition in handlers:
            self.add(definition)

    def add(self, definition: Handler, *, source: str = "") -> None:
        """Add a handler; adding the same one again does nothing.

        Raises:
            ConfigurationError: another handler has this kind.
        """
        present = self._by_kind.setdefault(definition.kind, definition)
        if present is not definition:
            places = " and ".join(".".join(one.reference) or one.mode for one in (present, definition))
            raise ConfigurationError(f"kind {definition.kind!r} is declared twice: {places}{source and f' ({source})'}")

    def get(self, kind: str) -> Handler | None:
        """Return the handler of a kind, or None."""
        return self._by_kind.get(kind)

    def kinds(self) -> list[str]:
        """Return the kinds, sorted."""
        return sorted(self._by_kind)

    def modes(self) -> frozenset[Mode]:
        """Return the modes in use."""
        return frozenset(one.mode for one in self)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_kind.values())

    def __len__(self) -> int:
        return len(self._by_kind)

    def __contains__(self, kind: object) -> bool:
        return kind in self._by_kind


def load(modules: Sequence[str], *, into: Registry | None = None) -> Registry:
    """Import modules and collect the handlers that they show: decorated functions and classes, commands, registries.

    Raises:
        ConfigurationError: a module is missing or cannot be imported, shows no handler, or a kind is declared twice.
    """
    registry = into if into is not None else Registry()
    for name in modules:
        found = [one for value in vars(_import(name)).values() for one in _shown(value)]
        if not found:
            raise ConfigurationError(
                f"module {name!r} shows no handler",
                hint='decorate a function with @handler("kind"), or import the decorated ones into this module',
            )
        for definition in found:
            registry.add(definition, source=name)
    return registry


def _shown(value: object) -> Sequence[Handler]:
    return tuple(value) if isinstance(value, Registry) else definitions_of(value)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or name
        if missing == name or name.startswith(missing + "."):
            raise ConfigurationError(
                f"module {name!r} is not found", hint="is it installed, or its folder in PYTHONPATH?"
            ) from exc
        raise ConfigurationError(f"module {name!r} needs {missing!r}, which is not installed") from exc
    except Exception as exc:  # whatever a user's module raises while it is imported
        raise ConfigurationError(f"module {name!r} cannot be imported: {type(exc).__name__}: {exc}") from exc


def _check_kind(kind: str) -> None:
    if problem := kind_error(kind):
        raise ConfigurationError(f"kind {kind!r} {problem}")


def _mode(kind: str, mode: Mode | str | None, *, is_async: bool) -> Mode:
    if mode is None:
        return Mode.ASYNC if is_async else Mode.THREAD
    if mode not in (Mode.ASYNC, Mode.THREAD, Mode.PROCESS):
        raise ConfigurationError(f"handler {kind!r}: mode {mode!r} is not one of async, thread, process")
    if mode == (Mode.THREAD if is_async else Mode.ASYNC):
        what = "an async function" if is_async else "a plain function"
        raise ConfigurationError(f"handler {kind!r}: {what} cannot run in mode {str(mode)!r}")
    return Mode(mode)


def _signature(kind: str, run: Callable[..., Any], *, skip_self: bool) -> tuple[TypeAdapter[Any] | None, bool, bool]:
    """Return the payload's adapter and whether the function takes a payload and a context."""
    parameters = list(inspect.signature(run).parameters.values())[1 if skip_self else 0 :]
    hints = _hints(kind, run)
    takes_context = bool(parameters) and _is_context(parameters[-1], hints)
    payloads = parameters[:-1] if takes_context else parameters
    if len(payloads) > 1 or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise ConfigurationError(
            f"handler {kind!r}: the parameters are (payload), (payload, ctx), (ctx) or none, "
            f"not ({', '.join(p.name for p in parameters)})"
        )
    if not payloads:
        return None, False, takes_context
    annotation = hints.get(payloads[0].name, Any)
    if annotation in (Any, object):
        return None, True, takes_context
    try:
        return TypeAdapter(annotation), True, takes_context
    except (PydanticSchemaGenerationError, PydanticUserError) as exc:
        raise ConfigurationError(
            f"handler {kind!r}: {annotation!r} of parameter {payloads[0].name!r} is no type for a payload: "
            f"{str(exc).splitlines()[0]}"
        ) from exc


def _is_context(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    return hints.get(parameter.name) in _CONTEXTS or parameter.name == "ctx"


def _hints(kind: str, run: Callable[..., Any]) -> dict[str, Any]:
    """Resolve the annotations; names local to the function that declares the handler are found too."""
    local: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    if frame is not None and frame.f_code.co_name != "<module>":
        local = dict(frame.f_locals)
    module = sys.modules.get(run.__module__)
    try:
        return typing.get_type_hints(run, vars(module) if module else None, local, include_extras=True)
    except (NameError, TypeError) as exc:
        raise ConfigurationError(f"handler {kind!r}: an annotation cannot be resolved: {exc}") from exc
