"""What every object of the chart keeps to, whatever its values: the restricted level of Pod Security, and more."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.chart.rendering import CASES, Case, Object, containers, of_kind, over, pod_templates, render

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET", re.IGNORECASE)
RUNS_ON = ("Deployment", "StatefulSet")


def own_containers(case: Case) -> Iterator[tuple[str, Object, Object]]:
    for where, pod in pod_templates(render(case.values)):
        for container in containers(pod):
            yield f"{where} {container['name']}", pod, container


def matches(selector: Object, labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def pods_of(objects: list[Object]) -> list[Object]:
    return [pod for _, pod in pod_templates(objects)]


def test_pods_are_restricted(case: Case) -> None:
    for where, pod in pod_templates(render(case.values)):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not pod["spec"].get(key), where
        for volume in pod["spec"].get("volumes", []):
            assert "hostPath" not in volume, where


def test_containers_are_restricted_and_cannot_write_to_their_image(case: Case) -> None:
    for where, _, container in own_containers(case):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["readOnlyRootFilesystem"] is True, where
        assert security["capabilities"] == {"drop": ["ALL"]}, where
        if container["name"] != "prepare":  # a container of the site's own
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], where


def test_no_pod_may_speak_to_the_api(case: Case) -> None:
    objects = render(case.values)
    for where, pod in pod_templates(objects):
        assert pod["spec"]["automountServiceAccountToken"] is False, where
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_resources_are_asked_for_and_memory_is_bounded(case: Case) -> None:
    for where, _, container in own_containers(case):
        resources = container["resources"]
        assert resources["requests"].keys() >= {"cpu", "memory"}, where
        assert "memory" in resources["limits"], where
        assert "cpu" not in resources["limits"], f"{where}: throttling delays the renewal of leases"


def test_what_runs_on_has_probes(case: Case) -> None:
    for one in of_kind(render(case.values), *RUNS_ON):
        for container in one["spec"]["template"]["spec"]["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe].get("httpGet") or container[probe].get("tcpSocket")
                assert asked is None or asked["port"] in ports, (one["metadata"]["name"], probe)


def test_images_have_a_tag_or_a_digest(case: Case) -> None:
    for where, _, container in own_containers(case):
        name, at, digest = container["image"].partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        assert digest if at else tag and tag != "latest", f"{where}: {container['image']}"


def test_no_secret_stands_in_plain_text(case: Case) -> None:
    objects = render(case.values)
    for where, _, container in own_containers(case):
        for one in container.get("env", []):
            if SECRET_NAME.search(one["name"]) and not one["name"].endswith("_FILE"):
                assert "value" not in one, f"{where} {one['name']}"
            if "DSN" in one["name"] and "value" in one:
                assert not re.search(r"://[^@/]*:", one["value"]), f"{where} {one['name']}"
    for one in of_kind(objects, "ConfigMap"):
        assert not re.search(r"(?i)password\s*[=:]", str(one.get("data")))


def test_no_variable_is_set_twice(case: Case) -> None:
    for where, _, container in own_containers(case):
        names = [one["name"] for one in container.get("env", [])]
        assert len(names) == len(set(names)), where


def test_selectors_match_their_pods_and_no_others(case: Case) -> None:
    objects = render(case.values)
    for one in of_kind(objects, *RUNS_ON):
        selector = one["spec"]["selector"]["matchLabels"]
        selected = [pod for pod in pods_of(objects) if matches(selector, pod["metadata"].get("labels", {}))]
        assert selected == [one["spec"]["template"]], one["metadata"]["name"]
        for constraint in one["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert constraint["labelSelector"]["matchLabels"] == selector
    for one in of_kind(objects, "PodDisruptionBudget"):
        selector = one["spec"]["selector"]["matchLabels"]
        assert [pod for pod in pods_of(objects) if matches(selector, pod["metadata"]["labels"])], one["metadata"][
            "name"
        ]


def test_services_lead_to_ports_that_exist(case: Case) -> None:
    objects = render(case.values)
    services = {one["metadata"]["name"]: one for one in of_kind(objects, "Service")}
    for service in services.values():
        (pod,) = [pod for pod in pods_of(objects) if matches(service["spec"]["selector"], pod["metadata"]["labels"])]
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                named = {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
                assert backend["port"]["name"] in named
    for one in of_kind(objects, "StatefulSet"):
        assert one["spec"]["serviceName"] in services


def test_network_policies_name_pods_and_ports_that_exist(case: Case) -> None:
    objects = render(case.values)
    for policy in of_kind(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        chosen = [pod for pod in pods_of(objects) if matches(selector, pod["metadata"]["labels"])]
        assert chosen or "worker" in policy["metadata"]["name"], policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], f"{policy['metadata']['name']} lets everybody in"
            for port in rule["ports"]:
                assert all(
                    port["port"] in {p["name"] for c in pod["spec"]["containers"] for p in c["ports"]} for pod in chosen
                )


def test_budgets_leave_room_and_there_is_none_for_a_single_pod(case: Case) -> None:
    objects = render(case.values)
    replicas = {one["metadata"]["name"]: one["spec"].get("replicas") for one in of_kind(objects, *RUNS_ON)}
    for one in of_kind(objects, "PodDisruptionBudget"):
        assert replicas[one["metadata"]["name"]] is None or replicas[one["metadata"]["name"]] > 1


def test_who_is_scaled_has_no_number_of_its_own(case: Case) -> None:
    objects = render(case.values)
    deployments = {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    targets = [
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    ]
    assert len(targets) == len(set(targets))
    for name in targets:
        assert "replicas" not in deployments[name]["spec"]


def test_volumes_and_accounts_of_the_release_exist(case: Case) -> None:
    objects = render(case.values)
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")} | {"default", "site"}
    for where, pod in pod_templates(objects):
        assert pod["spec"].get("serviceAccountName", "default") in accounts, where
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for one in of_kind(objects, "StatefulSet"):
            if one["spec"]["template"] is pod:
                volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounted <= volumes, where


def test_a_private_registry_reaches_every_image_and_pod(case: Case) -> None:
    mirrored = {"global": {"imageRegistry": "mirror.local", "imagePullSecrets": ["mirror"]}}
    for where, pod in pod_templates(render(over(case.values, mirrored))):
        assert {"name": "mirror"} in pod["spec"]["imagePullSecrets"], where
        for container in containers(pod):
            assert container["image"].startswith("mirror.local/") or container["name"] == "prepare", where
