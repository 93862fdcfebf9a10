"""The chart and the dashboard: who is let in where, and what coordinators are told of it."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.errors import HelmError
from tests.chart.rendering import (
    CLOSED,
    EXTERNAL,
    containers,
    environment,
    named,
    over,
    pod_templates,
    render,
    render_text,
)

from tenure.dashboard.app import PREFIX
from tenure.dashboard.live import LONGEST_S

SHOWN = {"ingress": {"dashboard": {"enabled": True, "host": "d.example.com", "tlsSecretName": "d"}}}


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """What the containers of coordinators are told."""
    found: dict[str, Any] = {}
    for _, template in pod_templates(render(values)):
        for container in containers(template):
            if container["name"] == "coordinator":
                found |= environment(container)
    return found


def test_the_ingress_shows_the_dashboard_and_nothing_else() -> None:
    made = named(render(over(over(EXTERNAL, CLOSED), SHOWN)), "Ingress", "prod-tenure-dashboard")
    (rule,) = made["spec"]["rules"]
    shown = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert shown == {f"{PREFIX}/": "Prefix", "/": "Exact"}
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"prod-tenure-http"}
    annotations = made["metadata"]["annotations"]
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > LONGEST_S


def test_the_host_is_needed_and_an_open_door_is_told_of() -> None:
    with pytest.raises(HelmError) as refused:
        render(over(EXTERNAL, {"ingress": {"dashboard": {"enabled": True}}}))
    assert "ingress.dashboard.host: name the host" in str(refused.value)
    notes = render_text(over(EXTERNAL, SHOWN))["tenure/templates/NOTES.txt"]
    assert "ingress.dashboard lets d.example.com in" in notes


def test_cookies_go_over_tls_where_the_ingress_speaks_it() -> None:
    assert _told(over(EXTERNAL, SHOWN))["TENURE_HTTP_ADVERTISE"] == "https://d.example.com"
    plain = {"ingress": {"dashboard": {"enabled": True, "host": "d.example.com"}}}
    assert "TENURE_HTTP_ADVERTISE" not in _told(over(EXTERNAL, plain))
    folder = over(SHOWN, {"objectStore": {"url": "file:///objects", "existingClaim": "objects"}})
    assert "svc" in _told(over(EXTERNAL, folder))["TENURE_HTTP_ADVERTISE"], "workers upload there"


def test_the_dashboard_is_switched_off_by_a_setting() -> None:
    off = {"coordinator": {"settings": {"dashboard": False}}}
    assert _told(over(EXTERNAL, off))["TENURE_DASHBOARD"] == "false"
