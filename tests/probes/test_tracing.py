"""What a job carries of a trace, and that nothing is done where nobody traces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util._once import Once

from tenure.model.clock import wall_ns
from tenure.model.jobs import JobSpec, validate_spec
from tenure.model.request import request_hash
from tenure.probes import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def within() -> Iterator[None]:
    """Be in somebody's trace, which has a state."""
    carrier = {"traceparent": PARENT, "tracestate": "vendor=1"}
    token = context.attach(TraceContextTextMapPropagator().extract(carrier))
    yield
    context.detach(token)


def test_labels_carry_the_current_context(within: None) -> None:
    assert tracing.carried({"a": "b"}) == {"a": "b", "traceparent": PARENT, "tracestate": "vendor=1"}
    assert tracing.ids() == {"trace_id": TRACE, "span_id": "b7ad6b7169203331"}


def test_a_job_keeps_the_context_that_it_was_given(within: None) -> None:
    given = {"traceparent": "00-00000000000000000000000000000001-0000000000000001-01"}
    assert tracing.carried(given) is given


def test_without_a_span_nothing_is_carried() -> None:
    assert tracing.carried({"a": "b"}) == {"a": "b"}
    assert tracing.ids() == {}
    jobs = [JobSpec(kind="k", ref="r")]
    assert tracing.carrying(jobs)[0] is jobs[0]


@pytest.mark.parametrize(("own", "carried"), [(30, 2), (31, 1), (32, 0)])
def test_no_job_gets_more_labels_than_it_may_have(within: None, own: int, carried: int) -> None:
    labels = {f"l{n}": "" for n in range(own)}
    assert len(tracing.carried(labels)) == own + carried


def test_a_state_that_is_no_label_is_left_out() -> None:
    state = ",".join(f"vendor{n}={'x' * 40}" for n in range(20))
    token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": PARENT, "tracestate": state}))
    try:
        assert tracing.carried({}) == {"traceparent": PARENT}
    finally:
        context.detach(token)


def test_the_trace_is_no_part_of_a_request() -> None:
    plain, traced = {"kind": "k"}, {"kind": "k", "labels": {"traceparent": PARENT, "tracestate": "a=b"}}
    assert request_hash(validate_spec(plain)) == request_hash(validate_spec(traced))
    labeled = {"kind": "k", "labels": {"a": "b"}}
    both = {"kind": "k", "labels": {"a": "b", "traceparent": PARENT}}
    assert (
        request_hash(validate_spec(labeled)) == request_hash(validate_spec(both)) != request_hash(validate_spec(plain))
    )


def test_a_process_is_told_of_its_attempt_or_else_of_what_the_job_carries() -> None:
    assert tracing.environment(None, {"a": "b"}) == {}
    assert tracing.environment(None, {"traceparent": PARENT}) == {"TRACEPARENT": PARENT}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that this process makes in one test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    trace.set_tracer_provider(provider)
    return exporter


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}0",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "x" * 100_000,
    ],
)
def test_a_context_that_is_none_is_no_trace_and_no_error(made: InMemorySpanExporter, given: str) -> None:
    labels = {"traceparent": given, "tracestate": "=,"}
    assert not tracing.is_traced(labels)
    tracing.passed("accept", [("1", "k", labels), ("2", "k", {"traceparent": PARENT, "tracestate": "=,"})], wall_ns())
    assert tracing.environment(None, labels) == {}
    run = tracing.begin(tracing.Identity("1", "k", "r", "default", 1, 1, labels, "w"))
    assert run is not None
    run.ended("completed")
    run.reported()
    told = {(span.name, (span.attributes or {})["messaging.message.id"]): span for span in made.get_finished_spans()}
    assert told.keys() == {("accept k", "2"), ("run k", "1"), ("report k", "1")}
    assert f"{told['accept k', '2'].context.trace_id:032x}" == TRACE
    assert told["run k", "1"].parent is None


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_the_environment_turns_it_on(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], wanted: bool) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_wanted() is wanted


def test_settings_that_are_wrong_cost_the_traces_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "there-is-no-such-exporter")
    before = trace.get_tracer_provider()
    tracing.configure("worker", "w1")
    assert trace.get_tracer_provider() is before


def test_who_does_not_trace_imports_nothing_of_it() -> None:
    program = (
        "import sys; import tenure.client, tenure.coordinator.coordinator, tenure.worker.worker\n"
        "from tenure.probes import tracing; tracing.configure('worker', 'w'); tracing.carried({}); tracing.ids()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
