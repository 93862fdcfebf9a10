"""The chart renders in the whole matrix of its values, to objects that Kubernetes' own schemas accept."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart
from helm_python.chart import lint, package
from jsonschema import Draft202012Validator
from tests.chart.rendering import (
    BUNDLED,
    CASES,
    CHART,
    EXTERNAL,
    ROOT,
    RUNNERS,
    Case,
    Object,
    chart,
    containers,
    named,
    of_kind,
    over,
    pod_templates,
    render,
    render_text,
)
from typer.testing import CliRunner

from tenure.cli.main import app

VERSIONS = ("1.26", "1.31", "1.37")
"""The oldest that Chart.yaml admits, one in the middle, the newest whose schemas are known."""

CRDS = Path(__file__).parent / "crds"


@cache
def crd_schema(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((CRDS / f"{kind}.json").read_text()))


@cache
def problem_of(text: str, versions: tuple[str, ...]) -> str:
    """Say what is wrong with an object, or nothing. Cached: most objects are the same in many cases."""
    made = json.loads(text)
    if (CRDS / f"{made['kind']}.json").exists():
        return "; ".join(f"{error.json_path}: {error.message}" for error in crd_schema(made["kind"]).iter_errors(made))
    for version in versions:
        try:
            kubernetes_validate.validate(made, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return f"Kubernetes {version}: {error.json_path}: {error.message}"
    return ""


def key_of(made: Object) -> str:
    return f"{made['apiVersion']}/{made['kind']} {made['metadata'].get('namespace', '')}/{made['metadata']['name']}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_matrix_renders_valid_objects(case: Case) -> None:
    objects = render(case.values)
    names = [key_of(made) for made in objects]
    assert len(names) == len(set(names))
    versions = VERSIONS if case.name.endswith(".yaml") else VERSIONS[-1:]
    for made in objects:
        assert not (problem := problem_of(json.dumps(made, sort_keys=True), versions)), f"{key_of(made)}: {problem}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lint_finds_nothing(case: Case) -> None:
    report = lint(CHART, case.values, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendering_twice_gives_the_same(case: Case) -> None:
    # The bundled password is new each time here, where no cluster can be asked for the one that is kept.
    first, second = (
        {name: re.sub(r"(?m)^  password: \S+$", "", text) for name, text in render_text(case.values).items()}
        for _ in range(2)
    )
    assert first == second


def test_every_kind_that_the_chart_knows_is_in_the_matrix() -> None:
    kinds = {made["kind"] for case in CASES for made in render(case.values)}
    assert kinds >= {path.stem for path in CRDS.glob("*.json")}
    assert kinds >= {"HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"}


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]


def test_nothing_of_a_release_is_missing_from_its_package(tmp_path: Path) -> None:
    with Chart.load(package(CHART, destination=tmp_path)) as packed:
        assert packed.render(EXTERNAL, name="a", namespace="b") == Chart.load(CHART).render(
            EXTERNAL, name="a", namespace="b"
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_notes_tell_three_commands(case: Case) -> None:
    (notes,) = [text for name, text in render_text(case.values).items() if name.endswith("NOTES.txt")]
    alone = not case.values.get("coordinator", {}).get("enabled", True)
    for command in (
        "1. See that they are ready:" if alone else "1. See that it is up:      helm test prod",
        "tenure workers list" if alone else "kubectl --namespace jobs port-forward",
        "tenure submit",
    ):
        assert command in notes, command
    bundled = [case.values.get(store, {}).get("bundled", {}) for store in ("postgres", "etcd")]
    assert ("FOR TRYING OUT" in notes) == any(one.get("enabled") and one.get("members", 1) == 1 for one in bundled)


@pytest.mark.parametrize(
    ("worker", "told"),
    [
        ({"replicas": 0}, "no worker runs"),
        ({"autoscaling": {"minReplicas": 0, "keda": {"enabled": True}}}, "--pool default --wait"),
    ],
    ids=["none", "none before the first job"],
)
def test_the_notes_say_whether_a_pool_is_served(worker: dict[str, object], told: str) -> None:
    texts = render_text(over(EXTERNAL, {"workers": {"default": worker}}))
    (notes,) = [text for name, text in texts.items() if name.endswith("NOTES.txt")]
    assert told in notes


class TestMigration:
    def test_is_a_hook_before_install_and_upgrade_but_not_before_a_rollback(self) -> None:
        (job,) = of_kind(render(EXTERNAL), "Job")
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"

    @pytest.mark.parametrize(
        "values",
        [
            over(EXTERNAL, {"migrations": {"useHelmHooks": False}}),
            over(BUNDLED, {}),
            over(
                EXTERNAL,
                {
                    "postgres": {"tls": {"enabled": True}},
                    "certManager": {"enabled": True, "issuerRef": {"name": "ca"}},
                },
            ),
        ],
        ids=["asked for", "its Postgres is part of the release", "its certificate is part of the release"],
    )
    def test_is_a_job_of_its_revision_where_a_hook_would_wait_for_ever(self, values: dict[str, object]) -> None:
        jobs = [of_kind(render(values, revision=revision), "Job")[0] for revision in (1, 2)]
        newer = of_kind(render(over(values, {"image": {"tag": "next"}})), "Job")[0]
        assert all("helm.sh/hook" not in job["metadata"].get("annotations", {}) for job in jobs)
        assert len({job["metadata"]["name"] for job in (*jobs, newer)}) == 3  # a Job cannot be changed

    def test_is_another_job_for_other_values_of_its_pod(self) -> None:
        changes: list[dict[str, object]] = [
            {},
            {"postgres": {"external": {"hosts": ["pg"]}}},
            {"postgres": {"tls": {"enabled": True, "secretName": "tls"}}},
            {"podSecurity": {"runAsUser": 5}},
            {"global": {"imagePullSecrets": ["mine"]}},
            {"image": {"pullPolicy": "Always"}},
            {"commonLabels": {"team": "a"}},
        ]
        base = over(EXTERNAL, {"migrations": {"useHelmHooks": False}})
        jobs = [job for values in changes for job in of_kind(render(over(base, values)), "Job")]
        assert len({job["metadata"]["name"] for job in jobs}) == len(changes)

    def test_is_left_to_the_coordinators_where_it_is_off(self) -> None:
        objects = render(over(EXTERNAL, {"migrations": {"enabled": False}}))
        assert not of_kind(objects, "Job")
        assert "initContainers" not in of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]


def test_a_worker_says_no_where_the_defaults_say_yes() -> None:
    values = over(
        EXTERNAL,
        {
            "workerDefaults": {"pdb": {"enabled": True}, "replicas": 2, "allowCommand": True},
            "workers": {"default": {"pdb": {"enabled": False}, "replicas": 0, "allowCommand": False}},
        },
    )
    objects = render(values)
    (worker,) = [one for one in of_kind(objects, "Deployment") if one["metadata"]["name"].endswith("worker-default")]
    assert worker["spec"]["replicas"] == 0
    assert {"name": "TENURE_WORKER_ALLOW_COMMAND", "value": "false"} in worker["spec"]["template"]["spec"][
        "containers"
    ][0]["env"]
    assert not [one for one in of_kind(objects, "PodDisruptionBudget") if "worker" in one["metadata"]["name"]]


def test_names_that_look_like_numbers_stay_text() -> None:
    values = over(EXTERNAL, {"fullnameOverride": "true", "workers": {"no": {}, "1": {}}})
    texts = chart().render(values, name="2024", namespace="123")
    made = [one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
    for one in made:
        metadata = one["metadata"]
        assert {type(value) for value in (metadata["namespace"], *metadata["labels"].values())} == {str}, one["kind"]


def test_values_that_look_like_something_else_stay_text() -> None:
    odd = "a: b #c"
    values: dict[str, object] = {
        "global": {"imagePullSecrets": ["123"]},
        "postgres": {
            "external": {"existingSecret": "123", "hosts": ["pg"], "user": odd, "passwordKey": odd},
            "tls": {"enabled": True},
        },
        "etcd": {"external": {"existingSecret": "1e3", "userKey": odd, "passwordKey": odd}},
        "certManager": {"enabled": True, "issuerRef": {"name": "12"}, "duration": "1", "renewBefore": "2"},
        "coordinator": {"priorityClassName": "1", "serviceAccount": {"name": "2"}},
        "ingress": {"http": {"enabled": True, "host": "h", "className": "3", "tlsSecretName": "4", "paths": ["/a: b"]}},
        "monitoring": {
            "serviceMonitor": {"enabled": True, "interval": "5"},
            "prometheusRule": {"enabled": True, "runbookUrl": odd},
        },
    }
    objects = render(over(EXTERNAL, values))
    pod = named(objects, "Deployment", "prod-tenure-coordinator")["spec"]["template"]["spec"]
    sources = {one["name"]: one["valueFrom"] for one in pod["containers"][0]["env"] if "valueFrom" in one}
    assert sources["PGPASSWORD"] == {"secretKeyRef": {"name": "123", "key": odd}}
    assert sources["TENURE_ETCD_USER"] == {"secretKeyRef": {"name": "1e3", "key": odd}}
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("1", "2")
    assert pod["imagePullSecrets"] == [{"name": "123"}]
    certificate = of_kind(objects, "Certificate")[0]["spec"]
    assert [certificate[key] for key in ("commonName", "duration", "renewBefore")] == [odd, "1", "2"]
    (ingress,) = of_kind(objects, "Ingress")
    assert (ingress["spec"]["ingressClassName"], ingress["spec"]["tls"][0]["secretName"]) == ("3", "4")
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/a: b"
    assert of_kind(objects, "ServiceMonitor")[0]["spec"]["endpoints"][0]["interval"] == "5"
    for rule in of_kind(objects, "PrometheusRule")[0]["spec"]["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"].startswith(f"{odd}#")


def test_a_dsn_stays_whole_where_its_key_looks_like_a_map() -> None:
    objects = render(over(EXTERNAL, {"postgres": {"external": {"existingSecret": "123", "dsnKey": "a: b"}}}))
    env = named(objects, "Deployment", "prod-tenure-coordinator")["spec"]["template"]["spec"]["containers"][0]["env"]
    (dsn,) = [one["valueFrom"] for one in env if one["name"] == "TENURE_POSTGRES_DSN"]
    assert dsn == {"secretKeyRef": {"name": "123", "key": "a: b"}}


def test_the_default_worker_can_be_left_out() -> None:
    objects = render(over(EXTERNAL, {"workers": {"default": None, "scan": {}}}))
    assert [one["metadata"]["name"] for one in of_kind(objects, "Deployment")] == [
        "prod-tenure-coordinator",
        "prod-tenure-worker-scan",
    ]


def test_pods_that_are_not_ready_hold_up_no_drain_unless_they_are_members_of_etcd() -> None:
    objects = render(over(BUNDLED, {"etcd": {"bundled": {"members": 3}}}))
    told = {
        one["metadata"]["name"]: one["spec"].get("unhealthyPodEvictionPolicy")
        for one in of_kind(objects, "PodDisruptionBudget")
    }
    assert told == {
        "prod-tenure-coordinator": "AlwaysAllow",
        "prod-tenure-worker-default": "AlwaysAllow",
        "prod-tenure-etcd": None,
    }


@pytest.mark.parametrize(("replicas", "may_go"), [(1, 0), (2, 1)])
def test_coordinators_that_share_no_node_can_be_replaced(replicas: int, may_go: int) -> None:
    objects = render(over(EXTERNAL, {"coordinator": {"antiAffinity": "hard", "replicas": replicas}}))
    strategy = named(objects, "Deployment", "prod-tenure-coordinator")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == may_go


def test_kubernetes_refuses_another_number_of_members() -> None:
    def selector(members: int) -> object:
        objects = render(over(BUNDLED, {"etcd": {"bundled": {"members": members}}}))
        return named(objects, "StatefulSet", "prod-tenure-etcd")["spec"]["selector"]

    assert selector(1) != selector(3)


def test_etcd_knows_all_of_its_members_by_name() -> None:
    values = over(EXTERNAL, {"etcd": {"external": {"endpoints": []}, "bundled": {"enabled": True, "members": 3}}})
    objects = render(values)
    (etcd,) = of_kind(objects, "StatefulSet")
    arguments = dict(one.split("=", 1) for one in etcd["spec"]["template"]["spec"]["containers"][0]["args"])
    domain = f"{etcd['spec']['serviceName']}.jobs.svc"
    members = dict(member.split("=", 1) for member in arguments["--initial-cluster"].split(","))
    assert members == {f"prod-tenure-etcd-{i}": f"http://prod-tenure-etcd-{i}.{domain}:2380" for i in range(3)}
    own = arguments["--initial-advertise-peer-urls"].replace("$(POD_NAME)", "prod-tenure-etcd-1")
    assert own == members["prod-tenure-etcd-1"]
    assert arguments["--quota-backend-bytes"] == "2147483648"
    (service,) = [one for one in of_kind(objects, "Service") if one["metadata"]["name"] == etcd["spec"]["serviceName"]]
    assert service["spec"]["publishNotReadyAddresses"] is True


class TestHelmTest:
    def commands(self, values: dict[str, object]) -> list[list[str]]:
        pods = of_kind(render(values), "Pod")
        assert all(pod["metadata"]["annotations"]["helm.sh/hook"] == "test" for pod in pods)
        return [pod["spec"]["containers"][0]["args"] for pod in pods]

    def test_asks_for_readiness_and_runs_a_job_where_a_worker_is(self) -> None:
        idle = {"autoscaling": {"minReplicas": 0, "keda": {"enabled": True}}}
        health, submit = self.commands(
            over(EXTERNAL, {"workers": {"a-idle": idle, "default": {"pools": ["x/y", "z"]}}})
        )
        assert health == ["health", "http://prod-tenure-http.jobs.svc:7071/readyz"]
        assert submit[:4] == ["submit", "noop", "--pool", "x/y"]

    def test_runs_where_coordinators_may(self) -> None:
        where = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]}
        for pod in of_kind(render(over(EXTERNAL, {"coordinator": where})), "Pod"):
            assert {key: pod["spec"][key] for key in where} == where

    def test_runs_no_job_where_no_worker_is(self) -> None:
        assert len(self.commands(over(EXTERNAL, {"workers": {"default": {"replicas": 0}}}))) == 1


def test_every_command_and_flag_is_one_of_the_command_line() -> None:
    names = ("coordinator", "worker", "runner", "wait-for-schema", "migrate", "health", "submit")
    pods = [pod for _, pod in pod_templates(render(over(EXTERNAL, {"runners": RUNNERS["runners"]})))]
    commands = {one["name"]: one["args"] for pod in pods for one in containers(pod)}
    assert commands.keys() == set(names)
    for command in commands.values():
        told = CliRunner().invoke(app, [*command[: 2 if command[0] == "db" else 1], "--help"])
        assert told.exit_code == 0, command
        assert all(part in told.output for part in command if part.startswith("--")), command
