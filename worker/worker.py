"""The worker: build, start in order, run until told to stop, drain, stop in reverse.

SIGTERM (or SIGINT) drains; a second one aborts: handlers are stopped at once, and killed where that is possible.
Invariant: however it ends, a claim is let go only after its handler was stopped and its end reported, if anybody takes
the report. So what keeps claims alive and reports (``lifelines``) outlives the work, and the handlers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog

from tenure.model.clock import SystemClock
from tenure.model.errors import TenureError
from tenure.model.logs import Level
from tenure.probes import tracing
from tenure.probes.server import HttpServer
from tenure.store.etcd.keyspace import WorkerValue
from tenure.worker.connection import ConnectedLink
from tenure.worker.control import Control
from tenure.worker.direct_connection import connect_directly
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Registry
from tenure.worker.probes import probes
from tenure.worker.registration import Registration
from tenure.worker.remote.connection import connect_remotely
from tenure.worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

REPORT_GRACE_S = 15.0
"""After the drain's grace: the time for killed attempts to be reported."""
LAST_REPORTS_S = 5.0
"""After the handlers were stopped: as long as a report pauses at most, so that each is tried once more."""


async def serve(settings: WorkerSettings, registry: Registry, engines: Engines) -> None:
    """Run a worker until SIGTERM or SIGINT; while etcd, or every coordinator, is away it goes on trying to register."""
    clock = SystemClock()
    structlog.contextvars.bind_contextvars(worker=settings.worker_id)
    tracing.configure("runner" if settings.runner_url else "worker", settings.worker_id)
    kept = Level[settings.handler_log_level]
    control = Control(clock, registry, engines, settings.capacity, least_level=kept, worker=settings.worker_id)
    connect = connect_remotely if settings.runner_url else connect_directly
    connection = connect(settings, _value(settings, registry), control, clock)
    registration, link = connection.registration, connection.link
    control.attach(link)
    http_server: HttpServer | None = None
    if settings.worker_http_listen:
        http_server = HttpServer(
            probes(settings.capacity, control, connection, engines),
            listen=settings.worker_http_listen,
            variable="TENURE_WORKER_HTTP_LISTEN",
        )

    is_clean = False
    try:
        if http_server is not None:
            http_server.bind()
        async with asyncio.TaskGroup() as group:
            lifelines = _begin(
                group,
                keepalive=connection.keeper.run(),
                registration=registration.run(),
                tick=control.tick_forever(),
                reports=control.reports.run(),
                logs=control.logs.run(),
                large_results=control.large_results.run(),
                **connection.lifelines(),
            )
            if http_server is not None:
                lifelines += _begin(group, http=http_server.run())
            try:
                await _work(settings, registry, control, registration, link)
            finally:
                registration.drain()
                await control.stop_all(LAST_REPORTS_S)
                is_clean = await link.close()
                for task in lifelines:
                    task.cancel()
    finally:
        if is_clean:
            await _unregister(registration)
        await connection.close()
        await asyncio.to_thread(tracing.close)
    log.info("worker_stopped")


def _begin(group: asyncio.TaskGroup, **bodies: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    return [group.create_task(body, name=name) for name, body in bodies.items()]


async def _work(
    settings: WorkerSettings, registry: Registry, control: Control, registration: Registration, link: ConnectedLink
) -> None:
    """Take jobs and execute them until told to stop, then drain."""
    stop, abort = asyncio.Event(), asyncio.Event()
    _on_signals(stop, abort)
    async with asyncio.TaskGroup() as group:
        tasks = _begin(group, execute=control.execute(), **link.bodies())
        stopped = group.create_task(stop.wait())
        registered = group.create_task(registration.registered.wait())
        await asyncio.wait((stopped, registered), return_when=asyncio.FIRST_COMPLETED)
        if registered.done():
            log.info("worker_ready", pools=settings.pools, kinds=registry.kinds(), capacity=settings.capacity)
        await stopped
        registered.cancel()
        await _drain(control, registration, settings.grace_s, abort)
        for task in tasks:
            task.cancel()


async def _drain(control: Control, registration: Registration, grace_s: float, abort: asyncio.Event) -> None:
    log.info("draining", grace_s=grace_s)
    registration.drain()
    aborted = asyncio.create_task(abort.wait())
    drained = asyncio.create_task(control.drain(grace_s))
    done, _ = await asyncio.wait(
        (aborted, drained), timeout=grace_s + REPORT_GRACE_S, return_when=asyncio.FIRST_COMPLETED
    )
    if drained not in done:
        log.warning("drain_given_up", aborted=aborted in done)
    for task in (aborted, drained):
        task.cancel()
    await asyncio.gather(aborted, drained, return_exceptions=True)
    if drained in done:
        drained.result()


async def _unregister(registration: Registration) -> None:
    """End the session; not called when claims were taken back unreported.

    Then it is left to expire: by it the leader sees that this was no crash, and has the job wait for a TTL, by when
    a handler that nobody could stop has gone with this process.
    """
    try:
        await registration.close()
    except TenureError as exc:
        log.warning("not_closed_cleanly", error=exc.message)  # the TTL does it


def _on_signals(stop: asyncio.Event, abort: asyncio.Event) -> None:
    def on_signal() -> None:
        (abort if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _value(settings: WorkerSettings, registry: Registry) -> WorkerValue:
    return WorkerValue(
        pools=settings.pools,
        kinds=tuple(sorted(registry.kinds())),
        capacity=settings.capacity,
        labels=settings.labels,
        mode="remote" if settings.runner_url else "direct",
        host=f"{socket.gethostname()}:{os.getpid()}",
        version=version("tenure"),
        draining=False,
        started_at=datetime.now(UTC).isoformat(),
    )
