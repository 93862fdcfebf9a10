"""The embedded etcd: one server and a cluster, killed, erased, paused."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdCluster, EtcdSettings, count_keys
from tenure.cli.embedded.processes import EmbeddedError

Start = Callable[..., EmbeddedEtcd]


def post(endpoint: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(endpoint.partition("://")[2], timeout=5)
    connection.request("POST", path, body=json.dumps(body))
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def put(endpoint: str, key: str) -> None:
    post(endpoint, "/v3/kv/put", {"key": base64.b64encode(key.encode()).decode(), "value": ""})


def cluster_id(endpoint: str) -> str:
    return str(post(endpoint, "/v3/maintenance/status", {})["header"]["cluster_id"])


def test_a_restart_keeps_keys_and_port(own_etcd: Start) -> None:
    server = own_etcd()
    endpoints = server.endpoints
    put(server.http_endpoints[0], "/a/1")
    server.stop()
    server.start()
    assert server.endpoints == endpoints
    assert count_keys(endpoints, "/a/") == 1


def test_a_killed_server_comes_back(own_etcd: Start) -> None:
    server = own_etcd(EtcdSettings())
    put(server.http_endpoints[0], "/a/1")
    server.kill()
    assert not server.alive
    server.start()
    assert count_keys(server.endpoints, "/a/") == 1


@pytest.mark.parametrize("new_cluster_id", [True, False])
def test_erased_data_is_gone(own_etcd: Start, new_cluster_id: bool) -> None:
    server = own_etcd()
    put(server.http_endpoints[0], "/a/1")
    before = cluster_id(server.http_endpoints[0])
    server.erase(new_cluster_id=new_cluster_id)
    server.start()
    assert count_keys(server.endpoints, "/a/") == 0
    assert (cluster_id(server.http_endpoints[0]) != before) == new_cluster_id


def test_a_quota_is_handed_on(own_etcd: Start) -> None:
    server = own_etcd(EtcdSettings(fsync=False, quota_bytes=16 * 1024 * 1024, extra=("--max-request-bytes=1000",)))
    value = base64.b64encode(bytes(4000)).decode()
    answer = post(server.http_endpoints[0], "/v3/kv/put", {"key": "YQ==", "value": value})
    assert "too large" in answer["error"]


def test_a_bad_flag_shows_the_log(own_etcd: Start) -> None:
    with pytest.raises(EmbeddedError, match="no-such-flag"):
        own_etcd(EtcdSettings(extra=("--no-such-flag",)))


def test_a_cluster_survives_the_loss_of_its_leader(etcd_cluster: EtcdCluster) -> None:
    put(etcd_cluster.http_endpoints[0], "/a/1")
    leader = etcd_cluster.leader()
    assert leader >= 0
    etcd_cluster.kill(leader)
    other = etcd_cluster.members[(leader + 1) % 3]
    assert other.wait_until_healthy(time.monotonic() + 30)
    assert count_keys([other.endpoint], "/a/") == 1
    assert etcd_cluster.leader() not in (-1, leader)
    etcd_cluster.restart(leader)
    assert etcd_cluster.alive
    assert count_keys([etcd_cluster.http_endpoints[leader]], "/a/") == 1


def test_a_paused_member_is_silent_until_resumed(etcd_cluster: EtcdCluster) -> None:
    follower = (etcd_cluster.leader() + 1) % 3
    etcd_cluster.pause(follower)
    assert not etcd_cluster.members[follower].is_healthy(timeout_s=0.3)
    etcd_cluster.resume(follower)
    assert etcd_cluster.members[follower].is_healthy(timeout_s=10)
