"""One trace from the client to the spans that a handler makes, by a receiver that takes what processes export."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from tests.e2e.conftest import PATIENCE_S, Setting, Stage, either_link
from tests.fixtures.otlp import Receiver, Span, receiving

from tenure.client import NewJob, NewSchedule, Retry

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
ERROR = 2


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def own_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Trace this process, which is the client, for one test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    trace.set_tracer_provider(provider)
    yield exporter


def env(url: str, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


async def spans_of(on: Stage, receiver: Receiver, trace_id: str, *names: str) -> dict[str, Span]:
    """Return the spans of a trace by name, once all of these were received."""

    async def received() -> dict[str, Span] | None:
        found = {span.name: span for span in receiver.of(trace_id)}
        return found if set(names) <= set(found) else None

    try:
        spans: dict[str, Span] = await on.until(received)
    except TimeoutError:
        pytest.fail(f"of {names} there are {sorted(one.name for one in receiver.of(trace_id))}")
    return spans


async def log_fields(on: Stage, job_id: str) -> dict[str, dict[str, Any]]:
    """Return the fields of a job's log lines, by message, once there are some."""

    async def lines() -> dict[str, dict[str, Any]]:
        return {line.message: dict(line.fields) async for line in on.client.logs(job_id)}

    found: dict[str, dict[str, Any]] = await on.until(lines)
    return found


@either_link
async def test_one_trace_from_the_client_to_the_spans_of_a_handler(
    stage: Setting, receiver: Receiver, own_spans: InMemorySpanExporter, remote: bool
) -> None:
    on = await stage(workers=1, env=env(receiver.url))
    with trace.get_tracer("app").start_as_current_span("request"):
        job = await on.client.submit("traced")
    done = await on.client.wait(job.id, timeout_s=PATIENCE_S)
    mine = {span.name: span for span in own_spans.get_finished_spans()}
    sent, request = mine["submit traced"], mine["request"]
    trace_id = f"{request.context.trace_id:032x}"
    assert done.result == {"trace_id": trace_id}
    assert sent.parent is not None and sent.parent.span_id == request.context.span_id
    assert sent.attributes is not None and sent.attributes["messaging.message.id"] == job.id
    sent_id = f"{sent.context.span_id:016x}"

    life = ("accept traced", "claim traced", "start traced", "run traced", "nested", "report traced")
    spans = await spans_of(on, receiver, trace_id, *life, "run traced-in-thread", "report traced-in-thread")
    run = spans["run traced"]
    assert {spans[name].parent_id for name in ("accept traced", "claim traced", "start traced")} == {sent_id}
    assert (run.parent_id, run.kind) == (sent_id, CONSUMER)
    assert run.attributes["messaging.system"] == "tenure"
    assert run.attributes["messaging.destination.name"] == "traced"
    assert run.attributes["messaging.message.id"] == job.id
    assert run.attributes["messaging.operation.type"] == "process"
    assert (run.attributes["tenure.attempt"], run.attributes["tenure.outcome"]) == (1, "completed")
    assert run.attributes["messaging.client.id"] == on.deployment.workers[0].id
    assert spans["report traced"].parent_id == run.span_id
    kinds = {name: spans[f"{name} traced"].kind for name in ("accept", "claim", "start", "report")}
    assert kinds == {"accept": INTERNAL, "claim": CLIENT, "start": INTERNAL, "report": CLIENT}
    assert spans["accept traced"].service == "tenure-coordinator"
    assert run.service == ("tenure-runner" if remote else "tenure-worker")
    # The child was submitted within the attempt's span.
    assert spans["run traced-in-thread"].parent_id == run.span_id
    nested = [span for span in receiver.of(trace_id) if span.name == "nested"]
    assert {span.parent_id for span in nested} <= {run.span_id, spans["run traced-in-thread"].span_id}
    fields = await log_fields(on, job.id)
    assert fields["in the span"]["trace_id"] == fields["by logging"]["trace_id"] == trace_id
    assert fields["in the span"]["span_id"] in {span.span_id for span in nested}


