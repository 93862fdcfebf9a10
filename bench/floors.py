"""Floors: what the parts take that every job goes through, asked for nothing else, on the same stores.

A trip of one job is made of such operations, one after the other; what tenure takes beyond their sum is its own. Each
is made one at a time, a few milliseconds apart, since that is how a job on an idle system meets it. Empty calls are
made 50 at a time, too: no service behind the same gRPC answers faster than one that does nothing.

As a program: the server of the empty calls, which prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import psycopg

from tenure.bench.cpu import Meter
from tenure.bench.results import Results, percentile
from tenure.bench.stage import Stage, say
from tenure.store.etcd.connect import connect
from tenure.store.etcd.port import Delete, Put, Txn

METHOD = "/floors.Empty/Call"
MESSAGE = b"x" * 100
APART_S = 0.005
PATIENCE_S = 30.0
IN_FLIGHT = 50
EMPTY_CALL, EMPTY_CALLS = "empty gRPC call", f"empty gRPC calls, {IN_FLIGHT} in flight"
ETCD_WRITE, ETCD_READ = "etcd, a transaction that writes", "etcd, a linearizable read"
POSTGRES_READ, POSTGRES_WRITE = "Postgres, a statement that reads", "Postgres, a statement that writes"
BEFORE_THE_START = {
    EMPTY_CALL: "SubmitJob, the hint to the leader, StartAttempts",
    ETCD_WRITE: "the offer, the claim",
    ETCD_READ: "the claim is verified",
    POSTGRES_READ: "the ready jobs",
    POSTGRES_WRITE: "the job, the start",
}
"""What a job meets one after the other that is submitted to a coordinator which does not lead, to its handler's first
line. Deliveries of watches come on top."""

Operation = Callable[[], Awaitable[Any]]


async def floors(stage: Stage, results: Results) -> None:
    """Measure each operation, and the rate of empty calls."""
    plan = stage.plan
    async with _empty_calls() as (call, server), _stores(stage) as stores:
        for run in range(plan.runs):
            say(f"floors: run {run + 1} of {plan.runs}")
            for name, operation in {EMPTY_CALL: call, **stores}.items():
                taken_ms = await _one_at_a_time(operation, plan.latency_warmup, plan.latency_samples)
                figures = {"p50_ms": percentile(taken_ms, 50), "p99_ms": percentile(taken_ms, 99)}
                results.case("floors", name).add(figures)
            meter = Meter({"server": (server,)})
            calls, seconds = await _many(call, plan.submit_s)
            results.case("floors", EMPTY_CALLS).add({"per_s": calls / seconds}, meter.stop().us_per_job(calls))


async def _one_at_a_time(operation: Operation, warmup: int, samples: int) -> list[float]:
    taken_ms = []
    for index in range(warmup + samples):
        began = time.perf_counter()
        await operation()
        if index >= warmup:
            taken_ms.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(APART_S)
    return taken_ms


async def _many(operation: Operation, seconds: float) -> tuple[int, float]:
    """Return how many were made by as many callers as may be in flight, and in how long."""
    made = 0
    began = time.perf_counter()

    async def caller() -> None:
        nonlocal made
        while time.perf_counter() - began < seconds:
            await operation()
            made += 1

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return made, time.perf_counter() - began


@contextlib.asynccontextmanager
async def _stores(stage: Stage) -> AsyncIterator[dict[str, Operation]]:
    """Give one operation of each kind that jobs need of the stores; what they leave is removed."""
    etcd = connect(stage.etcd_endpoints)
    async with await psycopg.AsyncConnection.connect(
        stage.postgres_dsn, autocommit=True, connect_timeout=10
    ) as connection:
        await connection.execute("CREATE TABLE floor (id int)")
        key = "/bench/floor"
        try:
            yield {
                ETCD_WRITE: lambda: etcd.txn(Txn((), (Put(key, MESSAGE),))),
                ETCD_READ: lambda: etcd.get(key),
                POSTGRES_READ: lambda: connection.execute("SELECT 1"),
                POSTGRES_WRITE: lambda: connection.execute("INSERT INTO floor VALUES (1)"),
            }
        finally:
            await connection.execute("DROP TABLE floor")
            await etcd.txn(Txn((), (Delete(key),)))
            await etcd.close()


@contextlib.asynccontextmanager
async def _empty_calls() -> AsyncIterator[tuple[Operation, int]]:
    """Give a call that another process answers with what it was sent, and that process's id."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(METHOD)
            yield partial(call, MESSAGE, timeout=PATIENCE_S), process.pid
    finally:
        process.kill()
        await process.wait()


async def _serve() -> None:
    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
