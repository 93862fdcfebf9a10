"""Traces by OpenTelemetry: where a job's context is kept, and the spans of its life. Off unless somebody turns it on.

The context travels as labels of the job, ``traceparent`` and ``tracestate`` (W3C Trace Context), so it costs nothing
where there is none, and history, retries, runners and submits by SQL keep it as they keep any label. It is no part of
what was asked for: two requests that differ in it alone are the same (``model.request``).

Invariants: without OpenTelemetry, or without a tracer provider, nothing here does anything, and nothing is imported;
no span and no exporter ever fails or holds up a job. Spans are given their times, so that what went together in one
batch is told in the trace of each job. Attributes are those of the conventions for messaging: the kind is the
destination, the job is the message.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points, version
from typing import Any, NamedTuple

import structlog

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import wall_ns
from tenure.model.jobs import JobSpec, label_problem
from tenure.model.trace import TRACEPARENT, TRACESTATE

log = structlog.get_logger(__name__)

CLOSE_S = 2.0
"""How long the last spans may take to be sent when a process ends; then they are lost."""
NAMES = (TRACEPARENT, TRACESTATE)
Labels = Mapping[str, str]


# -- on or off --


def is_wanted() -> bool:
    """Say whether the environment asks for traces, by the variables of OpenTelemetry."""
    env = os.environ
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "") == "none":
        return False
    names = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(env.get(name) for name in names)


def configure(role: str, instance: str) -> None:
    """Trace this process as its environment asks for; call once, after whatever forks, before any work.

    What is missing or wrong is logged: work goes on without traces.
    """
    if not is_wanted():
        return
    try:
        _configure(role, instance)
        log.info("traces", exporters=os.environ.get("OTEL_TRACES_EXPORTER") or "otlp")
    except ImportError as exc:
        log.warning("no_traces", reason=str(exc), hint="pip install 'tenure[otel]'")
    except Exception as exc:  # an exporter that does not like its settings
        log.warning("no_traces", reason=f"{type(exc).__name__}: {exc}")


def _configure(role: str, instance: str) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.name": f"tenure-{role}", "service.version": version("tenure"), "service.instance.id": instance}
    if name := os.environ.get("OTEL_SERVICE_NAME"):
        own["service.name"] = name
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    for exporter in _exporters():
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def _exporters() -> Iterator[Any]:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        wanted = otlp if name.strip() == "otlp" else name.strip()
        found = list(entry_points(group="opentelemetry_traces_exporter", name=wanted))
        if not found:
            raise ImportError(f"there is no exporter of traces {wanted!r}")
        yield found[0].load()()


def close(within_s: float = CLOSE_S) -> None:
    """Send what is left, for so long at most."""
    provider = _provider()
    flush = getattr(provider, "force_flush", None)
    if flush is None:
        return

    def flush_quietly() -> None:
        with suppress(Exception):
            flush(int(within_s * 1000))

    last = threading.Thread(target=flush_quietly, name="tenure-last-spans", daemon=True)
    last.start()
    last.join(within_s)


def preload() -> None:
    """Import what children of this process need, if it is to be had; start nothing."""
    if is_wanted():
        with suppress(Exception):
            from opentelemetry import trace
            from opentelemetry.sdk.trace import export

            assert trace and export
            list(entry_points(group="opentelemetry_traces_exporter"))


@cache
def _version() -> str:
    return version("tenure")


def _api() -> Any:
    """Return OpenTelemetry's module, if anybody in this process has imported it: else nobody can have a span."""
    return sys.modules.get("opentelemetry.trace")


def _provider() -> Any:
    api = _api()
    if api is None:
        return None
    provider = api.get_tracer_provider()
    return None if type(provider).__name__ in ("ProxyTracerProvider", "NoOpTracerProvider") else provider


def is_on() -> bool:
    """Say whether there can be a context here."""
    return _api() is not None


def tracer() -> Any:
    """Return what makes spans; None while nobody wants any."""
    provider = _provider()
    return None if provider is None else provider.get_tracer("tenure", _version())


# -- the context in a job --


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def carried(labels: Labels) -> Labels:
    """Return labels with the context that is current here; those that carry one already are left as they are."""
    if _api() is None or TRACEPARENT in labels:
        return labels
    try:
        return {**labels, **_fitting(_current(), DEFAULT_BOUNDS.labels - len(labels))}
    except Exception as exc:  # tracing never fails a submit
        log.debug("context_not_carried", error=repr(exc))
        return labels


