"""The chart before a real kube-apiserver: server-side dry runs in a namespace that enforces the restricted profile.

Kinds of custom resources are left out: their definitions are not at hand. tests/chart/crds has schemas of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from tests.chart import apiserver
from tests.chart.apiserver import ApiServer
from tests.chart.rendering import CASES, NAMESPACE, Case, Object, render

# The first test waits for the server's start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CUSTOM = {"Certificate", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"}

RESTRICTED: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "probe"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "probe"}},
        "template": {
            "metadata": {"labels": {"app": "probe"}},
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "probe",
                        "image": "probe:1",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Give a server for all tests of this file: they store nothing but what pods need to be admitted."""
    binary = apiserver.program()
    if binary is None:
        pytest.skip("no kube-apiserver here: make tools ARGS=kube-apiserver (needs Go, takes long)")
    with apiserver.running(tmp_path_factory.mktemp("kube"), binary, NAMESPACE) as running:
        yield running


def pod_of(made: Object) -> Object | None:
    """Return the pod that a controller would make of the object's template, None where it has none."""
    if made["kind"] not in ("DaemonSet", "Deployment", "Job", "StatefulSet"):
        return None
    template = copy.deepcopy(made["spec"]["template"])
    # What a StatefulSet's controller adds.
    claims = [claim["metadata"]["name"] for claim in made["spec"].get("volumeClaimTemplates", ())]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}} for name in claims]
    template["spec"]["volumes"] = [*template["spec"].get("volumes", ()), *volumes]
    metadata = {**template["metadata"], "name": made["metadata"]["name"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def complaints(server: ApiServer, made: Object) -> list[str]:
    """Dry-run an object and the pod of its template; a warning counts like a refusal.

    Of a Deployment whose pods break the namespace's profile the server only warns; it refuses the pods.
    """
    found = []
    for each in (made, pod_of(made)):
        if each is not None:
            verdict = server.dry_run(each)
            name = f"{each['kind']} {each['metadata']['name']}"
            found += [f"{name}: {text}" for text in (verdict.error, *verdict.warnings) if text]
    return found


def make_priority_class(server: ApiServer, made: Object) -> None:
    """Make the priority class that its pods name: without it none is admitted."""
    pod = pod_of(made)
    if pod is not None and (name := pod["spec"].get("priorityClassName")):
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
        server.create({**kind, "metadata": {"name": name}, "value": 1})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_server_accepts_the_chart(server: ApiServer, case: Case) -> None:
    objects = render(case.values)
    served = [made for made in objects if server.knows(made)]
    assert {made["kind"] for made in objects if made not in served} <= CUSTOM
    for made in served:
        make_priority_class(server, made)
        assert complaints(server, made) == []


def test_what_is_right_passes(server: ApiServer) -> None:
    assert complaints(server, RESTRICTED) == []


def test_a_misspelt_field_is_refused(server: ApiServer) -> None:
    wrong = copy.deepcopy(RESTRICTED)
    wrong["spec"]["replica"] = 2
    verdict = server.dry_run(wrong)
    assert not verdict.accepted
    assert "replica" in verdict.error


def test_a_privileged_pod_is_warned_of_and_refused(server: ApiServer) -> None:
    wrong = copy.deepcopy(RESTRICTED)
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    found = complaints(server, wrong)
    assert any(text.startswith("Deployment") and "would violate PodSecurity" in text for text in found), found
    assert any(text.startswith("Pod") and "violates PodSecurity" in text for text in found), found


def test_a_dry_run_stores_nothing(server: ApiServer) -> None:
    assert server.dry_run(RESTRICTED).accepted
    assert not server.exists(RESTRICTED)
