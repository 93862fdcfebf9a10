"""The coordinator: build, start in order, run until told to stop, stop in reverse.

Two or more run side by side and share nothing but the stores. Any of them may die at any instant.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any

import structlog

from tenure.coordinator.announce import Announcer
from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.http_server import HttpServer, application
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.finish import Finisher
from tenure.coordinator.hint import Hints
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.leader import Leader
from tenure.coordinator.presence import Presence
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.start import Starter
from tenure.coordinator.submit import Submitter
from tenure.coordinator.waiters import Waiters
from tenure.model.clock import SystemClock
from tenure.model.errors import ConfigurationError, TenureError
from tenure.store.etcd.connect import connect_with
from tenure.store.etcd.election import Election
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, stamp
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.port import Etcd
from tenure.store.postgres import migrate
from tenure.store.postgres.database import Database, PoolOptions

log = structlog.get_logger(__name__)


def main(settings: CoordinatorSettings) -> int:
    """Run a coordinator until SIGTERM or SIGINT; return the process's exit code.

    Raises:
        ConfigurationError: a port is taken, or the schema is not this release's.
        Unavailable: a store cannot be reached at the start.
    """
    asyncio.run(serve(settings))
    return 0


async def serve(settings: CoordinatorSettings) -> None:
    """See ``main``."""
    dsn = settings.postgres_dsn.get_secret_value()
    schema = await (migrate.migrate(dsn) if settings.migrate else migrate.status(dsn))
    if not schema.is_current:
        raise ConfigurationError(
            f"the database is at schema {schema.current}, this release needs {schema.wanted}",
            hint="run: tenure db migrate",
        )
    clock = SystemClock()
    structlog.contextvars.bind_contextvars(coordinator=settings.coordinator_id)
    etcd = connect_with(_etcd_options(settings, clock))
    keys = Keyspace(settings.etcd_prefix)
    async with Database(dsn, _pool_options(settings), name=f"tenure-{settings.coordinator_id}") as database:
        election = Election(etcd, keys, settings.coordinator_id, settings.leader_ttl_s, clock)
        presence = Presence(etcd, keys, clock, settings.coordinator_id, ttl_s=settings.leader_ttl_s)
        announcer = Announcer(etcd, keys, clock, done_ttl_s=settings.done_ttl_s)
        hints = Hints(presence.leader_address, lambda lanes: leader.hint(lanes))
        lanes = Lanes(database)
        dependants = Dependants(database, announcer, hints)
        finisher = Finisher(database, announcer, dependants, hints)
        canceler = Canceler(database, etcd, keys, clock, announcer, dependants)
        leader = Leader(settings, database, etcd, keys, clock, election, lanes, finisher, dependants, hints, canceler)
        submitter = Submitter(database, lanes, hints)
        waiters = Waiters(database, etcd, keys, clock)
        jobs = JobService(database, etcd, keys, submitter, waiters, canceler)
        grpc_server = GrpcServer(
            jobs,
            WorkerService(database, Starter(database, etcd, keys), finisher, submitter),
            ClusterService(database, etcd, keys, schema, Revoker(database, etcd, keys, finisher), leader.hint),
            ScheduleService(database, lanes, hints),
            listen=settings.grpc_listen,
            with_reflection=settings.reflection,
        )
        http_server = HttpServer(
            application({"postgres": lambda: _postgres_problem(database), "etcd": lambda: _etcd_problem(etcd)}),
            listen=settings.http_listen,
        )

        stop, abort = _on_signals()
        http_server.bind()
        await lanes.refresh()
        await grpc_server.start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(body)
                    for body in (
                        submitter.run(),
                        jobs.run(),
                        hints.run(),
                        lanes.keep_fresh(),
                        waiters.watch(),
                        waiters.reread(),
                        http_server.run(),
                        presence.run(
                            CoordinatorValue(
                                grpc=settings.grpc_advertise or grpc_server.address,
                                http=http_server.address,
                                version=version("tenure"),
                                started_at=stamp(clock.wall()),
                            )
                        ),
                    )
                ]
                leading = group.create_task(leader.run())
                await grpc_server.set_serving(True)
                log.info("coordinator_ready", grpc=grpc_server.address, http=http_server.address)
                await stop.wait()
                log.info("stopping", grace_s=settings.grace_s)
                leading.cancel()  # first of all: another one leads at once
                await presence.close()
                waiters.close()
                await _within(abort, grpc_server.stop(settings.grace_s))
                for task in tasks:
                    task.cancel()
        finally:
            await grpc_server.stop(0)
            await etcd.close()
    log.info("coordinator_stopped")


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


def _etcd_options(settings: CoordinatorSettings, clock: SystemClock) -> EtcdOptions:
    return EtcdOptions(
        endpoints=settings.etcd_endpoints,
        ca_file=settings.etcd_ca,
        cert_file=settings.etcd_cert,
        key_file=settings.etcd_key,
        user=settings.etcd_user,
        password=settings.etcd_password.get_secret_value() if settings.etcd_password else None,
        timeout_s=settings.etcd_timeout_s,
        clock=clock,
    )


def _pool_options(settings: CoordinatorSettings) -> PoolOptions:
    return PoolOptions(
        min_size=settings.postgres_pool_min,
        max_size=settings.postgres_pool_max,
        wait_s=settings.postgres_wait_s,
        statement_timeout_s=settings.statement_timeout_s,
        lock_timeout_s=settings.lock_timeout_s,
    )


async def _postgres_problem(database: Database) -> str | None:
    try:
        await database.fetch("cluster")
    except TenureError as exc:
        return exc.message
    return None


async def _etcd_problem(etcd: Etcd) -> str | None:
    try:
        await etcd.status(timeout_s=2.0)
    except TenureError as exc:
        return exc.message
    return None