def _current() -> dict[str, str]:
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier


def _fitting(carrier: Labels, room: int) -> dict[str, str]:
    """Return what of a context may be labels: the state is left out where it is too long or there is no room."""
    fits = {
        name: carrier[name] for name in NAMES if name in carrier and label_problem("l", {name: carrier[name]}) is None
    }
    return dict(list(fits.items())[: max(0, room)]) if TRACEPARENT in fits else {}


def carrying(jobs: Sequence[JobSpec]) -> Sequence[JobSpec]:
    """Return children with the context that is current here."""
    if _api() is None:
        return jobs
    made = []
    for job in jobs:
        labels = carried(job.labels)
        made.append(job if labels is job.labels or labels == job.labels else job.model_copy(update={"labels": labels}))
    return made


def _context_of(labels: Labels) -> Any:
    return _propagator().extract({name: labels[name] for name in NAMES if name in labels})


_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""Of a traceparent: https://www.w3.org/TR/trace-context/#traceparent-header."""


def is_traced(labels: Labels | None) -> bool:
    """Say whether a job carries a context. One that has not the shape of any is a label like others."""
    return bool(labels) and _SHAPE.fullmatch(labels.get(TRACEPARENT, "")) is not None  # type: ignore[union-attr]


def ids() -> dict[str, str]:
    """Return the ids of the current span, for lines of logs; nothing without one."""
    api = _api()
    if api is None:
        return {}
    told = api.get_current_span().get_span_context()
    if not told.is_valid:
        return {}
    return {"trace_id": f"{told.trace_id:032x}", "span_id": f"{told.span_id:016x}"}


# -- spans --


_TYPES = {"submit": "send", "run": "process", "claim": "receive", "report": "settle"}
_CLIENTS = ("receive", "settle")
"""Types of operations that are calls, as the conventions have it."""


def _kind(operation: str) -> Any:
    """Return the kind of a span of an operation that neither brings nor runs a job."""
    kinds = _api().SpanKind
    return kinds.CLIENT if _TYPES.get(operation) in _CLIENTS else kinds.INTERNAL


def _attributes(operation: str, kind: str, **more: Any) -> dict[str, Any]:
    """Name an operation as the conventions for messaging do: what is done, and of which type that is."""
    told = {"messaging.system": "tenure", "messaging.operation.name": operation, "messaging.destination.name": kind}
    if operation in _TYPES:
        told["messaging.operation.type"] = _TYPES[operation]
    return {**told, **{name: value for name, value in more.items() if value is not None}}


