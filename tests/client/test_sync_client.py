"""The blocking client: the same calls from plain threads, and its generated source."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.client.service import Service

import tenure.client
from tenure.client import AsyncClient, Client
from tenure.client.portal import Portal
from tenure.model import errors
from tenure.model.errors import NotFound, TenureError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_generated_client_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_sync_client.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_has_every_method_with_the_same_parameters() -> None:
    for name, method in inspect.getmembers(AsyncClient, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(method).parameters == inspect.signature(getattr(Client, name)).parameters


def test_every_error_that_a_call_tells_of_is_at_hand() -> None:
    told = "\n".join(inspect.getdoc(one) or "" for one in (AsyncClient, *vars(Client).values()))
    names = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if name in told}
    assert {"BoundExceeded", "NotFound", "TenureError"} <= names <= set(tenure.client.__all__)


def test_what_is_imported_late_is_listed_too() -> None:
    script = "import tenure.client as c; print(sorted(set(c.__all__) - set(dir(c))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("client", [AsyncClient, Client])
async def test_the_example_of_the_docstring_runs(service: Service, client: type[AsyncClient | Client]) -> None:
    _, _, text = inspect.getdoc(client).partition("::\n\n")  # type: ignore[union-attr]
    example, _, _ = text.partition("\n\nIds are")
    imports = "import asyncio\nfrom tenure.client import AsyncClient, Client"
    program = f"{imports}\nasync def main():\n{example}\nasyncio.run(main())"
    service.finished.set()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"TENURE_COORDINATOR": service.address},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"completed\n")


async def test_calls_from_many_threads(service: Service) -> None:
    def work() -> list[str]:
        with Client(service.address) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n: client.submit("noop", n).id, range(40)))
            listed = [job.id for job in client.list(page_size=10)]
            first = next(iter(client.list()))
            assert first.id == "0"
            assert len(listed) == 25
            return made

    made = await asyncio.to_thread(work)
    assert len(set(made)) == 40
    assert not [t for t in threading.enumerate() if t.name == "tenure-client"], "the last client stops the loop"


async def test_errors_and_closing(service: Service) -> None:
    import grpc

    service.failures = [grpc.StatusCode.NOT_FOUND]

    def work() -> None:
        client = Client(service.address)
        with pytest.raises(NotFound):
            client.get("x")
        client.close()
        client.close()
        with pytest.raises(TenureError, match="closed"):
            client.get("x")

    await asyncio.to_thread(work)


async def test_a_script_that_never_closes_ends_quietly(service: Service) -> None:
    script = f"from tenure.client import Client; c = Client('{service.address}'); print(c.get('x').id)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"x\n", b"")


async def test_a_forked_process_is_told_to_make_its_own(service: Service) -> None:
    script = """
import os, sys
from tenure.client import Client, TenureError
client = Client(sys.argv[1])
client.get("x")
if child := os.fork():
    os.waitpid(child, 0)
    print(client.get("parent").id)
    client.close()
else:
    try:
        client.get("child")
    except TenureError as exc:
        print(exc, flush=True)
    client.close()
    os._exit(0)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, service.address, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert out == b"the client was used before this process was forked\nparent\n"


async def test_a_spawned_process_has_its_own(service: Service) -> None:
    context = multiprocessing.get_context("spawn")

    def work() -> str:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_get, service.address).result(30)

    assert await asyncio.to_thread(work) == "x"


def _get(address: str) -> str:
    with Client(address) as client:
        return client.get("x").id


def test_an_interrupt_that_comes_while_a_step_is_handed_over_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is on its way to the loop and nobody waits for it: the generator must not be closed under it."""
    portal, began, closed = Portal(), threading.Event(), threading.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            began.set()
            await asyncio.sleep(3_600)
        finally:
            closed.set()

    handed_over = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine: Any, loop: Any) -> Any:
        future = handed_over(coroutine, loop)
        if coroutine.__name__ == "next" and stepping:
            assert began.wait(30)
            raise KeyboardInterrupt
        return future

    stepping = False
    monkeypatch.setattr("tenure.client.portal.asyncio.run_coroutine_threadsafe", interrupted)
    iterator = portal.iterate(items())
    assert next(iterator) == 1
    stepping = True
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert closed.wait(30)
    portal.close(_nothing)


async def _nothing() -> None:
    pass