async def test_threads_processes_and_commands_are_within_the_trace(
    stage: Setting, receiver: Receiver, own_spans: InMemorySpanExporter
) -> None:
    on = await stage(workers=1, args=("--allow-command",), env=env(receiver.url))
    echo = {"argv": ["sh", "-c", 'printf %s "$TRACEPARENT"']}
    with trace.get_tracer("app").start_as_current_span("request") as request:
        jobs = await on.client.submit_many(
            [NewJob(kind="traced-in-thread"), NewJob(kind="traced-in-process"), NewJob(kind="command", payload=echo)]
        )
    trace_id = f"{request.get_span_context().trace_id:032x}"
    in_thread, in_process, command = [await on.client.wait(job.id, timeout_s=PATIENCE_S) for job in jobs]
    assert in_thread.result == in_process.result == {"trace_id": trace_id}
    runs = [f"run {kind}" for kind in ("traced-in-thread", "traced-in-process", "command")]
    spans = await spans_of(on, receiver, trace_id, *runs, "nested")
    assert command.result["stdout"].split("-")[1:3] == [trace_id, spans["run command"].span_id]

    async def both() -> set[str]:
        parents = {span.parent_id for span in receiver.of(trace_id) if span.name == "nested"}
        return parents if len(parents) == 2 else set()

    assert await on.until(both) == {spans[runs[0]].span_id, spans[runs[1]].span_id}
    assert {span.service for span in receiver.of(trace_id) if span.name == "nested"} == {
        "tenure-worker", "tenure-handler",
    }  # fmt: skip
    fields = await log_fields(on, in_process.id)
    assert fields["in the span"]["trace_id"] == trace_id


async def test_retries_are_in_the_trace_of_their_job_and_ticks_in_one_of_their_own(
    stage: Setting, receiver: Receiver, own_spans: InMemorySpanExporter
) -> None:
    on = await stage(workers=1, env=env(receiver.url))
    with trace.get_tracer("app").start_as_current_span("request") as request:
        again = Retry(max_attempts=2, initial_backoff_s=0.05)
        job = await on.client.submit("traced-and-fails", retry=again, idempotency_key="one")
    trace_id = f"{request.get_span_context().trace_id:032x}"
    await on.client.wait(job.id, timeout_s=PATIENCE_S)

    async def both() -> list[Span] | None:
        runs = [span for span in receiver.of(trace_id) if span.name == "run traced-and-fails"]
        return sorted(runs, key=lambda run: run.attributes["tenure.attempt"]) if len(runs) == 2 else None

    first, second = await on.until(both)
    assert (first.status, first.attributes["error.type"], second.status) == (ERROR, "ValueError", 0)
    assert first.parent_id == second.parent_id
    with trace.get_tracer("app").start_as_current_span("another request"):
        same = await on.client.submit("traced-and-fails", retry=again, idempotency_key="one")
    assert (same.id, same.created) == (job.id, False), "another trace makes no other request of it"

    await on.client.create_schedule(NewSchedule(name="s", job=NewJob(kind="traced-in-thread"), interval_s=3600.0))
    ticked = await on.client.trigger_schedule("s")
    done = await on.client.wait(ticked.job_id, timeout_s=PATIENCE_S)
    spans = await spans_of(on, receiver, done.result["trace_id"], "tick traced-in-thread", "run traced-in-thread")
    tick = spans["tick traced-in-thread"]
    assert (tick.parent_id, tick.kind) == ("", PRODUCER)
    assert spans["run traced-in-thread"].parent_id == tick.span_id


async def test_what_is_not_sampled_is_not_exported_and_runs(
    stage: Setting, receiver: Receiver, own_spans: InMemorySpanExporter
) -> None:
    on = await stage(workers=1, env=env(receiver.url))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    labels = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-00"}
    unsampled = await on.client.submit("traced-in-thread", labels=labels)
    done = await on.client.wait(unsampled.id, timeout_s=PATIENCE_S)
    assert done.result == {"trace_id": trace_id}, "the handler is in the trace all the same"
    sampled = await on.client.submit("traced-in-thread")
    told = (await on.client.wait(sampled.id, timeout_s=PATIENCE_S)).result["trace_id"]
    await spans_of(on, receiver, told, "run traced-in-thread", "report traced-in-thread")
    assert receiver.of(trace_id) == []


async def test_an_exporter_that_gets_no_answer_holds_up_no_job(stage: Setting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        on = await stage(workers=1, env=env(url, OTEL_BSP_MAX_QUEUE_SIZE="8", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4"))
        labels = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        jobs = await on.client.submit_many([NewJob(kind="traced-in-thread", labels=labels) for _ in range(50)])
        jobs += await on.client.submit_many([NewJob(kind="traced-in-process", labels=labels)])
        for job in jobs:
            assert (await on.client.wait(job.id, timeout_s=PATIENCE_S)).state == "completed"
        assert all(worker.wait(PATIENCE_S) for worker in _told_to_stop(on))


def _told_to_stop(on: Stage) -> list[Any]:
    for worker in on.deployment.workers:
        worker.terminate()
    return list(on.deployment.workers)


async def test_a_job_that_nobody_traces_carries_nothing(stage: Setting) -> None:
    on = await stage(workers=1)
    job = await on.client.wait((await on.client.submit("trace", {"a": 1})).id, timeout_s=PATIENCE_S)
    assert dict(job.labels) == {}
    assert json.dumps(job.result) == '{"a": 1}'