class Sending:
    """A submit under way."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def sent(self, job_id: str) -> None:
        """Say which job it became."""
        if self._span is not None:
            self._span.set_attribute("messaging.message.id", job_id)


@contextmanager
def sending(kind: str, route: str, *, jobs: int | None = None) -> Iterator[Sending]:
    """Make a span of a submit, of one job or of a batch; within, ``carried`` gives its context."""
    found = tracer()
    if found is None:
        yield Sending()
        return
    api = _api()
    told = _attributes("submit", kind, **{"messaging.batch.message_count": jobs, "tenure.route": route})
    with found.start_as_current_span(f"submit {kind}", kind=api.SpanKind.PRODUCER, attributes=told) as span:
        yield Sending(span)


def passed(operation: str, jobs: Sequence[tuple[str, str, Labels | None]], since_ns: int) -> None:
    """Tell, in the trace of each job that has one, of what was done from then to now with all of them together.

    ``jobs``: id, kind and labels of each.
    """
    traced = [one for one in jobs if is_traced(one[2])]
    if not traced or (found := tracer()) is None:
        return
    now_ns = wall_ns()
    for job_id, kind, labels in traced:
        with suppress(Exception):
            more = {"messaging.message.id": job_id, "messaging.batch.message_count": len(jobs)}
            span = found.start_span(
                f"{operation} {kind}",
                context=_context_of(labels or {}),
                kind=_kind(operation),
                attributes=_attributes(operation, kind, **more),
                start_time=since_ns,
            )
            span.end(end_time=now_ns)


class Identity(NamedTuple):
    """Whose run a span is of."""

    job_id: str
    kind: str
    route: str
    namespace: str
    attempt: int
    fence: int
    labels: Labels
    worker: str = ""


class Run:
    """The span of an attempt: from when its handler may begin until it has ended; its report is a span in it."""

    def __init__(self, found: Any, of: Identity) -> None:
        api = _api()
        more = {
            "messaging.message.id": of.job_id,
            "tenure.namespace": of.namespace,
            "tenure.route": of.route,
            "tenure.attempt": of.attempt,
            "tenure.fence": of.fence,
            "messaging.client.id": of.worker or None,
        }
        self._api, self._tracer, self._of = api, found, of
        self._ended_ns = 0
        self._span = found.start_span(
            f"run {of.kind}",
            context=_context_of(of.labels) if is_traced(of.labels) else _nothing(),
            kind=api.SpanKind.CONSUMER,
            attributes=_attributes("run", of.kind, **more),
        )
        self.context = api.set_span_in_context(self._span, _nothing())
        """What is to be current while the handler runs."""

    def carrier(self) -> dict[str, str]:
        """Return the context as it travels, for processes."""
        carrier: dict[str, str] = {}
        _propagator().inject(carrier, context=self.context)
        return carrier

    def ended(self, outcome: str, error_type: str | None = None, message: str = "") -> None:
        """The handler has ended."""
        self._ended_ns = wall_ns()
        with suppress(Exception):
            self._span.set_attribute("tenure.outcome", outcome)
            if error_type is not None:
                self._span.set_attribute("error.type", error_type)
                self._span.set_status(self._api.Status(self._api.StatusCode.ERROR, message[:200] or error_type))
            self._span.end(end_time=self._ended_ns)

    def reported(self) -> None:
        """A coordinator has answered the report."""
        with suppress(Exception):
            span = self._tracer.start_span(
                f"report {self._of.kind}",
                context=self.context,
                kind=_kind("report"),
                attributes=_attributes("report", self._of.kind, **{"messaging.message.id": self._of.job_id}),
                start_time=self._ended_ns or None,
            )
            span.end()


def _nothing() -> Any:
    from opentelemetry.context import Context

    return Context()


def begin(of: Identity) -> Run | None:
    """Begin the span of an attempt; None while nobody wants any, and there is no context to hand on.

    Where this process makes no spans of its own the one that it begins is none, and hands on what the job carries.
    """
    if (api := _api()) is None or (_provider() is None and not is_traced(of.labels)):
        return None
    try:
        return Run(api.get_tracer("tenure", _version()), of)
    except Exception as exc:  # tracing never fails an attempt
        log.debug("no_span", error=repr(exc))
        return None


def enter(run: Run | None) -> Any:
    """Make an attempt's span the current one, in this thread or task; return what ``leave`` takes."""
    if run is None:
        return None
    from opentelemetry import context

    return context.attach(run.context)


def leave(token: Any) -> None:
    """Undo ``enter``."""
    if token is None:
        return
    from opentelemetry import context

    context.detach(token)


def environment(run: Run | None, labels: Labels) -> dict[str, str]:
    """Return the variables by which a process learns of its context: its attempt's span, else what the job carries."""
    carrier = {name: labels[name] for name in NAMES if name in labels} if is_traced(labels) else {}
    if run is not None:
        with suppress(Exception):
            carrier = run.carrier() or carrier
    return {name.upper(): value for name, value in carrier.items()}


def enter_environment() -> None:
    """In the process of an attempt: trace as the environment asks for, within the context that it names."""
    carrier = {name: os.environ[name.upper()] for name in NAMES if name.upper() in os.environ}
    if not carrier or not is_wanted():
        return
    with suppress(Exception):  # what is wrong with the settings the worker has told
        _configure("handler", f"pid-{os.getpid()}")
        from opentelemetry import context

        context.attach(_propagator().extract(carrier))


@contextmanager
def ticking(kind: str, schedule: str) -> Iterator[None]:
    """Make a span of a tick that makes a job: the root of its trace."""
    found = tracer()
    if found is None:
        yield
        return
    told = _attributes("tick", kind, **{"tenure.schedule": schedule})
    with found.start_as_current_span(
        f"tick {kind}", context=_nothing(), kind=_api().SpanKind.PRODUCER, attributes=told
    ):
        yield
