"""An etcd starts with the flags that the chart gives it, and answers the probes."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.chart.rendering import BUNDLED, named, over, render

from tenure.cli.embedded.binaries import etcd_program

PATIENCE_S = 60.0
BUILT = Path(__file__).parents[2] / ".cache" / "tools" / "etcd"
"""The release that the chart ships, where it was built (``make tools``)."""


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_members_listen_where_they_are_told() -> None:
    values = over(BUNDLED, {"etcd": {"bundled": {"listenHost": "[::]"}}})
    (container,) = named(render(values), "StatefulSet", "prod-tenure-etcd")["spec"]["template"]["spec"]["containers"]
    listening = [one.partition("=")[2] for one in container["args"] if one.startswith("--listen-")]
    assert listening == ["http://[::]:2379", "http://[::]:2380", "http://[::]:2381"]


def test_etcd_starts_with_its_flags_and_answers_its_probes(tmp_path: Path) -> None:
    (container,) = named(render(BUNDLED), "StatefulSet", "prod-tenure-etcd")["spec"]["template"]["spec"]["containers"]
    ports = dict(zip(("2379", "2380", "2381"), map(str, free_ports(3)), strict=True))
    here = {"prod-tenure-etcd-0.prod-tenure-etcd-headless.jobs.svc": "127.0.0.1", "//0.0.0.0": "//127.0.0.1"}
    here |= {"/var/lib/etcd": str(tmp_path)} | {f":{port}": f":{other}" for port, other in ports.items()}
    arguments = []
    for argument in container["args"]:
        argument = argument.replace("$(POD_NAME)", "prod-tenure-etcd-0")
        for there, instead in here.items():
            argument = argument.replace(there, instead)
        arguments.append(argument)
    log = tmp_path / "log"
    with log.open("wb") as output:
        etcd = subprocess.Popen([BUILT if BUILT.exists() else etcd_program(), *arguments], stdout=output, stderr=output)
    try:
        for probe in ("livenessProbe", "readinessProbe"):
            deadline = time.monotonic() + PATIENCE_S
            while not answers(f"http://127.0.0.1:{ports['2381']}{container[probe]['httpGet']['path']}"):
                assert etcd.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
    finally:
        etcd.kill()
        etcd.wait()
