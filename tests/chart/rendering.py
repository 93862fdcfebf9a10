"""Renders the chart with Helm's own engine: what the tests of the chart look at.

``CASES`` is the matrix: the files in the chart's ``ci/``, and a few combinations of switches in which every two
switches meet in all four ways.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from helm_python import Chart

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "tenure"
RELEASE, NAMESPACE = "prod", "jobs"
Object = dict[str, Any]
Values = dict[str, Any]

EXTERNAL = {
    "postgres": {"external": {"existingSecret": "pg"}},
    "etcd": {"external": {"endpoints": ["grpcs://etcd-a:2379"]}},
    "security": {"allowInsecure": True},
}
"""The least that the chart asks for."""

BUNDLED = {
    "postgres": {"bundled": {"enabled": True}},
    "etcd": {"bundled": {"enabled": True}},
    "security": {"allowInsecure": True},
}

TLS = {"coordinators": {"enabled": True, "secretName": "served"}}
CLOSED = {
    **EXTERNAL,
    "auth": {"required": True, "workers": {"tokenSecret": "worker-token"}},
    "tls": TLS,
    "security": {"allowInsecure": False},
}
"""The least without which the chart would have to be told that nothing is secured."""

RUNNERS: Values = {
    "coordinator": {"enabled": False},
    "runners": {"far": {"urls": ["https://tenure.example.com"], "tokenSecret": "runner-token"}},
}
"""The least that a release of runners alone asks for."""

SWITCHES: tuple[Values, ...] = (
    {"coordinator": {"replicas": 1}},
    {"coordinator": {"autoscaling": {"enabled": True}}},
    {"coordinator": {"antiAffinity": "none"}},
    {"coordinator": {"preStopSleepSeconds": 0}},
    {"coordinator": {"pdb": {"enabled": False}}},
    {"coordinator": {"serviceAccount": {"create": False}}},
    {"workers": {"default": {"replicas": 0}}},
    {"workers": {"more": {"autoscaling": {"hpa": {"enabled": True}}}}},
    {"workers": {"scaled": {"autoscaling": {"keda": {"enabled": True, "dsnSecret": "keda"}}}}},
    {"workers": {"shell": {"allowCommand": True, "pools": ["shell"]}}},
    {"workerDefaults": {"antiAffinity": "hard"}},
    {"workerDefaults": {"image": {"repository": "mine", "tag": "1"}}},
    {"migrations": {"enabled": False}},
    {"migrations": {"useHelmHooks": False}},
    {
        "postgres": {"external": {"existingSecret": "", "hosts": []}, "bundled": {"enabled": True}},
    },
    {"postgres": {"bundled": {"persistence": {"enabled": False}}}},
    {"postgres": {"tls": {"enabled": True, "secretName": "pg-tls"}, "bundled": {"tlsSecretName": "pg-server"}}},
    {"etcd": {"external": {"endpoints": []}, "bundled": {"enabled": True}}},
    {"etcd": {"bundled": {"members": 3}}},
    {"etcd": {"tls": {"enabled": True, "secretName": "etcd-tls"}, "bundled": {"tlsSecretName": "etcd-server"}}},
    {"etcd": {"bundled": {"members": 1, "persistence": {"enabled": False}}}},
    {"ingress": {"grpc": {"enabled": True, "host": "t.example.com"}}},
    {"ingress": {"http": {"enabled": True, "host": "o.example.com", "className": "nginx"}}},
    {"networkPolicy": {"enabled": True, "monitoring": [{"podSelector": {}}]}},
    {"networkPolicy": {"egress": {"enabled": True, "postgres": [{"podSelector": {}}], "etcd": [{"podSelector": {}}]}}},
    {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
    {"monitoring": {"prometheusRule": {"enabled": True}}},
    {"monitoring": {"dashboard": {"enabled": True}}},
    {"tests": {"enabled": False}},
    {"commonLabels": {"team": "a"}, "commonAnnotations": {"team": "a"}},
    {"fullnameOverride": "t"},
    {"auth": {"required": True, "workers": {"tokenSecret": "worker-token"}}},
    {"tls": TLS},
    {"tls": {"coordinators": {**TLS["coordinators"], "clientCertificates": "http", "clientCaSecretName": "clients"}}},
    {
        "tls": {
            "coordinators": {**TLS["coordinators"], "clientCertificates": "required"},
            "workers": {"secretName": "workers"},
        }
    },
    {"tests": {"tokenSecret": "test-token"}},
    {
        "objectStore": {
            "url": "s3://bucket/prefix",
            "endpoint": "https://minio:9000",
            "region": "eu-central-1",
            "pathStyle": True,
            "existingSecret": "keys",
            "sse": "aws:kms",
            "sseKmsKeyId": "key",
            "caSecret": "minio-ca",
        }
    },
    {"objectStore": {"url": "file:///objects", "existingClaim": "objects"}},
    {"runners": RUNNERS["runners"]},
    {"runners": {"scaled": {**RUNNERS["runners"]["far"], "autoscaling": {"hpa": {"enabled": True}}}}},
    {"runnerDefaults": {"caSecret": "ca", "proxy": {"https": "http://proxy:3128", "noProxy": ["a.example.com"]}}},
    {"runnerDefaults": {"certificateSecret": "shown", "settings": {"sessionTtlS": 20}}},
    {"ingress": {"runners": {"enabled": True, "host": "r.example.com", "tlsSecretName": "r"}}},
    {"ingress": {"dashboard": {"enabled": True, "host": "d.example.com", "tlsSecretName": "d"}}},
)


class Case(NamedTuple):
    """Values of the matrix, under the name that a failure shows."""

    name: str
    values: Values


def over(base: Values, changes: Mapping[str, Any]) -> Values:
    """Return ``base`` with the changes laid over it, as Helm does with two files of values."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = over(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _combinations() -> Iterator[Case]:
    """Two switches differ in a bit of their numbers: there one is on and the other off, in its mirror the reverse."""
    everything = range(len(SWITCHES))
    chosen = {"none": [], "all": list(everything)}
    for bit in range(len(SWITCHES).bit_length()):
        chosen[f"bit-{bit}"] = [i for i in everything if i >> bit & 1]
        chosen[f"not-bit-{bit}"] = [i for i in everything if not i >> bit & 1]
    for name, switches in chosen.items():
        values: Values = EXTERNAL
        for switch in switches:
            values = over(values, SWITCHES[switch])
        yield Case(name, values)


