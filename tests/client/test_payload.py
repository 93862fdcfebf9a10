"""What may be a payload, and how what may not is named."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tenure.client import AsyncClient, KindSettings, NewJob, Retry
from tenure.client.calls.limits import limit_to_wire
from tenure.client.convert import job_from_wire, spec_to_wire
from tenure.client.kinds import kind_to_wire
from tenure.client.payload import from_json, to_json
from tenure.model.errors import InvalidInput
from tenure.model.states import JobState
from tenure.v1 import job_pb2


class Scan(BaseModel):
    paths: list[str]
    at: datetime


@dataclasses.dataclass
class Point:
    x: int
    scan: Scan


SCAN = Scan(paths=["a"], at=datetime(2026, 1, 2, tzinfo=UTC))


def test_models_are_objects() -> None:
    assert json.loads(to_json({"point": Point(1, SCAN)})) == {
        "point": {"x": 1, "scan": {"paths": ["a"], "at": "2026-01-02T00:00:00Z"}}
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_round_trip(value: Any) -> None:
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"a": [1, {"b": {2}}]}, "payload.a[1].b", "set"),
        ([float("nan")], "payload[0]", "nan"),
        ({"a": "\ud800"}, "payload.a", "surrogate"),
        ({(1, 2): 3}, "payload", "key"),
        (object(), "payload", "object"),
    ],
)
def test_what_json_cannot_hold_is_named(value: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_json(value)
    [violation] = caught.value.violations
    assert violation.field == field
    assert words in violation.description


def test_what_contains_itself_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match=r"contains itself|Circular"):
        to_json(loop)


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (NewJob(kind=3), "kind"),  # type: ignore[arg-type]
        (NewJob(kind="a", priority="high"), "priority"),  # type: ignore[arg-type]
        (NewJob(kind="a", priority=2**40), "priority"),
        (NewJob(kind="a", delay_s=float("inf")), "delay_s"),
        (NewJob(kind="a", ttl_s="10"), "ttl_s"),  # type: ignore[arg-type]
        (NewJob(kind="a", activate_at=datetime(2026, 1, 1)), "activate_at"),
        (NewJob(kind="a", delay_s=float("nan")), "delay_s"),
        (NewJob(kind="a", ttl_s=10**400), "ttl_s"),
        (NewJob(kind="a", depends_on="abc"), "depends_on"),
        (NewJob(kind="a", labels=["b"]), "labels"),  # type: ignore[arg-type]
        (NewJob(kind="a", labels={"b": 1}), "labels['b']"),  # type: ignore[dict-item]
        (NewJob(kind="a", requires={1: "b"}), "requires"),  # type: ignore[dict-item]
        (NewJob(kind="a", limits=["b", 5]), "limits[1]"),  # type: ignore[list-item]
        (NewJob(kind="a\ud800"), "kind"),
        (NewJob(kind="a", retry={"max_attempts": 1}), "retry"),  # type: ignore[arg-type]
        (NewJob(kind="a", retry=Retry(max_attempts="1")), "retry.max_attempts"),  # type: ignore[arg-type]
        (NewJob(kind="a", retry=Retry(jitter="1")), "retry.jitter"),  # type: ignore[arg-type]
        (NewJob(kind="a", payload={1, 2}), "payload"),
        (NewJob(kind="a", trigger="soon"), "trigger"),
        (NewJob(kind="a", upstream_failure=[]), "upstream_failure"),  # type: ignore[arg-type]
        (NewJob(kind="a", on_duplicate="keep"), "on_duplicate"),
        (NewJob(kind="a", retry=Retry(backoff="never")), "retry.backoff"),
    ],
)
def test_wrong_types_are_named(job: NewJob, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_to_wire(job, idempotency_key="k")
    [violation] = caught.value.violations
    assert violation.field == f"job.{field}"
    assert "built-in" not in violation.description and "codec" not in violation.description


@pytest.mark.parametrize(
    ("refused", "field"),
    [
        (lambda: limit_to_wire("a", "2", None, None, None), "limit.concurrent"),  # type: ignore[arg-type]
        (lambda: limit_to_wire("a", None, 2.5, None, None), "limit.rate"),  # type: ignore[arg-type]
        (lambda: kind_to_wire(KindSettings(kind="a", priority="high")), "settings.priority"),  # type: ignore[arg-type]
        (lambda: kind_to_wire(KindSettings(kind="a", limits=[5])), "settings.limits[0]"),  # type: ignore[list-item]
    ],
)
def test_wrong_types_of_settings_are_named(refused: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        refused()
    assert [violation.field for violation in caught.value.violations] == [field]


def test_unset_fields_stay_unset() -> None:
    spec = spec_to_wire(NewJob(kind="a", retry=Retry(max_attempts=5)), idempotency_key="k")
    assert not any(spec.HasField(name) for name in ("delay", "activate_at", "ttl", "timeout", "max_crashes"))
    assert spec.retry.max_attempts == 5
    assert not spec.retry.HasField("initial_backoff")
    assert spec.payload == "null"


def test_a_job_is_read_without_protobuf() -> None:
    wire = job_pb2.Job(id="x", state=job_pb2.JOB_STATE_READY, payload='{"a": 1}', labels={"k": "v"})
    wire.claim.worker = "w1"
    wire.created_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    wire.timeout.FromMilliseconds(1500)
    job = job_from_wire(wire)
    assert (job.payload, job.result, job.labels) == ({"a": 1}, None, {"k": "v"})
    assert (job.state, job.is_pending, job.is_terminal) == (JobState.READY, True, False)
    assert (job.created_at, job.timeout_s) == (datetime(2026, 1, 2, tzinfo=UTC), 1.5)
    assert job.started_at is None


async def test_every_option_of_a_submit_is_one_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception): ...

    def see(job: NewJob, **more: object) -> None:
        raise Seen(job, more["idempotency_key"])

    monkeypatch.setattr("tenure.client.convert.spec_to_wire", see)
    names = [name for name in inspect.signature(AsyncClient.submit).parameters if name != "self"]
    with pytest.raises(Seen) as seen:
        await AsyncClient("127.0.0.1:1").submit(**{name: name for name in names})  # type: ignore[arg-type]
    job, key = seen.value.args
    assert {name: getattr(job, name) for name in names if name != "idempotency_key"} | {"idempotency_key": key} == {
        name: name for name in names
    }
