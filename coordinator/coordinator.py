"""The coordinator: build, start in order, run until told to stop, stop in reverse.

Two or more run side by side and share nothing but the stores. Any of them may die at any instant.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import structlog

from tenure.coordinator.announce import Announcer
from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.call_bounds import CallBounds
from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.kind_service import KindService
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.token_service import TokenService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.archived import Archived
from tenure.coordinator.artifacts import Artifacts
from tenure.coordinator.audit import Audit
from tenure.coordinator.authenticate import Authenticator
from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.explain import Explainer
from tenure.coordinator.exposure import require_closed
from tenure.coordinator.finish import Finisher
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.leader import Leader
from tenure.coordinator.looks import Looks
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.objects import access_to, recognize, store_of, tell_of
from tenure.coordinator.oidc import issued_tokens
from tenure.coordinator.opening import Opening
from tenure.coordinator.presence import Presence
from tenure.coordinator.rest.app import RestApi
from tenure.coordinator.rest.runner_service import RunnerService
from tenure.coordinator.retry import Retryer
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.runners import Runners
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.signing_keys import SigningKeys
from tenure.coordinator.start import Starter
from tenure.coordinator.store_probe import StoreProbe
from tenure.coordinator.submit import Submitter
from tenure.coordinator.uploads import Uploads
from tenure.coordinator.waiters import Waiters
from tenure.coordinator.watch_cluster import ClusterWatch
from tenure.coordinator.workflows import Workflows
from tenure.model.clock import SystemClock
from tenure.model.errors import TenureError
from tenure.probes.connections import FOR_PROBES, fitting
from tenure.probes.server import Check, HttpServer, application
from tenure.probes.tls import ServerTLS
from tenure.store.etcd.connect import connect_with
from tenure.store.etcd.election import Election
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, stamp
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.sessions import Sessions
from tenure.store.postgres import migrate
from tenure.store.postgres.database import Database, PoolOptions
from tenure.v1.dial import TLS, tls_of

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
    try:
        asyncio.run(serve(settings))
    except ExceptionGroup as group:
        cause = _cause(group)
        if cause is None:
            raise
        raise cause from group
    return 0


async def serve(settings: CoordinatorSettings) -> None:
    """See ``main``; raises groups of exceptions."""
    clock = SystemClock()
    structlog.contextvars.bind_contextvars(coordinator=settings.coordinator_id)
    tls = _own_tls(settings)
    stop, abort = _on_signals()
    opening = Opening(clock)
    checks: dict[str, Check] = {"start": opening.problem}
    connections = fitting(settings.max_http_connections)
    rest = RestApi(clock, calls=connections - FOR_PROBES)
    http_server = HttpServer(
        application(checks, REGISTRY, more=rest.routes()),
        listen=settings.http_listen,
        variable="TENURE_HTTP_LISTEN",
        tls=tls,
        most=connections,
    )
    http_server.bind()
    async with asyncio.TaskGroup() as group:
        answering = [group.create_task(http_server.run())]
        if tls is not None:
            answering.append(group.create_task(tls.watch()))
        schema = await _unless(stop, opening.until("Postgres", lambda: _schema(settings)))
        if schema is not None:
            await _coordinate(settings, clock, schema, opening, http_server, rest, tls, checks, stop, abort)
        for task in answering:
            task.cancel()
    log.info("coordinator_stopped")


async def _schema(settings: CoordinatorSettings) -> migrate.SchemaStatus:
    dsn = settings.postgres_dsn.get_secret_value()
    schema = await (migrate.migrate(dsn) if settings.migrate else migrate.status(dsn))
    schema.require_usable()
    if not schema.is_current:
        log.warning("schema_is_newer", schema=schema.current, own=schema.wanted, oldest=schema.oldest)
    return schema


async def _coordinate(
    settings: CoordinatorSettings,
    clock: SystemClock,
    schema: migrate.SchemaStatus,
    opening: Opening,
    http_server: HttpServer,
    rest: RestApi,
    tls: ServerTLS | None,
    checks: dict[str, Check],
    stop: asyncio.Event,
    abort: asyncio.Event,
) -> None:
    """Build and run everything but the probes, until told to stop."""
    issued = issued_tokens(settings, clock)
    objects = store_of(settings)
    dsn = settings.postgres_dsn.get_secret_value()
    etcd = connect_with(_etcd_options(settings, clock))
    keys = Keyspace(settings.etcd_prefix)
    async with Database(dsn, _pool_options(settings), name=f"tenure-{settings.coordinator_id}") as database:
        election = Election(etcd, keys, settings.coordinator_id, settings.leader_ttl_s, clock)
        presence = Presence(etcd, keys, clock, settings.coordinator_id, ttl_s=settings.leader_ttl_s)
        waiters = Waiters(database, etcd, keys, clock)
        announcer = Announcer(etcd, keys, clock, done_ttl_s=settings.done_ttl_s, tell_here=waiters.wake)
        authenticator = Authenticator(database, clock, issued) if settings.auth == "required" else None
        hints = Hints(
            presence.leader_address,
            lambda lanes: leader.hint(lanes),
            tls=_tls_to_others(settings),
            own_token=authenticator.own_token if authenticator else None,
        )
        lanes = Lanes(database, clock)
        kinds = Kinds(database, clock)
        backlogs = Backlogs(database, clock)
        signing = SigningKeys(database, clock)
        dependants = Dependants(database, announcer, hints)
        finisher = Finisher(database, announcer, dependants, hints)
        canceler = Canceler(database, etcd, keys, clock, announcer, dependants)
        leader = Leader(
            settings,
            database,
            etcd,
            keys,
            clock,
            election,
            lanes,
            finisher,
            dependants,
            hints,
            canceler,
            kinds,
            objects,
        )
        submitter = Submitter(database, lanes, hints, kinds, backlogs, canceler, clock)
        cluster_watch = ClusterWatch(etcd, keys)
        looks = Looks(database, etcd, keys, clock)
        retryer = Retryer(database, lanes, hints, clock)
        explainer = Explainer(database, etcd, keys)
        audit = Audit(database, clock)
        artifacts = Artifacts(database)
        uploads = Uploads(database, settings.object_max_bytes)
        archived = Archived(database)
        archived.objects = objects
        jobs = JobService(
            database, etcd, keys, clock, submitter, waiters, canceler, retryer, explainer, audit, artifacts, archived
        )
        workflows = WorkflowService(database, etcd, keys, clock, Workflows(database, clock, canceler), waiters, audit)
        workers = WorkerService(database, Starter(database, etcd, keys), finisher, submitter, uploads)
        runners = Runners(etcd, keys, clock)
        revoker = Revoker(database, etcd, keys, finisher)
        cluster = ClusterService(database, etcd, keys, schema, revoker, leader.hint, audit, cluster_watch)
        cluster.store_probe = store_probe = StoreProbe(clock, ca_files=(settings.object_store_ca, settings.tls_ca))
        grpc_server = GrpcServer(
            (
                jobs,
                workers,
                cluster,
                LimitService(database, etcd, keys, hints, audit),
                PoolService(database, etcd, keys, lanes, hints, canceler, audit),
                NamespaceService(database, hints, audit),
                ScheduleService(database, lanes, hints, kinds, canceler, audit),
                KindService(database, kinds, audit),
                TokenService(database, audit),
                workflows,
                AuditService(database),
                RetentionService(database, clock, audit, archived),
            ),
            listen=settings.grpc_listen,
            with_reflection=settings.reflection,
            tls=tls,
            authenticator=authenticator,
            on_denied=audit.denied,
            bounds=CallBounds(
                calls=settings.max_calls, watches=settings.max_watches, submit_streams=settings.max_submit_streams
            ),
        )
        try:
            await _unless(stop, opening.until("Postgres", lanes.refresh))
            await _unless(stop, opening.until("Postgres", kinds.refresh))
            await _unless(stop, opening.until("Postgres", backlogs.refresh))
            await _unless(stop, opening.until("Postgres", signing.refresh))
            if objects is not None:
                await _unless(stop, opening.until("Postgres", partial(recognize, objects, database)))
            if stop.is_set():
                return
            workers.sign_with(signing.signer, is_strict=authenticator is not None)
            if objects is not None:
                base_url = _base_url(settings, http_server.address)
                artifacts.objects = uploads.objects = access = access_to(objects, signing.object_signer, clock)
                jobs.base_url = workers.base_url = store_probe.base_url = base_url
                store_probe.objects = access
                jobs.logs.look_in(objects)
                rest.open_objects(access)
            await grpc_server.start()
            service = RunnerService(runners, Sessions(etcd, keys), signing.signer, workers)
            rest.open(service, authenticator, audit.denied)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(body)
                    for body in (
                        submitter.run(),
                        jobs.run(),
                        workflows.run(),
                        hints.run(),
                        lanes.keep_fresh(),
                        kinds.keep_fresh(),
                        backlogs.keep_fresh(),
                        signing.keep_fresh(),
                        waiters.watch(),
                        waiters.reread(),
                        looks.run(),
                        cluster_watch.run(),
                        audit.run(),
                        presence.run(
                            CoordinatorValue(
                                grpc=settings.grpc_advertise or _advertised(grpc_server.address),
                                http=http_server.address,
                                version=version("tenure"),
                                started_at=stamp(clock.wall()),
                            )
                        ),
                    )
                ]
                if authenticator:
                    tasks.append(group.create_task(authenticator.run()))
                if objects is not None:
                    tasks.append(group.create_task(tell_of(objects)))
                leading = group.create_task(leader.run())
                await grpc_server.set_serving(True)
                del checks["start"]
                checks["postgres"] = looks.postgres_problem
                log.info("coordinator_ready", grpc=grpc_server.address, http=http_server.address)
                await stop.wait()
                checks["stop"] = _stopping
                log.info("stopping", grace_s=settings.grace_s)
                leading.cancel()  # first of all: another one leads at once
                await presence.close()
                waiters.close()
                cluster_watch.close()
                rest.close()
                runners.close()
                await _within(abort, grpc_server.stop(settings.grace_s))
                for task in tasks:
                    task.cancel()
        finally:
            await grpc_server.stop(0)
            await audit.close()
            await etcd.close()
            if objects is not None:
                await objects.close()


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


def _advertised(address: str) -> str:
    """Return where others reach what listens at ``address``: this host's own address in the place of all (0.0.0.0)."""
    host, _, port = address.rpartition(":")
    if host not in ("", "0.0.0.0", "[::]"):
        return address
    name = socket.gethostname()
    try:
        own = socket.gethostbyname(name)  # a container's address, by its own hosts file
    except OSError:
        return f"{name}:{port}"
    return f"{name if own.startswith('127.') else own}:{port}"


def _base_url(settings: CoordinatorSettings, http_address: str) -> str:
    """Return the URL under which others reach a coordinator's HTTP."""
    if settings.http_advertise:
        return settings.http_advertise.rstrip("/")
    return f"{'https' if settings.tls_cert else 'http'}://{_advertised(http_address)}"


def _own_tls(settings: CoordinatorSettings) -> ServerTLS | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    if settings.tls_client_ca and not settings.tls_client_required:
        log.warning("grpc_asks_for_no_client_certificates", hint="set TENURE_TLS_CLIENT_REQUIRED=true for mutual TLS")
    return ServerTLS(
        settings.tls_cert,
        settings.tls_key,
        client_ca_file=settings.tls_client_ca,
        require_client=settings.tls_client_required,
    )


def _tls_to_others(settings: CoordinatorSettings) -> TLS | None:
    return tls_of(
        tls=settings.tls or settings.tls_cert is not None,  # they are configured as this one is
        ca_file=settings.tls_ca,
        cert_file=settings.tls_client_cert,
        key_file=settings.tls_client_key,
        server_name=settings.tls_server_name,
    )


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


async def _stopping() -> str:
    return "stopping"
