"""The whole system in containers of the image: it runs, is renewed under load, and bears kills.

The same for processes without an engine: tests/e2e.
"""

from __future__ import annotations

import asyncio
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.image.system import PATIENCE_S, STOP_S, System, until

from tenure.client import AsyncClient, Client, NewJob
from tenure.client.records import Job, SubmittedJob

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
COORDINATORS = ("coordinator-a", "coordinator-b")
WORKERS = ("worker-a", "worker-b")
_DOCKERFILE = re.compile(r"<!-- image: (\S+) -->\n```dockerfile\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HELLO = """
from greetings import phrase
from tenure.worker.handler import handler

@handler("hello", mode="process")
def hello(name: str) -> str:
    return phrase(name)
"""


def examples() -> dict[str, str]:
    """Return the Dockerfiles of docs/IMAGE.md."""
    return dict(_DOCKERFILE.findall((ROOT / "docs" / "IMAGE.md").read_text(encoding="utf-8")))


def extended(engine: Any, image: str, folder: Path, dockerfile: str, tag: str) -> str:
    """Build an image out of the documented Dockerfile and a folder."""
    (folder / "Dockerfile").write_text(examples()[dockerfile], encoding="utf-8")
    engine.images.build(path=str(folder), tag=tag, buildargs={"TENURE": image}, network_mode="none", rm=True)
    return tag


@pytest.fixture
def with_handlers(engine: Any, image: str, tmp_path: Path) -> str:
    """The image with the handlers of the end-to-end tests, made as docs/IMAGE.md says."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "hello.py").write_bytes((ROOT / "tests" / "e2e" / "handlers.py").read_bytes())
    return extended(engine, image, folder, "Dockerfile", "tenure-test:trace")


class Load:
    """Submits jobs without a pause until told to stop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._stop = asyncio.Event()
        self.jobs: list[SubmittedJob] = []

    async def run(self) -> None:
        """Submit; the client tries again by itself where a coordinator has just gone."""
        while not self._stop.is_set():
            pause = len(self.jobs) % 3 / 2
            self.jobs += await self._client.submit_many(
                [NewJob(kind="trace", payload=len(self.jobs)), NewJob(kind="hold-on", payload={"seconds": pause})]
            )
            await asyncio.sleep(0.05)

    async def during(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Do something blocking meanwhile; return when jobs were submitted before and after it."""
        result = await asyncio.to_thread(action, *arguments)
        enough = len(self.jobs) + 10
        await asyncio.to_thread(until, lambda: len(self.jobs) >= enough, "jobs are submitted")
        return result

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()


async def ended(client: AsyncClient, jobs: Sequence[SubmittedJob]) -> list[Job]:
    """Return all jobs as they have ended."""
    async with asyncio.timeout(PATIENCE_S * 3):
        return [await client.wait(job.id) for job in jobs]


def start(system: System, name: str, image: str) -> Any:
    if name.startswith("coordinator"):
        return system.tenure(name, "coordinator", TENURE_MIGRATE="false")
    return system.tenure(name, "worker", "--capacity", "8", image=image)


def begin(system: System, name: str, image: str) -> Any:
    return system.healthy(start(system, name, image))


def start_all(system: System, image: str) -> dict[str, Any]:
    migrated = system.tenure("migrate", "db", "migrate")
    assert migrated.wait(timeout=PATIENCE_S)["StatusCode"] == 0, migrated.logs()
    running = {name: start(system, name, image) for name in (*COORDINATORS, *WORKERS)}
    for container in running.values():
        system.healthy(container)
    return running


def renew(system: System, running: dict[str, Any], name: str, image: str) -> None:
    """Stop a container as ``docker stop`` does, and start its successor."""
    old = running[name]
    old.stop(timeout=STOP_S)
    old.reload()
    state = old.attrs["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), "it drained within its time"
    running[name] = begin(system, name, image)


async def test_renewed_under_load_and_killed(system: System, with_handlers: str) -> None:
    """Each container is stopped and replaced while jobs pass: none is lost, none runs twice. Then some are killed."""
    running = await asyncio.to_thread(start_all, system, with_handlers)
    client = AsyncClient(",".join(system.address(name) for name in COORDINATORS))
    load = Load(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for name in (*COORDINATORS, *WORKERS):
            await load.during(renew, system, running, name, with_handlers)
        load.stop()
    renewed = await ended(client, load.jobs)
    assert {job.state for job in renewed} == {"completed"}
    assert {job.attempt for job in renewed} == {1}
    assert system.query("SELECT count(*) FROM tenure.attempt WHERE outcome <> 'completed'") == 0
    ran = system.lines("ran") + system.lines("ended")
    assert ran == dict.fromkeys((job.id for job in renewed), 1)

    await killed(system, running, client, with_handlers)
    await client.close()


async def killed(system: System, running: dict[str, Any], client: AsyncClient, image: str) -> None:
    """SIGKILL to a coordinator and to a worker that holds jobs: all are recorded once."""
    held = await client.submit_many([NewJob(kind="hold-first", ttl_s=4.0) for _ in range(8)])
    await asyncio.to_thread(until, lambda: set(system.lines("began")) >= {job.id for job in held}, "all are held")
    load = Load(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for name in (WORKERS[0], COORDINATORS[0]):
            await load.during(running[name].kill, "SIGKILL")
            running[name] = await load.during(begin, system, name, image)
        # What the other worker holds is taken from it in the same way.
        await load.during(running[WORKERS[1]].kill, "SIGKILL")
        load.stop()
    jobs = await ended(client, [*held, *load.jobs])
    assert {job.state for job in jobs} == {"completed"}
    assert min(job.attempt for job in jobs if job.kind == "hold-first") == 2, "taken over from whom was killed"
    recorded = system.query("SELECT count(*) - count(DISTINCT job_id) FROM tenure.attempt WHERE outcome = 'completed'")
    assert recorded == 0, "each end is recorded once"


def test_a_worker_with_packages_of_its_own(engine: Any, image: str, system: System, tmp_path: Path) -> None:
    """A handler that needs a package, in a process of its own, where nothing can be written."""
    folder = tmp_path / "packaged"
    folder.mkdir()
    (folder / "hello.py").write_text(HELLO)
    (folder / "requirements.txt").write_text(f"./{write_wheel(folder)}\n")
    own = extended(engine, image, folder, "Dockerfile.packages", "tenure-test:packages")
    system.healthy(system.tenure("coordinator-a", "coordinator"))
    system.healthy(system.tenure("worker-a", "worker", "--allow-command", image=own))
    with Client(system.address("coordinator-a")) as client:
        greeted = client.submit("hello", "Ada")
        command = client.submit("command", {"argv": ["id", "-u"]})
        assert client.wait(greeted.id, timeout_s=PATIENCE_S).result == "good day, Ada"
        assert client.wait(command.id, timeout_s=PATIENCE_S).result["stdout"] == "10001\n"


def write_wheel(folder: Path) -> str:
    """Make a package that nothing else has; return its file's name."""
    name, info = "greetings-1.0-py3-none-any.whl", "greetings-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("greetings.py", "def phrase(name):\n    return f'good day, {name}'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greetings\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return name
