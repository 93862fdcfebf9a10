"""What a coordinator is made of: each part built once, with the parts that it calls. Nothing runs, no store is asked.

``coordinator.py`` opens, runs and closes them. ``Parts`` do the work; ``Services`` are what callers see of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tenure.coordinator.announce import Announcer
from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.cluster_service import ClusterService
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
from tenure.coordinator.finish import Finisher
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.leader import Leader
from tenure.coordinator.looks import Looks
from tenure.coordinator.oidc import IssuedTokens
from tenure.coordinator.options import tls_to_others
from tenure.coordinator.overview import Overview
from tenure.coordinator.presence import Presence
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
from tenure.dashboard.sessions import SessionKeys
from tenure.model.clock import Clock
from tenure.store.etcd.election import Election
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database
from tenure.store.postgres.migrate import SchemaStatus


@dataclass(frozen=True, slots=True)
class Stores:
    """Where everything is kept. ``objects`` is None where there is no object store."""

    database: Database
    schema: SchemaStatus
    etcd: Etcd
    keys: Keyspace
    objects: ObjectStore | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that do the work. Those with a ``run``, ``watch`` or ``keep_fresh`` are tasks of the coordinator's."""

    settings: CoordinatorSettings
    clock: Clock
    stores: Stores
    # who is there, who may
    presence: Presence
    cluster_watch: ClusterWatch
    looks: Looks
    overview: Overview
    authenticator: Authenticator | None
    """None: credentials are not asked for."""
    signing: SigningKeys
    audit: Audit
    # what happens to jobs
    leader: Leader
    submitter: Submitter
    finisher: Finisher
    canceler: Canceler
    waiters: Waiters
    hints: Hints
    runners: Runners
    # what is read ahead of Postgres
    lanes: Lanes
    kinds: Kinds
    backlogs: Backlogs
    # what is in the object store
    artifacts: Artifacts
    uploads: Uploads
    archived: Archived
    store_probe: StoreProbe


@dataclass(frozen=True, slots=True)
class Services:
    """What callers see of the parts: those that have more to do than to answer, and the others."""

    jobs: JobService
    workflows: WorkflowService
    workers: WorkerService
    others: tuple[object, ...]

    def __iter__(self) -> Iterator[object]:
        """Yield all of them."""
        return iter((self.jobs, self.workflows, self.workers, *self.others))


def build(
    settings: CoordinatorSettings,
    clock: Clock,
    stores: Stores,
    *,
    issued: IssuedTokens | None,
    sessions: SessionKeys | None,
) -> Parts:
    """Build the parts. ``issued`` knows the issuer's tokens, ``sessions`` the dashboard's keys, where there are any."""
    database, etcd, keys = stores.database, stores.etcd, stores.keys
    presence = Presence(etcd, keys, clock, settings.coordinator_id, ttl_s=settings.leader_ttl_s)
    authenticator = Authenticator(database, clock, issued) if settings.auth == "required" else None
    own_token = authenticator.own_token if authenticator else None
    tls = tls_to_others(settings)

    hints = Hints(presence.leader_address, lambda lanes: leader.hint(lanes), tls=tls, own_token=own_token)
    lanes, kinds, backlogs = Lanes(database, clock), Kinds(database, clock), Backlogs(database, clock)
    waiters = Waiters(database, etcd, keys, clock)
    announcer = Announcer(etcd, keys, clock, done_ttl_s=settings.done_ttl_s, tell_here=waiters.wake)
    dependants = Dependants(database, announcer, hints)
    finisher = Finisher(database, announcer, dependants, hints)
    canceler = Canceler(database, etcd, keys, clock, announcer, dependants)
    leader = Leader(
        settings,
        database,
        etcd,
        keys,
        clock,
        Election(etcd, keys, settings.coordinator_id, settings.leader_ttl_s, clock),
        lanes,
        finisher,
        dependants,
        hints,
        canceler,
        kinds,
        stores.objects,
    )
    archived = Archived(database)
    archived.objects = stores.objects
    return Parts(
        settings,
        clock,
        stores,
        presence=presence,
        cluster_watch=ClusterWatch(etcd, keys),
        looks=Looks(database, etcd, keys, clock),
        overview=Overview(database, etcd, keys, clock, lanes, presence.others, tls=tls, own_token=own_token),
        authenticator=authenticator,
        signing=SigningKeys(database, clock, sessions),
        audit=Audit(database, clock),
        leader=leader,
        submitter=Submitter(database, lanes, hints, kinds, backlogs, canceler, clock),
        finisher=finisher,
        canceler=canceler,
        waiters=waiters,
        hints=hints,
        runners=Runners(etcd, keys, clock),
        lanes=lanes,
        kinds=kinds,
        backlogs=backlogs,
        artifacts=Artifacts(database),
        uploads=Uploads(database, settings.object_max_bytes),
        archived=archived,
        store_probe=StoreProbe(clock, ca_files=(settings.object_store_ca, settings.tls_ca)),
    )


def services_of(parts: Parts) -> Services:
    """Build what callers see of the parts."""
    stores, clock, audit = parts.stores, parts.clock, parts.audit
    database, etcd, keys = stores.database, stores.etcd, stores.keys
    jobs = JobService(
        database,
        etcd,
        keys,
        clock,
        parts.submitter,
        parts.waiters,
        parts.canceler,
        Retryer(database, parts.lanes, parts.hints, clock),
        Explainer(database, etcd, keys),
        audit,
        parts.artifacts,
        parts.archived,
    )
    whole = Workflows(database, clock, parts.canceler)
    revoker = Revoker(database, etcd, keys, parts.finisher)
    cluster = ClusterService(
        database,
        etcd,
        keys,
        stores.schema,
        revoker,
        parts.leader.hint,
        audit,
        parts.cluster_watch,
        parts.overview,
    )
    cluster.store_probe = parts.store_probe
    return Services(
        jobs,
        WorkflowService(database, etcd, keys, clock, whole, parts.waiters, audit),
        WorkerService(database, Starter(database, etcd, keys), parts.finisher, parts.submitter, parts.uploads),
        (
            cluster,
            LimitService(database, etcd, keys, parts.hints, audit),
            PoolService(database, etcd, keys, parts.lanes, parts.hints, parts.canceler, audit),
            NamespaceService(database, parts.hints, audit),
            ScheduleService(database, parts.lanes, parts.hints, parts.kinds, parts.canceler, audit),
            KindService(database, parts.kinds, audit),
            TokenService(database, audit),
            AuditService(database),
            RetentionService(database, clock, audit, parts.archived),
        ),
    )
