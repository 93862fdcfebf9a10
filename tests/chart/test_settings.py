"""Chart and code agree on every setting: each can be given, and what is given reaches the process.

The environment of the rendered containers is read by the processes' own settings classes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, get_args, get_origin

import pytest
from helm_python.errors import HelmError
from pydantic_settings import BaseSettings
from tests.chart.rendering import (
    CASES,
    CHART,
    CLOSED,
    EXTERNAL,
    Case,
    containers,
    environment,
    named,
    of_kind,
    over,
    pod_templates,
    render,
    render_text,
)

from tenure.coordinator.exposure import require_closed
from tenure.coordinator.settings import CoordinatorSettings
from tenure.worker.settings import WorkerSettings

MADE_BY_THE_PROCESS = {"TENURE_COORDINATOR_ID", "TENURE_WORKER_ID"}
"""Pods of one Deployment have one environment, but must differ in these: they take them from the host name."""

SET_BY_THE_CHART = {
    "TENURE_POSTGRES_DSN", "TENURE_ETCD_ENDPOINTS", "TENURE_ETCD_USER", "TENURE_ETCD_PASSWORD", "TENURE_ETCD_CA",
    "TENURE_ETCD_CERT", "TENURE_ETCD_KEY", "TENURE_GRPC_LISTEN", "TENURE_HTTP_LISTEN", "TENURE_GRPC_ADVERTISE",
    "TENURE_MIGRATE", "TENURE_COORDINATOR", "TENURE_WORKER_HTTP_LISTEN", "TENURE_WORKER_POOLS",
    "TENURE_WORKER_IMPORTS", "TENURE_WORKER_CAPACITY", "TENURE_WORKER_LABELS", "TENURE_WORKER_ALLOW_COMMAND",
    "TENURE_WORKER_HTTP_ALLOW", "TENURE_WORKER_GRACE_S", "TENURE_AUTH", "TENURE_ALLOW_INSECURE", "TENURE_TLS_CERT",
    "TENURE_TLS_KEY", "TENURE_TLS_CLIENT_CA", "TENURE_TLS_CLIENT_REQUIRED", "TENURE_TLS", "TENURE_TLS_CA",
    "TENURE_TLS_CLIENT_CERT", "TENURE_TLS_CLIENT_KEY", "TENURE_TLS_SERVER_NAME", "TENURE_TOKEN_FILE",
    "TENURE_RUNNER_URL", "TENURE_HTTP_ADVERTISE", "TENURE_OBJECT_STORE", "TENURE_OBJECT_STORE_ENDPOINT",
    "TENURE_OBJECT_STORE_REGION", "TENURE_OBJECT_STORE_PATH_STYLE", "TENURE_OBJECT_STORE_ACCESS_KEY_ID",
    "TENURE_OBJECT_STORE_SECRET_ACCESS_KEY", "TENURE_OBJECT_STORE_SSE", "TENURE_OBJECT_STORE_SSE_KMS_KEY_ID",
    "TENURE_OBJECT_STORE_CA",
}  # fmt: skip
"""From values of other names; all others are in a block ``settings``."""

SECRET = {"TENURE_TOKEN", "TENURE_TOKEN_FILE"}
"""From a Secret of the user's own, by `extraEnv` or `extraVolumes`: the chart knows no token."""

BY_EXTRA_ENV = {
    "TENURE_OIDC_ISSUER", "TENURE_OIDC_AUDIENCE", "TENURE_OIDC_JWKS_URL", "TENURE_OIDC_CA", "TENURE_OIDC_ROLE_CLAIM",
    "TENURE_OIDC_NAMESPACES_CLAIM", "TENURE_OIDC_POOLS_CLAIM", "TENURE_OIDC_NAME_CLAIM", "TENURE_OIDC_CLIENT_ID",
    "TENURE_OIDC_CLIENT_SECRET", "TENURE_OIDC_SCOPES",
}  # fmt: skip
"""By `coordinator.extraEnv`: the issuer is the user's own, as are its CA (`extraVolumes`) and the way to it."""

SHARED = ("etcdPrefix", "etcdTimeoutS", "logLevel", "logFormat")
Parse = Callable[[str, dict[str, str]], Any]
CLASSES: dict[str, type[BaseSettings]] = {"coordinator": CoordinatorSettings, "worker": WorkerSettings}
READ_BY: dict[str, type[BaseSettings]] = {**CLASSES, "runner": WorkerSettings}
"""What each container's process reads: a runner is a worker in another mode."""


