"""Workers may be another user in etcd than coordinators, one that may do less."""

from __future__ import annotations

import pytest
from tests.chart.rendering import EXTERNAL, containers, over, pod_templates, render


@pytest.mark.parametrize(("own", "of_worker"), [("etcd-worker", "etcd-worker"), ("", "etcd")])
def test_workers_are_given_their_own_secret(own: str, of_worker: str) -> None:
    values = over(EXTERNAL, {"etcd": {"external": {"existingSecret": "etcd", "workerSecret": own}}})
    seen: dict[str, set[str]] = {}
    for _, pod in pod_templates(render(values)):
        for container in containers(pod):
            for one in container.get("env", []):
                if one["name"] in ("TENURE_ETCD_USER", "TENURE_ETCD_PASSWORD"):
                    seen.setdefault(container["name"], set()).add(one["valueFrom"]["secretKeyRef"]["name"])
    assert seen == {"coordinator": {"etcd"}, "worker": {of_worker}}
