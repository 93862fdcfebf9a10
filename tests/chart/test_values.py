"""Values that make no sense are refused, with a sentence that names the value."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.errors import HelmError
from tests.chart.rendering import BUNDLED, CLOSED, EXTERNAL, ROOT, containers, over, pod_templates, render

SCALED = {"autoscaling": {"hpa": {"enabled": True}, "keda": {"enabled": True}}}

REFUSED_BY_SCHEMA: list[tuple[str, dict[str, Any]]] = [
    ("replicaCount", {"coordinator": {"replicaCount": 3}}),
    ("coordinator/replicas", {"coordinator": {"replicas": 0}}),
    ("leaderTTL", {"coordinator": {"settings": {"leaderTTL": 5}}}),
    ("coordinator/settings/leaderTtlS", {"coordinator": {"settings": {"leaderTtlS": 1}}}),
    ("settings/logLevel", {"settings": {"logLevel": "LOUD"}}),
    ("workers/scan/capacity", {"workers": {"scan": {"capacity": 0}}}),
    ("workers/scan/pools/0", {"workers": {"scan": {"pools": ["a'; DROP TABLE"]}}}),
    ("Scan_", {"workers": {"Scan_": {}}}),
    ("workers/scan/autoscaling/keda/trigger", {"workers": {"scan": {"autoscaling": {"keda": {"trigger": "magic"}}}}}),
    ("image/repository", {"image": {"repository": "registry.example.com:5000/scans:1.0"}}),
    ("image/tag", {"image": {"tag": "latest"}}),
    ("image/digest", {"image": {"digest": "abc"}}),
    ("etcd/bundled/members", {"etcd": {"bundled": {"members": 2}}}),
    ("etcd/external/endpoints/0", {"etcd": {"external": {"endpoints": ["etcd:2379"]}}}),
    ("etcd/external/endpoints/0", {"etcd": {"external": {"endpoints": ["grpc://me:pw@etcd:2379"]}}}),
    ("invalid propertyName 'password'", {"postgres": {"external": {"options": {"password": "x"}}}}),
    ("postgres/tls/mode", {"postgres": {"tls": {"mode": "prefer"}}}),
    ("pdb/maxUnavailable", {"coordinator": {"pdb": {"maxUnavailable": 0}}}),
    ("pdb/maxUnavailable", {"workerDefaults": {"pdb": {"maxUnavailable": "0%"}}}),
    ("a-name-too-long1", {"workers": {"a-name-too-long1": {}}}),
    ("fullnameOverride", {"fullnameOverride": "a.b"}),
    ("fullnameOverride", {"fullnameOverride": "1a"}),
    ("tracing/endpoint", {"tracing": {"endpoint": "collector:4318"}}),
    ("tracing/sampler", {"tracing": {"endpoint": "http://c:4318", "sampler": "some"}}),
    ("tracing/samplerArg", {"tracing": {"samplerArg": 2}}),
]

REFUSED_TOGETHER: list[tuple[str, dict[str, Any]]] = [
    ("tracing.sampler:", over(EXTERNAL, {"tracing": {"sampler": "always_on"}})),
    ("tracing.samplerArg:", over(EXTERNAL, {"tracing": {"endpoint": "http://c:4318", "samplerArg": 0.5}})),
    ("postgres.external.existingSecret:", {"etcd": EXTERNAL["etcd"]}),
    ("etcd.external.endpoints:", {"postgres": EXTERNAL["postgres"]}),
    ("postgres.bundled.enabled:", over(EXTERNAL, {"postgres": BUNDLED["postgres"]})),
    ("etcd.bundled.enabled:", over(EXTERNAL, {"etcd": BUNDLED["etcd"]})),
    (
        "etcd.bundled.persistence.enabled:",
        over(BUNDLED, {"etcd": {"bundled": {"members": 3, "persistence": {"enabled": False}}}}),
    ),
    ("etcd.tls.secretName:", over(EXTERNAL, {"etcd": {"tls": {"enabled": True}}})),
    ("postgres.tls.secretName:", over(EXTERNAL, {"postgres": {"tls": {"enabled": True}}})),
    (
        "etcd.external.endpoints: grpc://etcd:2379 is not encrypted",
        over(EXTERNAL, {"etcd": {"external": {"endpoints": ["grpc://etcd:2379"]}, "tls": {"enabled": True}}}),
    ),
    ("etcd.bundled.tlsSecretName:", over(BUNDLED, {"etcd": {"tls": {"enabled": True, "secretName": "a"}}})),
    ("postgres.bundled.tlsSecretName:", over(BUNDLED, {"postgres": {"tls": {"enabled": True, "secretName": "a"}}})),
    ("security.allowInsecure:", over(EXTERNAL, {"security": {"allowInsecure": False}})),
    ("security.allowInsecure:", over(CLOSED, {"tls": {"coordinators": {"enabled": False}}})),
    ("security.allowInsecure:", over(CLOSED, {"auth": {"required": False}})),
    ("tls.coordinators.secretName:", over(CLOSED, {"tls": {"coordinators": {"secretName": ""}}})),
    (
        "tls.coordinators.clientCertificates:",
        over(EXTERNAL, {"tls": {"coordinators": {"clientCertificates": "http"}}}),
    ),
    ("tls.workers.secretName:", over(CLOSED, {"tls": {"coordinators": {"clientCertificates": "required"}}})),
    ("auth.workers.tokenSecret:", over(CLOSED, {"auth": {"workers": {"tokenSecret": ""}}})),
    (
        "coordinator.extraEnv: TENURE_AUTH is set",
        over(EXTERNAL, {"coordinator": {"extraEnv": [{"name": "TENURE_AUTH", "value": "none"}]}}),
    ),
    (
        "workers.default.extraEnv: TENURE_TLS_CA is set",
        over(CLOSED, {"workers": {"default": {"extraEnv": [{"name": "TENURE_TLS_CA", "value": "a"}]}}}),
    ),
    ("certManager.issuerRef.name:", over(EXTERNAL, {"certManager": {"enabled": True}})),
    (
        "coordinator.terminationGracePeriodSeconds: 30 s is not longer",
        over(EXTERNAL, {"coordinator": {"terminationGracePeriodSeconds": 30, "settings": {"graceS": 25}}}),
    ),
    (
        "workers.scan.terminationGracePeriodSeconds: 80 s is not longer",
        over(EXTERNAL, {"workers": {"scan": {"graceSeconds": 60, "terminationGracePeriodSeconds": 80}}}),
    ),
    ("workers.scan.autoscaling: hpa.enabled and keda.enabled", over(EXTERNAL, {"workers": {"scan": SCALED}})),
    (
        "workers.scan.autoscaling.minReplicas: 0",
        over(EXTERNAL, {"workers": {"scan": {"autoscaling": {"minReplicas": 0, "hpa": {"enabled": True}}}}}),
    ),
    (
        "workers.scan.autoscaling.minReplicas: above",
        over(EXTERNAL, {"workers": {"scan": {"autoscaling": {"minReplicas": 20}}}}),
    ),
    (
        "workers.scan.autoscaling.keda: the trigger prometheus",
        over(EXTERNAL, {"workers": {"scan": {"autoscaling": {"keda": {"enabled": True, "trigger": "prometheus"}}}}}),
    ),
    (
        "workers.scan.autoscaling.keda.dsnSecret:",
        over(
            EXTERNAL,
            {
                "postgres": {"external": {"existingSecret": "", "hosts": ["pg"]}},
                "workers": {"scan": {"autoscaling": {"keda": {"enabled": True}}}},
            },
        ),
    ),
    (
        "workers.scan.autoscaling.keda.dsnSecret: KEDA has none of the files",
        over(
            EXTERNAL,
            {
                "postgres": {"external": {"hosts": ["pg"]}, "tls": {"enabled": True, "secretName": "tls"}},
                "workers": {"scan": {"autoscaling": {"keda": {"enabled": True}}}},
            },
        ),
    ),
    ("workerDefaults: cannot be null", over(EXTERNAL, {"workerDefaults": None})),
    ("fullnameOverride: prod-a.b", over(EXTERNAL, {"nameOverride": "a.b"})),
    *(
        (f"postgres.bundled.parameters.{name}:", over(BUNDLED, {"postgres": {"bundled": {"parameters": {name: off}}}}))
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        for off in ("off", False, 0)
    ),
    (
        "etcd.bundled.extraFlags.auto-compaction-mode:",
        over(BUNDLED, {"etcd": {"bundled": {"extraFlags": {"auto-compaction-mode": "periodic"}}}}),
    ),
    ("workers.default.maxSurge:", over(EXTERNAL, {"workerDefaults": {"maxSurge": 0}})),
    ("coordinator.autoscaling.minReplicas:", over(EXTERNAL, {"coordinator": {"autoscaling": {"minReplicas": 9}}})),
    ("ingress.grpc.host:", over(EXTERNAL, {"ingress": {"grpc": {"enabled": True}}})),
    (
        "networkPolicy.egress.postgres:",
        over(EXTERNAL, {"networkPolicy": {"enabled": True, "egress": {"enabled": True}}}),
    ),
    (
        "networkPolicy.egress.etcd:",
        over(
            EXTERNAL,
            {"networkPolicy": {"enabled": True, "egress": {"enabled": True, "postgres": [{"podSelector": {}}]}}},
        ),
    ),
]


@pytest.mark.parametrize(("path", "values"), REFUSED_BY_SCHEMA)
def test_the_schema_refuses(path: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError) as refused:
        render(over(EXTERNAL, values))
    assert path in str(refused.value)


def test_what_is_wrong_in_a_worker_is_told_alone() -> None:
    with pytest.raises(HelmError) as refused:
        render(over(EXTERNAL, {"workers": {"scan": {"capcity": 5}}}))
    assert "capcity" in str(refused.value) and "null" not in str(refused.value)


@pytest.mark.parametrize(("sentence", "values"), REFUSED_TOGETHER)
def test_values_that_contradict_each_other_are_refused(sentence: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError) as refused:
        render(values)
    assert sentence in str(refused.value)


def test_a_number_among_the_servers_options_is_written_as_it_is() -> None:
    values = over(BUNDLED, {"postgres": {"bundled": {"parameters": {"work_mem": 16000000}}}})
    (server,) = [c for _, pod in pod_templates(render(values)) for c in containers(pod) if c["name"] == "postgres"]
    assert "work_mem=16000000" in server["args"] and "max_connections=100" in server["args"]


def test_no_variable_of_the_chart_can_be_set_again() -> None:
    places = {
        "coordinator": "coordinator",
        "wait-for-schema": "coordinator",
        "worker": "workers.default",
        "migrate": "migrations",
    }
    for container in (c for _, pod in pod_templates(render(EXTERNAL)) for c in containers(pod)):
        place = places.get(container["name"])
        for name in [one["name"] for one in container["env"]] if place else []:
            values: dict[str, Any] = {"extraEnv": [{"name": name, "value": "x"}]}
            for key in reversed(str(place).split(".")):
                values = {key: values}
            with pytest.raises(HelmError) as refused:
                render(over(EXTERNAL, values))
            assert f"{place}.extraEnv: {name} is set by the chart already" in str(refused.value)


def test_every_image_is_in_the_list_for_air_gapped_clusters() -> None:
    lines = [line.split("#")[0].split() for line in (ROOT / "deploy" / "images.txt").read_text().splitlines()]
    listed = {line[0].removeprefix("docker.io/").removeprefix("library/") for line in lines if line}
    used = {container["image"] for _, pod in pod_templates(render(BUNDLED)) for container in containers(pod)}
    assert {image.removeprefix("docker.io/").removeprefix("library/") for image in used} <= listed


@pytest.mark.parametrize("part", ["image", "postgres.bundled.image", "etcd.bundled.image"])
def test_every_part_of_every_image_can_be_set(part: str) -> None:
    wanted = {
        "registry": "r.local", "repository": "a/b", "tag": "v9", "pullPolicy": "Always", "pullSecrets": ["s"],
    }  # fmt: skip
    digest = "sha256:" + "a" * 64

    def rendered(image: dict[str, Any]) -> tuple[set[str], set[str], list[Any]]:
        for key in reversed(part.split(".")):
            image = {key: image}
        pods = [pod for _, pod in pod_templates(render(over(BUNDLED, image)))]
        found = [
            (c, pod) for pod in pods for c in containers(pod) if c["image"].startswith("r.local/a/b")
        ]  # fmt: skip
        return (
            {c["image"] for c, _ in found},
            {c["imagePullPolicy"] for c, _ in found},
            [pod["spec"]["imagePullSecrets"] for _, pod in found],
        )

    images, policies, secrets = rendered(wanted)
    assert images == {"r.local/a/b:v9"} and policies == {"Always"}
    assert all(one == [{"name": "s"}] for one in secrets)
    assert rendered({**wanted, "digest": digest})[0] == {f"r.local/a/b@{digest}"}
