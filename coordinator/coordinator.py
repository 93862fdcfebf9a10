"""The coordinator: build, start in order, run until told to stop, stop in reverse.

``serve`` answers probes before any store does, ``_coordinate`` does the rest: ``parts`` builds, ``_read_first`` and
``_open`` let callers in, ``_run`` runs until told to stop, ``_close`` leaves nothing behind, however it ended.
Two or more run side by side and share nothing but the stores. Any of them may die at any instant.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import structlog

from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.dashboard import OwnSocket, dashboard_of
from tenure.coordinator.exposure import require_closed
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.objects import access_to, recognize, store_of, tell_of
from tenure.coordinator.oidc import issued_tokens
from tenure.coordinator.opening import Opening
from tenure.coordinator.options import advertised, base_url, call_bounds, etcd_options, own_tls, pool_options
from tenure.coordinator.parts import Parts, Services, Stores, build, services_of
from tenure.coordinator.pool_figures import POOL
from tenure.coordinator.rest.app import RestApi
from tenure.coordinator.rest.runner_service import RunnerService
from tenure.coordinator.settings import CoordinatorSettings
from tenure.dashboard.app import Dashboard
from tenure.dashboard.places import MOST as PLACES
from tenure.model.clock import SystemClock
from tenure.model.errors import TenureError
from tenure.probes import garbage, tracing
from tenure.probes.connections import FOR_PROBES, fitting
from tenure.probes.server import Check, HttpServer, application
from tenure.probes.tls import ServerTLS
from tenure.store.etcd.connect import connect_with
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, stamp
from tenure.store.etcd.sessions import Sessions
from tenure.store.postgres import migrate
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

T = TypeVar("T")


def main(settings: CoordinatorSettings) -> int:
    """Run a coordinator until SIGTERM or SIGINT; return the process's exit code.

    A store that is away at the start is waited for.

    Raises:
        ConfigurationError: a port is taken, a TLS file cannot be used, a store refuses the user, the schema is not
            this release's, or it would serve others in the open without having been told to.
    """
    require_closed(settings)
    garbage.look_seldom()
    try:
        asyncio.run(serve(settings))
    except ExceptionGroup as group:
        cause = _cause(group)
        if cause is None:
            raise
        raise cause from group
    return 0


@dataclass(frozen=True, slots=True)
class _Front:
    """What there is before any store answers: HTTP, on which the others are opened later, and what signals have set."""

    clock: SystemClock
    opening: Opening
    checks: dict[str, Check]
    http_server: HttpServer
    rest: RestApi
    dashboard: Dashboard | None
    tls: ServerTLS | None
    stop: asyncio.Event
    abort: asyncio.Event


async def serve(settings: CoordinatorSettings) -> None:
    """See ``main``; raises groups of exceptions."""
    structlog.contextvars.bind_contextvars(coordinator=settings.coordinator_id)
    tracing.configure("coordinator", settings.coordinator_id)
    front = _front(settings)
    front.http_server.bind()
    async with asyncio.TaskGroup() as group:
        answering = [group.create_task(front.http_server.run())]
        if front.tls is not None:
            answering.append(group.create_task(front.tls.watch()))
        schema = await _unless(front.stop, front.opening.until("Postgres", lambda: _schema(settings)))
        if schema is not None:
            await _coordinate(settings, front, schema)
        for task in answering:
            task.cancel()
    await asyncio.to_thread(tracing.close)
    log.info("coordinator_stopped")


def _front(settings: CoordinatorSettings) -> _Front:
    clock = SystemClock()
    tls = own_tls(settings)
    stop, abort = _on_signals()
    opening = Opening(clock)
    checks: dict[str, Check] = {"start": opening.problem}
    connections = fitting(settings.max_http_connections)
    places = min(PLACES, (connections - FOR_PROBES) // 4)
    dashboard = dashboard_of(settings, clock, base_url=base_url(settings, settings.http_listen), places=places)
    rest = RestApi(clock, calls=connections - FOR_PROBES - (places if dashboard else 0))
    http_server = HttpServer(
        application(checks, REGISTRY, more=[*rest.routes(), *(dashboard.routes() if dashboard else ())]),
        listen=settings.http_listen,
        variable="TENURE_HTTP_LISTEN",
        tls=tls,
        most=connections,
    )
    return _Front(clock, opening, checks, http_server, rest, dashboard, tls, stop, abort)


async def _schema(settings: CoordinatorSettings) -> migrate.SchemaStatus:
    dsn = settings.postgres_dsn.get_secret_value()
    schema = await (migrate.migrate(dsn) if settings.migrate else migrate.status(dsn))
    schema.require_usable()
    if not schema.is_current:
        log.warning("schema_is_newer", schema=schema.current, own=schema.wanted, oldest=schema.oldest)
    return schema


async def _coordinate(settings: CoordinatorSettings, front: _Front, schema: migrate.SchemaStatus) -> None:
    """Build and run everything but the probes, until told to stop."""
    issued = issued_tokens(settings, front.clock)
    objects = store_of(settings)
    dsn = settings.postgres_dsn.get_secret_value()
    etcd = connect_with(etcd_options(settings, front.clock))
    async with Database(dsn, pool_options(settings), name=f"tenure-{settings.coordinator_id}") as database:
        POOL.ask = database.figures
        stores = Stores(database, schema, etcd, Keyspace(settings.etcd_prefix), objects)
        sessions = front.dashboard.keys if front.dashboard else None
        parts = build(settings, front.clock, stores, issued=issued, sessions=sessions)
        services = services_of(parts)
        own_socket = OwnSocket.made() if front.dashboard else None
        grpc_server = GrpcServer(
            services,
            listen=settings.grpc_listen,
            with_reflection=settings.reflection,
            tls=front.tls,
            authenticator=parts.authenticator,
            on_denied=parts.audit.denied,
            bounds=call_bounds(settings),
            private=own_socket.address if own_socket else None,
        )
        try:
            if await _read_first(front, parts):
                await _open(front, parts, services, grpc_server, own_socket)
                await _run(front, parts, services, grpc_server)
        finally:
            await _close(front, parts, grpc_server, own_socket)


async def _read_first(front: _Front, parts: Parts) -> bool:
    """Read what is served from, waiting for Postgres; return False if told to stop meanwhile."""
    stores = parts.stores
    steps: list[Callable[[], Coroutine[Any, Any, None]]] = [
        parts.lanes.refresh,
        parts.kinds.refresh,
        parts.backlogs.refresh,
        parts.signing.refresh,
    ]
    if stores.objects is not None:
        steps.append(partial(recognize, stores.objects, stores.database))
    for step in steps:
        await _unless(front.stop, front.opening.until("Postgres", step))
    return not front.stop.is_set()


async def _open(
    front: _Front, parts: Parts, services: Services, grpc_server: GrpcServer, own_socket: OwnSocket | None
) -> None:
    """Let callers in. What they ask for waits for the parts to run, and the service is not shown as serving yet."""
    stores, signing = parts.stores, parts.signing
    services.workers.sign_with(signing.signer, is_strict=parts.authenticator is not None)
    if stores.objects is not None:
        access = access_to(stores.objects, signing.object_signer, front.clock)
        parts.artifacts.objects = parts.uploads.objects = parts.store_probe.objects = access
        url = base_url(parts.settings, front.http_server.address)
        services.jobs.base_url = services.workers.base_url = parts.store_probe.base_url = url
        services.jobs.logs.look_in(stores.objects)
        front.rest.open_objects(access)
    await grpc_server.start()
    sessions = Sessions(stores.etcd, stores.keys)
    front.rest.open(
        RunnerService(parts.runners, sessions, signing.signer, services.workers),
        parts.authenticator,
        parts.audit.denied,
    )
    if front.dashboard and own_socket:
        front.dashboard.open(own_socket.address)


async def _run(front: _Front, parts: Parts, services: Services, grpc_server: GrpcServer) -> None:
    """Run the parts until told to stop; then let go of everybody, in order, within the grace."""
    here = CoordinatorValue(
        grpc=parts.settings.grpc_advertise or advertised(grpc_server.address),
        http=front.http_server.address,
        version=version("tenure"),
        started_at=stamp(front.clock.wall()),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(body) for body in _bodies(parts, services, here)]
        leading = group.create_task(parts.leader.run())
        await grpc_server.set_serving(True)
        del front.checks["start"]
        front.checks["postgres"] = parts.looks.postgres_problem
        log.info("coordinator_ready", grpc=grpc_server.address, http=front.http_server.address)
        await front.stop.wait()
        front.checks["stop"] = _stopping
        log.info("stopping", grace_s=parts.settings.grace_s)
        leading.cancel()  # first of all: another one leads at once
        await parts.presence.close()
        parts.waiters.close()
        parts.cluster_watch.close()
        front.rest.close()
        parts.runners.close()
        if front.dashboard:
            await front.dashboard.close()
        await _within(front.abort, grpc_server.stop(parts.settings.grace_s))
        for task in tasks:
            task.cancel()


def _bodies(parts: Parts, services: Services, here: CoordinatorValue) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield the bodies of the parts' tasks, but for the leader's."""
    yield parts.submitter.run()
    yield services.jobs.run()
    yield services.workflows.run()
    yield parts.hints.run()
    yield parts.lanes.keep_fresh()
    yield parts.kinds.keep_fresh()
    yield parts.backlogs.keep_fresh()
    yield parts.signing.keep_fresh()
    yield parts.waiters.watch()
    yield parts.waiters.reread()
    yield parts.looks.run()
    yield parts.cluster_watch.run()
    yield parts.audit.run()
    yield parts.presence.run(here)
    if parts.authenticator is not None:
        yield parts.authenticator.run()
    if parts.stores.objects is not None:
        yield tell_of(parts.stores.objects)