def _files() -> Iterator[Case]:
    for path in sorted((CHART / "ci").glob("*-values.yaml")):
        yield Case(path.name, yaml.safe_load(path.read_text()))


CASES = (*_files(), Case("runners alone", RUNNERS), *_combinations())


@cache
def chart() -> Chart:
    return Chart.load(CHART)


def render_text(values: Values, *, revision: int = 1) -> dict[str, str]:
    """Return what each template makes.

    Raises:
        HelmError: the values are refused.
    """
    chart().validate_schema(values)
    return chart().render(values, name=RELEASE, namespace=NAMESPACE, revision=revision)


def render(values: Values, *, revision: int = 1) -> list[Object]:
    """Return every object, with hooks. Raises as ``render_text``."""
    objects: list[Object] = json.loads(_rendered(json.dumps(values, sort_keys=True), revision))
    return objects


@cache
def _rendered(values: str, revision: int) -> str:
    """Objects as JSON: the same values are asked for by many tests, each of which gets objects of its own."""
    made = []
    for name, text in render_text(json.loads(values), revision=revision).items():
        if name.endswith(".yaml"):
            made += [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]
    return json.dumps(made)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield each pod with the name of its object: metadata and spec."""
    for one in objects:
        where = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield where, one
        elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield where, one["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Object) -> dict[str, str]:
    """Return a container's environment as its process sees it, with stand-ins for what the cluster fills in."""
    known: dict[str, str] = {}
    for one in container.get("env", []):
        value = one.get("value", f"secret-{one['name'].lower()}")
        if one.get("valueFrom", {}).get("fieldRef"):
            value = "10.0.0.7"
        for name, text in known.items():
            value = value.replace(f"$({name})", text)
        known[one["name"]] = value
    return known