def fields(kind: type[BaseSettings]) -> dict[str, tuple[str, Any]]:
    """Each variable of the environment with its field's name and description."""
    return {
        field.validation_alias if isinstance(field.validation_alias, str) else f"TENURE_{name.upper()}": (name, field)
        for name, field in kind.model_fields.items()
    }


def variable(process: str, key: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).upper()
    return f"TENURE_WORKER_{snake}" if process == "worker" and key not in SHARED else f"TENURE_{snake}"


def typed(process: str) -> dict[str, dict[str, Any]]:
    """Each variable that a block ``settings`` can give, with its schema."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    own = {"coordinator": schema["properties"]["coordinator"], "worker": schema["definitions"]["worker"]}[process]
    blocks = (schema["properties"]["settings"], own["properties"]["settings"])
    assert all(block["additionalProperties"] is False for block in blocks)
    return {variable(process, key): {**one, "key": key} for block in blocks for key, one in block["properties"].items()}


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    def read(process: str, env: dict[str, str]) -> Any:
        for name in [name for name in os.environ if name.startswith("TENURE_")]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return READ_BY[process]()

    return read


def processes(case: Case) -> Iterator[tuple[str, dict[str, str]]]:
    for _, pod in pod_templates(render(case.values)):
        for container in containers(pod):
            if container["name"] in READ_BY:
                yield container["name"], environment(container)


@pytest.mark.parametrize("process", CLASSES)
def test_every_setting_can_be_given_and_nothing_else(process: str) -> None:
    known = fields(CLASSES[process]).keys()
    assert known - MADE_BY_THE_PROCESS - SET_BY_THE_CHART - SECRET - BY_EXTRA_ENV == typed(process).keys()


def test_what_the_chart_sets_exists_and_what_is_named_above_is_set() -> None:
    seen = {name for case in CASES for _, env in processes(case) for name in env if name.startswith("TENURE_")}
    known = fields(CoordinatorSettings).keys() | fields(WorkerSettings).keys()
    assert seen <= known | {"TENURE_TOKEN_FILE"}
    assert seen >= SET_BY_THE_CHART


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_process_takes_its_environment(case: Case, parse: Parse) -> None:
    for process, env in processes(case):
        assert parse(process, env)


def test_the_readme_names_the_variable_of_each_setting() -> None:
    told = re.findall(r"^\| `(\S*)settings\.(\w+)` \| `(\w+)` \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    for process, block in (("coordinator", "coordinator."), ("worker", "workerDefaults.")):
        named = {(key, name) for at, key, name in told if at in ("", block)}
        assert named == {(schema["key"], name) for name, schema in typed(process).items()}


@pytest.mark.parametrize("process", CLASSES)
def test_bounds_and_choices_are_those_of_the_code(process: str) -> None:
    for name, (_, field) in fields(CLASSES[process]).items():
        schema = typed(process).get(name)
        if schema is None:
            continue
        wanted = {}
        for constraint in field.metadata:
            for bound, word in (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum")):
                if getattr(constraint, bound, None) is not None:
                    wanted[word] = getattr(constraint, bound)
        words = ("minimum", "exclusiveMinimum", "maximum")
        assert {word: schema[word] for word in words if word in schema} == wanted, name
        kind = field.annotation
        if get_origin(kind) is Literal:
            assert tuple(schema["enum"]) == get_args(kind), name
        else:
            assert schema["type"] == {bool: "boolean", int: "integer", float: "number", str: "string"}[kind], name


def another(schema: dict[str, Any], default: Any) -> Any:
    """Return a value that is allowed and not the default."""
    if "enum" in schema:
        return next(one for one in schema["enum"] if one != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        return "/other/v2/"
    # Large and round: YAML and JSON know such numbers as floats with an exponent.
    return default * 2 + 1_000_000 if "maximum" not in schema and schema["type"] == "integer" else default * 2 + 0.5


@pytest.mark.parametrize("process", CLASSES)
def test_what_is_given_reaches_the_process(process: str, parse: Parse) -> None:
    known = fields(CLASSES[process])
    given = {name: another(schema, known[name][1].default) for name, schema in typed(process).items()}
    keys = {name: schema["key"] for name, schema in typed(process).items()}
    shared = {keys[name]: value for name, value in given.items() if keys[name] in SHARED}
    own = {keys[name]: value for name, value in given.items() if keys[name] not in SHARED}
    block = {"coordinator": {"coordinator": {"settings": own}}, "worker": {"workerDefaults": {"settings": own}}}
    case = Case("", over(EXTERNAL, {"settings": shared, **block[process]}))
    settings = next(parse(name, env) for name, env in processes(case) if name == process)
    assert {name: getattr(settings, known[name][0]) for name in given} == given


def test_a_worker_serves_what_its_values_say(parse: Parse) -> None:
    values = {
        "pools": ["scan/fast", "scan/slow"], "imports": ["a.b", "c"], "capacity": 9, "labels": {"zone": "a, b"},
        "allowCommand": True, "httpAllow": ["10.0.0.0/8", "intranet"], "coordinators": ["a:7070", "b:7070"],
        "graceSeconds": 600,
    }  # fmt: skip
    case = Case("", over(EXTERNAL, {"workers": {"default": None, "scan": values}}))
    (env,) = [env for process, env in processes(case) if process == "worker"]
    settings = parse("worker", env)
    assert settings.pools == ("scan/fast", "scan/slow") and settings.imports == ("a.b", "c")
    assert settings.capacity == 9 and settings.labels == {"zone": "a, b"} and settings.allow_command is True
    assert settings.http_allow == ("10.0.0.0/8", "intranet") and settings.coordinator == ("a:7070", "b:7070")
    assert settings.grace_s == 600
    (worker,) = [one for one in of_kind(render(case.values), "Deployment") if "worker" in one["metadata"]["name"]]
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 630


def test_a_worker_without_pools_serves_the_one_of_its_name(parse: Parse) -> None:
    case = Case("", over(EXTERNAL, {"workers": {"default": None, "scan": {}}}))
    (env,) = [env for process, env in processes(case) if process == "worker"]
    assert parse("worker", env).pools == ("scan",)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_processes_have_longer_to_stop_than_they_take(case: Case, parse: Parse) -> None:
    for _, pod in pod_templates(render(case.values)):
        for container in pod["spec"]["containers"]:
            if container["name"] in READ_BY:
                stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
                grace_s = parse(container["name"], environment(container)).grace_s + float(stop[1])
                assert pod["spec"]["terminationGracePeriodSeconds"] > grace_s


def test_coordinators_reach_each_other_by_their_pods_addresses(parse: Parse) -> None:
    ((_, env),) = [one for one in processes(Case("", EXTERNAL)) if one[0] == "coordinator"]
    settings = parse("coordinator", env)
    assert settings.grpc_advertise == "10.0.0.7:7070" and settings.grpc_listen == "0.0.0.0:7070"
    assert settings.migrate is False  # a Job does it


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_coordinator_is_closed_or_was_told_not_to_be(case: Case, parse: Parse) -> None:
    for process, env in processes(case):
        if process == "coordinator":
            settings = parse(process, env)
            require_closed(settings)
            assert settings.allow_insecure is bool(case.values.get("security", {}).get("allowInsecure"))


class TestSecurity:
    def coordinator(self, values: dict[str, Any], parse: Parse) -> tuple[CoordinatorSettings, dict[str, Any]]:
        pod = named(render(over(CLOSED, values)), "Deployment", "prod-tenure-coordinator")["spec"]["template"]
        return parse("coordinator", environment(pod["spec"]["containers"][0])), pod["spec"]

    def worker(self, values: dict[str, Any], parse: Parse) -> tuple[WorkerSettings, dict[str, Any], dict[str, str]]:
        pod = named(render(over(CLOSED, values)), "Deployment", "prod-tenure-worker-default")["spec"]["template"]
        env = environment(pod["spec"]["containers"][0])
        return parse("worker", env), pod["spec"], env

    def files(self, spec: dict[str, Any]) -> dict[str, str]:
        """Each file of a Secret that the first container sees, with that Secret."""
        mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
        return {
            f"{mounts[one['name']]}/{item['path']}": one["secret"]["secretName"]
            for one in spec["volumes"]
            if "secret" in one
            for item in one["secret"].get("items", [{"path": name} for name in ("tls.crt", "tls.key", "ca.crt")])
        }

    def test_coordinators_show_a_certificate_and_are_probed_by_https(self, parse: Parse) -> None:
        settings, spec = self.coordinator({}, parse)
        assert settings.auth == "required" and not settings.allow_insecure and settings.tls_client_ca is None
        files = self.files(spec)
        assert {files[str(one)] for one in (settings.tls_cert, settings.tls_key, settings.tls_ca)} == {"served"}
        assert settings.tls_server_name == "prod-tenure-grpc.jobs.svc"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert spec["containers"][0][probe]["httpGet"]["scheme"] == "HTTPS"

    @pytest.mark.parametrize("demanded", [False, True])
    def test_client_certificates(self, demanded: bool, parse: Parse) -> None:
        tls = {
            "coordinators": {"clientCertificates": "required" if demanded else "http", "clientCaSecretName": "clients"},
            "workers": {"secretName": "shown"},
        }
        settings, spec = self.coordinator({"tls": tls}, parse)
        assert settings.tls_client_required is demanded
        assert self.files(spec)[str(settings.tls_client_ca)] == "clients"
        assert (settings.tls_client_cert is not None) is demanded, "coordinators are clients of each other"
        worker, spec, _ = self.worker({"tls": tls}, parse)
        files = self.files(spec)
        assert files[str(worker.tls_ca)] == ("shown" if demanded else "served")
        assert (files.get(str(worker.tls_client_cert)), files.get(str(worker.tls_client_key))) == (
            ("shown", "shown") if demanded else (None, None)
        )

    def test_workers_get_the_authority_and_the_token_and_no_key(self, parse: Parse) -> None:
        worker, spec, env = self.worker({}, parse)
        assert self.files(spec) == {str(worker.tls_ca): "served", env["TENURE_TOKEN_FILE"]: "worker-token"}
        assert worker.tls and worker.tls_server_name == "prod-tenure-grpc.jobs.svc"
        assert "scheme" not in spec["containers"][0]["livenessProbe"]["httpGet"], "a worker speaks no TLS"

    def test_workers_of_other_coordinators_verify_these_by_their_own_names(self, parse: Parse) -> None:
        worker, _, _ = self.worker({"workerDefaults": {"coordinators": ["tenure.example.com:7070"]}}, parse)
        assert worker.tls_ca is not None and worker.tls_server_name is None

    def test_cert_manager_issues_what_has_no_secret(self) -> None:
        tls = {"coordinators": {"secretName": "", "clientCertificates": "required", "extraNames": ["t.example.com"]}}
        issuer = {"certManager": {"enabled": True, "issuerRef": {"name": "ca"}}}
        objects = render(over(CLOSED, {"tls": tls, **issuer}))
        made = {one["spec"]["secretName"]: one["spec"] for one in of_kind(objects, "Certificate")}
        assert made.keys() == {"prod-tenure-coordinator-tls", "prod-tenure-worker-tls"}
        served = made["prod-tenure-coordinator-tls"]
        assert {"prod-tenure-grpc.jobs.svc", "prod-tenure-http.jobs.svc", "t.example.com"} <= set(served["dnsNames"])
        assert served["usages"] == ["server auth", "client auth"]
        assert made["prod-tenure-worker-tls"]["usages"] == ["client auth"]

    def test_prometheus_and_ingresses_ask_by_tls(self) -> None:
        values = {
            "monitoring": {"serviceMonitor": {"enabled": True}},
            "ingress": {"grpc": {"enabled": True, "host": "a"}, "http": {"enabled": True, "host": "b"}},
        }
        objects = render(over(CLOSED, values))
        (endpoint,) = named(objects, "ServiceMonitor", "prod-tenure-coordinator")["spec"]["endpoints"]
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"]["serverName"] == "prod-tenure-grpc.jobs.svc"
        assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": "served", "key": "ca.crt"}}
        backends = [
            one["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"]
            for one in of_kind(objects, "Ingress")
        ]
        assert sorted(backends) == ["GRPCS", "HTTPS"]
        ports = [port for one in of_kind(objects, "Service") for port in one["spec"]["ports"] if "appProtocol" in port]
        assert {port["appProtocol"] for port in ports} == {"https"}

    def test_the_pods_of_helm_test_get_in(self, parse: Parse) -> None:
        pods = {one["metadata"]["name"]: one["spec"] for one in of_kind(render(CLOSED), "Pod")}
        assert pods.keys() == {"prod-tenure-test-health"}, "without a token no job can be submitted"
        pods = {
            one["metadata"]["name"]: one["spec"]
            for one in of_kind(render(over(CLOSED, {"tests": {"tokenSecret": "mine"}})), "Pod")
        }
        assert pods.keys() == {"prod-tenure-test-health", "prod-tenure-test-submit"}
        assert pods["prod-tenure-test-health"]["containers"][0]["args"][1].startswith("https://prod-tenure-http.")
        env = environment(pods["prod-tenure-test-submit"]["containers"][0])
        files = self.files(pods["prod-tenure-test-submit"])
        assert (files[env["TENURE_TLS_CA"]], files[env["TENURE_TOKEN_FILE"]]) == ("served", "mine")

    @pytest.mark.parametrize(("allowed", "words"), [(True, "INSECURE: coordinators authenticate nobody"), (False, "")])
    def test_the_notes_say_what_is_open(self, allowed: bool, words: str) -> None:
        notes = render_text(EXTERNAL if allowed else CLOSED)["tenure/templates/NOTES.txt"]
        assert words in notes and ("INSECURE" in notes) is allowed
        assert ("TENURE_TLS_CA" in notes) is not allowed


class TestObjectStore:
    S3: ClassVar[dict[str, Any]] = {"url": "s3://bucket/p", "existingSecret": "keys", "caSecret": "ca"}
    FOLDER: ClassVar[dict[str, Any]] = {"url": "file:///objects", "existingClaim": "shared"}

    def pod(self, values: dict[str, Any], name: str) -> tuple[dict[str, str], dict[str, Any]]:
        pod = named(render(values), "Deployment", f"prod-tenure-{name}")["spec"]["template"]
        return environment(pod["spec"]["containers"][0]), pod["spec"]

    def test_s3_is_known_to_coordinators_alone(self, parse: Parse) -> None:
        values = over(EXTERNAL, {"objectStore": {**self.S3, "endpoint": "https://minio:9000", "pathStyle": False}})
        env, spec = self.pod(values, "coordinator")
        settings = parse("coordinator", env)
        assert settings.object_store == "s3://bucket/p"
        assert (settings.object_store_endpoint, settings.object_store_path_style) == ("https://minio:9000", False)
        assert settings.object_store_access_key_id and settings.object_store_secret_access_key
        mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
        assert str(settings.object_store_ca) == f"{mounts['object-store-ca']}/ca.crt"
        env, spec = self.pod(values, "worker-default")
        assert {name for name in env if "OBJECT" in name} == {"TENURE_OBJECT_STORE_CA"}
        assert parse("worker", env).object_store_ca == settings.object_store_ca
        assert "keys" not in json.dumps(spec)

    def test_a_folder_is_a_claim_of_the_coordinators(self, parse: Parse) -> None:
        env, spec = self.pod(over(CLOSED, {"objectStore": self.FOLDER}), "coordinator")
        settings = parse("coordinator", env)
        assert settings.http_advertise == "https://prod-tenure-http.jobs.svc:7071"
        (volume,) = [one for one in spec["volumes"] if one["name"] == "objects"]
        assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
        assert {"name": "objects", "mountPath": "/objects"} in spec["containers"][0]["volumeMounts"]
        _, spec = self.pod(over(CLOSED, {"objectStore": self.FOLDER}), "worker-default")
        assert "objects" not in {one["name"] for one in spec["volumes"]}

    def test_the_url_that_others_reach_can_be_given(self, parse: Parse) -> None:
        values = over(EXTERNAL, {"objectStore": {**self.FOLDER, "advertise": "https://t.example.com"}})
        assert parse("coordinator", self.pod(values, "coordinator")[0]).http_advertise == "https://t.example.com"

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"url": "file:///objects"}, "objectStore.existingClaim"),
            ({"url": "s3://bucket", "sseKmsKeyId": "key"}, "objectStore.sseKmsKeyId"),
            ({"url": "gs://bucket"}, "objectStore/url"),
            ({"url": "s3://bucket", "sse": "other"}, "objectStore/sse"),
        ],
    )
    def test_what_does_not_go_together_is_named(self, given: dict[str, Any], told: str) -> None:
        with pytest.raises(HelmError, match=told):
            render(over(EXTERNAL, {"objectStore": given}))

    @pytest.mark.parametrize(("store", "is_shown"), [(S3, False), (FOLDER, True)])
    def test_objects_of_a_folder_come_and_go_by_http(self, store: dict[str, Any], is_shown: bool) -> None:
        more = {
            "ingress": {"runners": {"enabled": True, "host": "r.example.com"}},
            "networkPolicy": {"enabled": True, "clients": [{"podSelector": {"matchLabels": {"app": "mine"}}}]},
        }
        objects = render(over(EXTERNAL, {"objectStore": store, **more}))
        ingress = named(objects, "Ingress", "prod-tenure-runners")
        paths = {path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
        assert ("/v1/objects/" in paths) is is_shown
        policy = named(objects, "NetworkPolicy", "prod-tenure-coordinator")
        (http,) = [one for one in policy["spec"]["ingress"] if one["ports"] == [{"port": "http"}]]
        assert ("mine" in json.dumps(http["from"]), "worker" in json.dumps(http["from"])) == (is_shown, is_shown)

    def test_the_way_to_s3_is_open(self) -> None:
        egress = {"enabled": True, "postgres": [{"podSelector": {}}], "etcd": [{"podSelector": {}}]}
        cases: list[tuple[str, list[dict[str, Any]], int]] = [
            ("", [], 443),
            ("http://s3", [], 80),
            ("https://s3:9000/", [{"podSelector": {}}], 9000),
        ]
        for endpoint, peers, port in cases:
            store = {**self.S3, "endpoint": endpoint}
            policy = {"enabled": True, "egress": {**egress, "objectStore": peers}}
            objects = render(over(EXTERNAL, {"objectStore": store, "networkPolicy": policy}))
            rules = named(objects, "NetworkPolicy", "prod-tenure-coordinator")["spec"]["egress"]
            assert {"ports": [{"port": port}], **({"to": peers} if peers else {})} in rules


class TestPostgres:
    def env(self, values: dict[str, Any]) -> dict[str, Any]:
        pod = named(render(over(EXTERNAL, values)), "Deployment", "prod-tenure-coordinator")["spec"]["template"]
        every = [{one["name"]: one for one in container["env"]} for container in containers(pod)]
        postgres = [{n: one for n, one in env.items() if n.startswith("PG") or "POSTGRES" in n} for env in every]
        assert postgres[0] == postgres[1]  # the init container asks the same server
        return postgres[0]

    def test_takes_a_whole_dsn_from_a_secret(self) -> None:
        assert self.env({}) == {
            "TENURE_POSTGRES_DSN": {
                "name": "TENURE_POSTGRES_DSN",
                "valueFrom": {"secretKeyRef": {"name": "pg", "key": "dsn"}},
            }
        }

    def test_is_found_among_several_hosts_with_the_password_beside_the_dsn(self) -> None:
        import psycopg.conninfo

        env = self.env({"postgres": {"external": {"hosts": ["a", "b:5433"], "user": "te nure"}}})
        assert psycopg.conninfo.conninfo_to_dict(env["TENURE_POSTGRES_DSN"]["value"]) == {
            "host": "a,b", "port": "5432,5433", "user": "te nure", "dbname": "tenure",
            "target_session_attrs": "read-write",
        }  # fmt: skip
        assert env["PGPASSWORD"]["valueFrom"] == {"secretKeyRef": {"name": "pg", "key": "password"}}

    def test_is_found_by_addresses_of_ipv6(self) -> None:
        import psycopg.conninfo

        hosts = ["fd00::1", "[fd00::2]", "[fd00::3]:5433"]
        dsn = self.env({"postgres": {"external": {"hosts": hosts}}})["TENURE_POSTGRES_DSN"]["value"]
        found = psycopg.conninfo.conninfo_to_dict(dsn)
        assert (found["host"], found["port"]) == ("fd00::1,fd00::2,fd00::3", "5432,5432,5433")

    def test_shows_a_certificate_and_checks_the_servers(self) -> None:
        tls = {"enabled": True, "secretName": "pg-tls", "clientCertificate": True}
        values = over(EXTERNAL, {"postgres": {"tls": tls}})
        env = self.env(values)
        assert env["PGSSLMODE"]["value"] == "verify-full"
        pod = named(render(values), "Deployment", "prod-tenure-coordinator")["spec"]["template"]["spec"]
        (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "postgres-tls"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "postgres-tls"]
        for name in ("PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
            assert env[name]["value"].startswith(mount["mountPath"] + "/")
        assert volume["secret"]["defaultMode"] == 0o440  # libpq refuses a key that more than root and a group may read