async def _close(front: _Front, parts: Parts, grpc_server: GrpcServer, own_socket: OwnSocket | None) -> None:
    """Close what was opened, and what was only built."""
    if front.dashboard:
        await front.dashboard.close()
    await grpc_server.stop(0)
    if own_socket:
        own_socket.remove()
    await parts.overview.close()
    await parts.audit.close()
    await parts.stores.etcd.close()
    if parts.stores.objects is not None:
        await parts.stores.objects.close()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of work, or give it up and return None once told to stop."""
    async with asyncio.TaskGroup() as group:
        working, stopped = group.create_task(work), group.create_task(stop.wait())
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        stopped.cancel()
    return None if working.cancelled() else working.result()


def _cause(group: BaseExceptionGroup[BaseException]) -> TenureError | None:
    """Return the first error of ours in a group: what to tell whoever started this."""
    for exc in group.exceptions:
        found = _cause(exc) if isinstance(exc, BaseExceptionGroup) else exc
        if isinstance(found, TenureError):
            return found
    return None


def _on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first signal sets (stop, with grace) and what the second sets (at once)."""
    stop, abort = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (abort if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop, abort


async def _within(abort: asyncio.Event, graceful: Coroutine[Any, Any, None]) -> None:
    """Wait for a graceful end, or until the second signal."""
    async with asyncio.TaskGroup() as group:
        ending, aborted = group.create_task(graceful), group.create_task(abort.wait())
        await asyncio.wait((ending, aborted), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            log.warning("stopping_at_once")
        ending.cancel()
        aborted.cancel()


async def _stopping() -> str:
    return "stopping"
