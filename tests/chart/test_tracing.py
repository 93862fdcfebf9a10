"""Tracing is turned on by one value for coordinators, workers and runners, and is off without it."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.errors import HelmError
from tests.chart.rendering import EXTERNAL, containers, environment, over, pod_templates, render

RUNNER = {"urls": ["https://tenure.example.com"], "tokenSecret": "t"}
ENDPOINT = "http://collector:4318"
PROCESSES = {"coordinator", "worker", "runner"}


def _traced(tracing: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return what each container is told of OpenTelemetry."""
    values = over(EXTERNAL, {"runners": {"far": RUNNER}, "tracing": tracing})
    return {
        container["name"]: {name: value for name, value in environment(container).items() if name.startswith("OTEL_")}
        for _, pod in pod_templates(render(values))
        for container in containers(pod)
    }


def test_it_is_off_where_nothing_is_said() -> None:
    told = _traced({})
    assert told.keys() >= PROCESSES
    assert not any(told.values())


@pytest.mark.parametrize(("arg", "told"), [(0.1, "0.1"), ("0.25", "0.25"), (1, "1"), (0, "0")])
def test_one_value_turns_it_on_for_all_processes(arg: object, told: str) -> None:
    wanted = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": told,
    }
    all_told = _traced({"endpoint": ENDPOINT, "sampler": "parentbased_traceidratio", "samplerArg": arg})
    assert {name: env for name, env in all_told.items() if env} == dict.fromkeys(PROCESSES, wanted)


def test_without_a_sampler_the_processes_have_their_own() -> None:
    assert _traced({"endpoint": ENDPOINT})["worker"] == {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}


@pytest.mark.parametrize("place", ["coordinator", "workerDefaults", "runnerDefaults"])
def test_it_is_not_given_twice(place: str) -> None:
    extra = {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://other:4318"}]}
    values = over(EXTERNAL, {"runners": {"far": RUNNER}, "tracing": {"endpoint": ENDPOINT}, place: extra})
    with pytest.raises(HelmError) as refused:
        render(values)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set by the chart already" in str(refused.value)
