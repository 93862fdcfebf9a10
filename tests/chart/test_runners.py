"""Runners: a release of them alone knows no store, and what it may reach is its coordinators' HTTPS."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
import yaml
from helm_python.errors import HelmError
from tests.chart.rendering import (
    CHART,
    EXTERNAL,
    RUNNERS,
    Object,
    containers,
    environment,
    named,
    of_kind,
    over,
    pod_templates,
    render,
    render_text,
)

from tenure.coordinator.rest.app import MAX_BODY_BYTES
from tenure.v1 import runner_api
from tenure.worker.remote.link import POLL_MARGIN_S, POLL_S
from tenure.worker.settings import WorkerSettings, runner_url_error

EXAMPLE = yaml.safe_load((CHART / "ci" / "runners-only-values.yaml").read_text())
STORES = re.compile(r"(?i)etcd|postgres|PGPASS|PGSSL|2379|5432")
POLICED = {"networkPolicy": {"enabled": True, "egress": {"enabled": True}}}


def runner(values: dict[str, Any]) -> dict[str, Any]:
    """Return what is laid over the smallest release of runners alone, for its runner."""
    return over(RUNNERS, {"runners": {"far": values}})


def pod_of(objects: list[Object], name: str = "far") -> Object:
    spec: Object = named(objects, "Deployment", f"prod-tenure-runner-{name}")["spec"]["template"]["spec"]
    return spec


def settings_of(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return WorkerSettings()


class TestAlone:
    @pytest.mark.parametrize(
        "values", [RUNNERS, EXAMPLE, over(EXAMPLE, {"monitoring": {"dashboard": {"enabled": True}}})]
    )
    def test_nothing_else_is_installed(self, values: dict[str, Any]) -> None:
        objects = render(values)
        assert {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in objects} == {"runner"}
        assert not of_kind(objects, "Service", "StatefulSet", "Job", "Pod", "Secret", "Ingress", "Certificate")
        for _, pod in pod_templates(objects):
            assert [container["args"] for container in containers(pod)] == [["runner"]]

    @pytest.mark.parametrize("values", [RUNNERS, EXAMPLE])
    def test_nothing_speaks_of_the_stores(self, values: dict[str, Any]) -> None:
        # The words of alerts may: a runner's leases are in the coordinators' etcd.
        objects = [one for one in render(values) if one["kind"] != "PrometheusRule"]
        assert not STORES.findall(json.dumps(objects))
        assert not STORES.findall(render_text(values)["tenure/templates/NOTES.txt"])

    def test_settings_of_etcd_do_not_reach_runners(self) -> None:
        values = {
            "settings": {"etcdPrefix": "/other/", "etcdTimeoutS": 3, "logLevel": "DEBUG"},
            "workerDefaults": {"settings": {"etcdTimeoutS": 4, "verifyS": 1, "sessionTtlS": 20}},
        }
        env = environment(pod_of(render(over(RUNNERS, values)))["containers"][0])
        assert (env["TENURE_LOG_LEVEL"], env["TENURE_WORKER_SESSION_TTL_S"]) == ("DEBUG", "20")
        assert not STORES.findall(json.dumps(env)) and "TENURE_WORKER_VERIFY_S" not in env

    @pytest.mark.parametrize(
        ("place", "values"),
        [
            ("postgres.bundled.enabled", {"postgres": {"bundled": {"enabled": True}}}),
            ("postgres.external.existingSecret", {"postgres": {"external": {"existingSecret": "pg"}}}),
            ("etcd.bundled.enabled", {"etcd": {"bundled": {"enabled": True}}}),
            ("etcd.external.endpoints", {"etcd": {"external": {"endpoints": ["grpc://etcd:2379"]}}}),
            ("ingress.dashboard.enabled", {"ingress": {"dashboard": {"enabled": True, "host": "a"}}}),
            ("ingress.runners.enabled", {"ingress": {"runners": {"enabled": True, "host": "a"}}}),
            ("tls.coordinators.enabled", {"tls": {"coordinators": {"enabled": True}}}),
            ("monitoring.serviceMonitor.enabled", {"monitoring": {"serviceMonitor": {"enabled": True}}}),
            ("workers.scan", {"workers": {"scan": {}}}),
            ("workers.default", {"workers": {"default": {"replicas": 3}}}),
        ],
    )
    def test_what_needs_coordinators_is_refused(self, place: str, values: dict[str, Any]) -> None:
        with pytest.raises(HelmError) as refused:
            render(over(RUNNERS, values))
        assert f"{place}: is for a release with coordinators" in str(refused.value)

    def test_something_has_to_be_installed(self) -> None:
        with pytest.raises(HelmError) as refused:
            render({"coordinator": {"enabled": False}})
        assert "runners: give one" in str(refused.value)

    def test_alerts_are_those_about_workers(self) -> None:
        (rule,) = of_kind(render(EXAMPLE), "PrometheusRule")
        expressions = [one["expr"] for one in rule["spec"]["groups"][0]["rules"]]
        assert expressions and all('job="jobs/prod-tenure-runner"' in one for one in expressions)
        assert re.findall(r'absent\(.*?tenure_dev_worker="([\w-]+)"', " ".join(expressions)) == ["site-b", "small"]


class TestProcess:
    def test_takes_what_its_values_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pod = pod_of(render(EXAMPLE), "site-b")
        env = environment(pod["containers"][0])
        settings = settings_of(env, monkeypatch)
        assert settings.runner_url == ("https://tenure.example.com",)
        assert (settings.pools, settings.imports, settings.capacity) == (("site-b",), ("site_b.handlers",), 64)
        assert (settings.labels, settings.grace_s, pod["terminationGracePeriodSeconds"]) == ({"zone": "b"}, 600, 630)
        assert env["HTTPS_PROXY"] == "http://proxy.internal:3128" and "NO_PROXY" not in env
        assert settings.worker_http_listen == "0.0.0.0:7072"

    def test_secrets_are_files_that_are_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = runner({"caSecret": "ca", "certificateSecret": "shown"})
        pod = pod_of(render(values))
        settings = settings_of(environment(pod["containers"][0]), monkeypatch)
        mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        files = {
            f"{mounts[one['name']]}/{item['path']}": one["secret"]["secretName"]
            for one in pod["volumes"]
            if "secret" in one
            for item in one["secret"]["items"]
        }
        assert files == {
            str(settings.token_file): "runner-token",
            str(settings.tls_ca): "ca",
            str(settings.tls_client_cert): "shown",
            str(settings.tls_client_key): "shown",
        }

    def test_runners_stand_beside_workers_of_the_same_name(self) -> None:
        values = over(EXTERNAL, {"runners": {"default": RUNNERS["runners"]["far"]}, "workerDefaults": {"capacity": 7}})
        objects = render(values)
        assert environment(pod_of(objects, "default")["containers"][0])["TENURE_WORKER_CAPACITY"] == "7"
        assert named(objects, "Deployment", "prod-tenure-worker-default")

    def test_keda_of_workers_is_not_for_runners(self) -> None:
        keda = {"workerDefaults": {"autoscaling": {"keda": {"enabled": True}}}}
        objects = render(over(EXTERNAL, {**keda, "runners": RUNNERS["runners"]}))
        assert [one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "ScaledObject")] == [
            "prod-tenure-worker-default"
        ]
        assert named(objects, "Deployment", "prod-tenure-runner-far")["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://tenure.example.com", True),
        ("https://tenure.example.com:8443/tenure/", True),
        ("https://[fd00::1]:8443", True),
        ("http://127.0.0.1:7071", True),  # a sidecar
        ("http://localhost", True),
        ("http://tenure.example.com", False),
        ("http://localhost.example.com", False),
        ("tenure.example.com", False),
        ("https://", False),
        ("https://me:pw@tenure.example.com", False),
        ("https://tenure.example.com?a=b", False),
    ],
)
def test_addresses_are_those_that_the_process_takes(url: str, accepted: bool) -> None:
    assert (runner_url_error(url) is None) is accepted
    if accepted:
        assert render(runner({"urls": [url]}))
    else:
        with pytest.raises(HelmError, match="runners/far/urls/0"):
            render(runner({"urls": [url]}))


@pytest.mark.parametrize(
    ("sentence", "values"),
    [
        ("runners.far.urls: name where the coordinators' HTTP side is reached", {"urls": []}),
        ("runners.far.tokenSecret: name a Secret with a token of role runner", {"tokenSecret": ""}),
        ("runners.far.proxy.noProxy: there is no proxy", {"proxy": {"noProxy": ["a"]}}),
        ("runners.far.terminationGracePeriodSeconds: 80 s", {"graceSeconds": 60, "terminationGracePeriodSeconds": 80}),
        (
            "runners.far.autoscaling.minReplicas: 0",
            {"autoscaling": {"minReplicas": 0, "hpa": {"enabled": True}}},
        ),
        ("runners.far.autoscaling.minReplicas: above", {"autoscaling": {"minReplicas": 20}}),
        ("runners.far.maxSurge:", {"maxSurge": 0}),
        ("runners.far.extraEnv: TENURE_RUNNER_URL is set", {"extraEnv": [{"name": "TENURE_RUNNER_URL", "value": "x"}]}),
        ("proxy/https", {"proxy": {"https": "http://me:pw@proxy:3128"}}),
        ("keda", {"autoscaling": {"keda": {"enabled": True}}}),
        ("coordinators", {"coordinators": ["a:7070"]}),
        ("etcdTimeoutS", {"settings": {"etcdTimeoutS": 3}}),
    ],
)
def test_values_that_make_no_sense_are_refused(sentence: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError) as refused:
        render(runner(values))
    assert sentence in str(refused.value)


def test_no_variable_of_the_chart_can_be_set_again() -> None:
    everything = {
        "caSecret": "ca",
        "certificateSecret": "shown",
        "proxy": {"https": "http://proxy:3128", "noProxy": ["a"]},
    }
    for name in environment(pod_of(render(runner(everything)))["containers"][0]):
        with pytest.raises(HelmError) as refused:
            render(runner({**everything, "extraEnv": [{"name": name, "value": "x"}]}))
        assert f"runners.far.extraEnv: {name} is set by the chart already" in str(refused.value)


class TestNetwork:
    def egress(self, values: dict[str, Any]) -> list[Any]:
        policy = named(render(over(runner(values), POLICED)), "NetworkPolicy", "prod-tenure-runner-far")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy
        others: list[Any]
        dns, *others = policy["egress"]
        assert {port["port"] for port in dns["ports"]} == {53}
        return others

    @pytest.mark.parametrize(
        ("values", "ports"),
        [
            ({}, [443]),
            ({"urls": ["https://a:7071", "https://b:7071/x", "https://[fd00::1]"]}, [7071, 443]),
            ({"proxy": {"https": "http://proxy:3128"}}, [3128]),
            ({"proxy": {"https": "http://proxy"}}, [80]),
            ({"proxy": {"https": "https://proxy", "noProxy": ["a"]}, "urls": ["https://a:7071"]}, [7071, 443]),
        ],
    )
    def test_runners_reach_names_and_https_alone(self, values: dict[str, Any], ports: list[int]) -> None:
        assert self.egress(values) == [{"ports": [{"port": port} for port in ports]}]

    def test_handlers_reach_what_is_named(self) -> None:
        (https, handlers) = [
            rule
            for rule in named(render(EXAMPLE), "NetworkPolicy", "prod-tenure-runner-small")["spec"]["egress"]
            if {"port": 53, "protocol": "UDP"} not in rule.get("ports", [])
        ]
        assert https == {"ports": [{"port": 7071}]}
        assert handlers == {"to": [{"ipBlock": {"cidr": "10.3.0.0/24"}}]}

    def test_without_bounds_on_egress_there_are_none(self) -> None:
        policy = named(
            render(over(RUNNERS, {"networkPolicy": {"enabled": True}})), "NetworkPolicy", "prod-tenure-runner-far"
        )
        assert policy["spec"]["policyTypes"] == ["Ingress"]

    def test_coordinators_let_runners_of_their_release_in_by_http_alone(self) -> None:
        values = over(EXTERNAL, {"runners": RUNNERS["runners"], "networkPolicy": {"enabled": True}})
        policy = named(render(values), "NetworkPolicy", "prod-tenure-coordinator")["spec"]
        let_in = {
            rule["ports"][0]["port"]: {
                peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]
            }
            for rule in policy["ingress"]
        }
        assert "runner" in let_in["http"] and "runner" not in let_in["grpc"]


class TestIngress:
    def ingress(self, values: dict[str, Any]) -> Object:
        way_in = {"ingress": {"runners": {"enabled": True, "host": "r.example.com", "tlsSecretName": "r"}}}
        return named(render(over(over(EXTERNAL, way_in), values)), "Ingress", "prod-tenure-runners")

    def test_shows_the_runners_side_alone(self) -> None:
        made = self.ingress({})
        (rule,) = made["spec"]["rules"]
        shown = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
        assert shown == {"/v1/runner/": "Prefix", "/openapi.json": "Exact"}
        assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"prod-tenure-http"}
        assert made["spec"]["tls"] == [{"secretName": "r", "hosts": ["r.example.com"]}]

    def test_every_call_of_a_runner_is_below_its_path(self) -> None:
        assert runner_api.PREFIX == "/v1/runner/"

    def test_a_long_poll_and_the_largest_body_pass(self) -> None:
        annotations = self.ingress({})["metadata"]["annotations"]
        largest_mib = int(annotations["nginx.ingress.kubernetes.io/proxy-body-size"].removesuffix("m"))
        assert largest_mib << 20 >= MAX_BODY_BYTES
        longest_s = get_args(runner_api.WaitS)[1].le + POLL_MARGIN_S
        assert longest_s >= POLL_S + POLL_MARGIN_S
        assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest_s

    def test_the_way_on_is_https_where_coordinators_speak_tls(self) -> None:
        tls = {"tls": {"coordinators": {"enabled": True, "secretName": "served"}}}
        assert self.ingress(tls)["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"

    def test_the_host_is_needed_and_an_open_door_is_told_of(self) -> None:
        with pytest.raises(HelmError) as refused:
            render(over(EXTERNAL, {"ingress": {"runners": {"enabled": True}}}))
        assert "ingress.runners.host: name the host" in str(refused.value)
        notes = render_text(over(EXTERNAL, {"ingress": {"runners": {"enabled": True, "host": "r.example.com"}}}))
        assert "ingress.runners lets r.example.com in" in notes["tenure/templates/NOTES.txt"]
