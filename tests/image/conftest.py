"""The image as ``deploy/image/build.sh`` builds it, where there is a Docker engine; else skipped, with the reason."""

from __future__ import annotations

import fcntl
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures import backend
from tests.image.system import HARDENED, System

ROOT = Path(__file__).resolve().parents[2]
BASE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
IMAGE = "tenure:test"


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the Docker engine that has the base image and the stores'."""
    if backend.chosen() != "containers":
        pytest.skip(backend.why_no_containers() or "containers are not the backend that was chosen")
    backend.require_containers()
    import docker
    from docker.errors import DockerException, ImageNotFound

    client = docker.from_env(timeout=300)
    try:
        client.images.get(BASE)
    except ImageNotFound:
        try:
            client.images.pull(BASE)
        except DockerException:
            reason = f"image {BASE} is neither here nor to be pulled (tests/images/build.sh makes it)"
            (pytest.fail if os.environ.get("TENURE_TEST_BACKEND") == "containers" else pytest.skip)(reason)
    return client


def build(*arguments: str, image: str = IMAGE) -> None:
    """Run the build script; one at a time, as they share a folder."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "image.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run(
            ["sh", "deploy/image/build.sh", *arguments], cwd=ROOT, env={**os.environ, "TENURE_IMAGE": image},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def image(engine: Any) -> str:
    """The name of the image, built of this tree."""
    build()
    return IMAGE


@pytest.fixture
def inside(engine: Any, image: str) -> Any:
    """Run a command in a container that may do as little as can be; return what it printed: ``inside("id", "-u")``."""

    def run(*command: str, entrypoint: str | list[str] = "", **options: Any) -> str:
        arguments: dict[str, Any] = {**HARDENED, "remove": True, "stderr": True, **options}
        output: bytes = engine.containers.run(image, list(command), entrypoint=entrypoint, **arguments)
        return output.decode()

    return run


@pytest.fixture
def system(engine: Any, image: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[System]:
    """A network of containers: Postgres and etcd run, nothing of tenure yet. Everything is removed afterwards."""
    made = System(engine, image, f"tenure-test-{uuid.uuid4().hex[:8]}", tmp_path)
    try:
        made.start_stores()
        yield made
    finally:
        report = getattr(request.node, "call_report", None)
        made.remove(show_logs=report is None or report.failed)
