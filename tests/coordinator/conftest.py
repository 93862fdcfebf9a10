"""The parts of a coordinator, built in this process on real stores, and a worker's side of the protocol by hand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import namedtuple_row
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.postgres import PostgresServer

from tenure.coordinator.announce import Announcer
from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.artifacts import Artifacts
from tenure.coordinator.audit import Audit
from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.explain import Explainer
from tenure.coordinator.finish import Finisher, Report
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.leader import Leader
from tenure.coordinator.object_tokens import ObjectSigner
from tenure.coordinator.overview import Overview
from tenure.coordinator.reap import Reaper
from tenure.coordinator.retry import Retryer
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.runner_tokens import Signer
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.signing_keys import read_keys
from tenure.coordinator.start import ClaimedJob, Starter
from tenure.coordinator.submit import Submitter
from tenure.coordinator.waiters import Waiters
from tenure.coordinator.watch_cluster import ClusterWatch
from tenure.model.clock import SystemClock
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, claim_batch
from tenure.store.etcd.connect import connect
from tenure.store.etcd.election import Election
from tenure.store.etcd.keyspace import ClaimValue, Keyspace, WorkerValue, stamp
from tenure.store.etcd.port import Compare, Etcd, Field, KeyValue, Put, Txn
from tenure.store.postgres.database import Database, PoolOptions, Statement
from tenure.store.postgres.migrate import SchemaStatus

PATIENCE_S = 30.0
"""How long a test waits for what must happen; only a hang takes as long."""
WORKER = "w1"


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer of a check."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await check():
                return answer
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*bodies: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run bodies of tasks for the length of a block; one that fails fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(body) for body in bodies]
        yield
        for task in tasks:
            task.cancel()


@dataclass(slots=True)
class Parts:
    """One coordinator's parts, none of them running."""

    dsn: str
    db: Database
    etcd: Etcd
    keys: Keyspace
    clock: SystemClock
    hinted: list[frozenset[int]] = field(default_factory=list)
    """The hints that were given, as a leader in this process takes them."""
    lanes: Lanes = field(init=False)
    hints: Hints = field(init=False)
    kinds: Kinds = field(init=False)
    backlogs: Backlogs = field(init=False)
    explainer: Explainer = field(init=False)
    announcer: Announcer = field(init=False)
    dependants: Dependants = field(init=False)
    finisher: Finisher = field(init=False)
    submitter: Submitter = field(init=False)
    starter: Starter = field(init=False)
    canceler: Canceler = field(init=False)
    retryer: Retryer = field(init=False)
    waiters: Waiters = field(init=False)
    audit: Audit = field(init=False)
    cluster_watch: ClusterWatch = field(init=False)

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.db, self.clock)
        self.hints = Hints(lambda: None, self._take_hint)
        self.announcer = Announcer(self.etcd, self.keys, self.clock, done_ttl_s=30.0)
        self.explainer = Explainer(self.db, self.etcd, self.keys)
        self.dependants = Dependants(self.db, self.announcer, self.hints)
        self.finisher = Finisher(self.db, self.announcer, self.dependants, self.hints)
        self.kinds = Kinds(self.db, self.clock)
        self.backlogs = Backlogs(self.db, self.clock)
        self.starter = Starter(self.db, self.etcd, self.keys)
        self.canceler = Canceler(self.db, self.etcd, self.keys, self.clock, self.announcer, self.dependants)
        self.submitter = Submitter(
            self.db, self.lanes, self.hints, self.kinds, self.backlogs, self.canceler, self.clock
        )
        self.retryer = Retryer(self.db, self.lanes, self.hints, self.clock)
        self.waiters = Waiters(self.db, self.etcd, self.keys, self.clock)
        self.audit = Audit(self.db, self.clock)
        self.cluster_watch = ClusterWatch(self.etcd, self.keys)

    def cluster_service(
        self, schema: str = "0003", finisher: Finisher | None = None, overview: Overview | None = None
    ) -> ClusterService:
        """Return a service over these parts; ``cluster_watch`` is not running."""
        revoker = Revoker(self.db, self.etcd, self.keys, finisher or self.finisher)
        seen = SchemaStatus(schema, schema)
        return ClusterService(
            self.db, self.etcd, self.keys, seen, revoker, lambda lanes: True, self.audit, self.cluster_watch, overview
        )

    def job_service(self, artifacts: Artifacts | None = None) -> JobService:
        """Return a service over these parts, not running."""
        return JobService(
            self.db,
            self.etcd,
            self.keys,
            self.clock,
            self.submitter,
            self.waiters,
            self.canceler,
            self.retryer,
            self.explainer,
            self.audit,
            artifacts,
        )

    def _take_hint(self, lanes: frozenset[int]) -> bool:
        self.hinted.append(lanes)
        return True

    @property
    def hinted_lanes(self) -> set[int]:
        """All lanes hinted at so far."""
        return {lane for lanes in self.hinted for lane in lanes}

    async def submit(self, **spec: Any) -> uuid.UUID:
        """Submit one job."""
        return (await self.submitter.submit_batch([JobSpec(**{"kind": "k", **spec})]))[0].id

    async def claim(self, id: uuid.UUID, *, worker: str = WORKER, ttl_s: float = 60.0) -> ClaimedJob:
        """Claim a job as a worker does, on a lease of its own."""
        lease = (await self.etcd.grant(ttl_s)).lease
        value = ClaimValue(worker, "default", "k", "default", lease, stamp(self.clock.wall())).to_json()
        [result] = await claim_batch(self.etcd, self.keys, [ClaimRequest(str(id), lease, value)])
        assert result.outcome is ClaimOutcome.WON
        return ClaimedJob(str(id), (await self.row(id)).attempt, lease, result.create_revision)

    async def execute(self, id: uuid.UUID, *, worker: str = WORKER) -> Any:
        """Claim and start a job; returns the started attempt."""
        [row] = await self.starter.start(worker, [await self.claim(id, worker=worker)])
        return row

    async def finish(self, id: uuid.UUID, fence: int, outcome: Outcome = Outcome.COMPLETED, **report: Any) -> Any:
        """Report the end of an attempt."""
        return (await self.finisher.finish([Report(str(id), fence, outcome, **report)]))[0]

    async def lose_claim(self, id: uuid.UUID) -> None:
        """Revoke the lease of a job's claim, as its expiry would."""
        claim = await self.claim_of(id)
        assert claim is not None
        await self.etcd.revoke(claim.lease)

    async def claim_of(self, id: uuid.UUID) -> KeyValue | None:
        """Read a job's claim."""
        return await self.etcd.get(self.keys.claim(str(id)))

    async def done(self, id: uuid.UUID) -> KeyValue | None:
        """Read a job's announcement."""
        return await self.etcd.get(self.keys.announcement(str(id)))

    async def register(self, worker: str = WORKER, *, capacity: int = 10, **value: Any) -> int:
        """Register a worker; returns the lease of its session."""
        lease = (await self.etcd.grant(60.0)).lease
        told = WorkerValue(**{"pools": ("default",), "kinds": ("k",), "labels": {}, "capacity": capacity, **value})
        await self.etcd.txn(Txn((), (Put(self.keys.worker(worker), told.to_json(), lease),)))
        return lease

    async def row(self, id: uuid.UUID) -> Any:
        """Read a job, None if there is none."""
        rows = await self.db.fetch("jobs_by_id", {"ids": [id]})
        return rows[0] if rows else None

    async def state(self, id: uuid.UUID) -> JobState:
        """Read the state of a job."""
        return JobState((await self.row(id)).state)

    async def outcomes(self, id: uuid.UUID) -> list[str]:
        """Read how a job's attempts ended."""
        return [row.outcome for row in await self.db.fetch("attempts_of", {"id": id})]

    async def sql(self, text: str, *params: Any) -> list[Any]:
        """Run any statement, on a connection of its own."""
        async with await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, row_factory=namedtuple_row
        ) as connection:
            cursor = await connection.execute(text.encode(), params)
            return await cursor.fetchall() if cursor.description is not None else []


async def signer_of(parts: Parts) -> Signer:
    """Return a signer with the keys of now."""
    signer = Signer()
    signer.use(*await read_keys(parts.db))
    return signer


async def object_signer_of(parts: Parts) -> ObjectSigner:
    """Return a signer for objects with the keys of now."""
    signer = ObjectSigner()
    signer.use(*await read_keys(parts.db))
    return signer


async def reaper_of(
    parts: Parts,
    leader: str = "c1",
    term: int = 1,
    *,
    suspect: Callable[[str], None] = lambda worker: None,
    brake: Callable[[float], bool] = lambda seconds: True,
    **settings: float,
) -> Reaper:
    """Return a reaper in a term that Postgres knows of; nobody holds the leader key."""
    await parts.db.fetch(
        "take_leadership", {"leader": leader, "term": term, "etcd_cluster_id": "1", "etcd_revision": 1}
    )
    return Reaper(
        parts.db,
        parts.etcd,
        parts.keys,
        parts.clock,
        parts.finisher,
        suspect,
        brake,
        guard=Statement("assert_term", {"leader": leader, "term": term}),
        term_guard=Compare(parts.keys.leader, Field.CREATE, 0),
        **{"sweep_s": 0.1, "cancel_grace_s": 30.0, "reports_first_s": 0.0, **settings},
    )


@pytest.fixture(scope="module")
def shared_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database for all tests of a module: for those that look at their own jobs alone."""
    dsn = postgres_server.create_database(postgres_template)
    yield dsn
    postgres_server.drop_database(dsn)


MakeParts = Callable[[str], Awaitable[Parts]]


@pytest_asyncio.fixture
async def make_parts(etcd_server: EtcdServer, etcd_prefix: str) -> AsyncIterator[MakeParts]:
    """Build the parts of coordinators that share a database and a prefix: ``await make_parts(dsn)``."""
    async with AsyncExitStack() as stack:

        async def make(dsn: str) -> Parts:
            db = await stack.enter_async_context(Database(dsn, PoolOptions(min_size=1, max_size=4), name="test"))
            etcd = connect(etcd_server.endpoints)
            stack.push_async_callback(etcd.close)
            return Parts(dsn, db, etcd, Keyspace(etcd_prefix), SystemClock())

        yield make


@pytest_asyncio.fixture
async def parts(make_parts: MakeParts, shared_database: str) -> Parts:
    """A coordinator's parts, on a prefix of its own, among the jobs of other tests."""
    return await make_parts(shared_database)


@pytest_asyncio.fixture
async def alone(make_parts: MakeParts, database: str) -> Parts:
    """A coordinator's parts, alone in their database."""
    return await make_parts(database)


def settings_of(parts: Parts, **values: Any) -> CoordinatorSettings:
    """Return the settings of a coordinator that is quick to notice things."""
    given = {"coordinator_id": "c1", "poll_s": 0.1, "sweep_s": 0.2, "offer_timeout_s": 0.3, "leader_ttl_s": 2.0}
    return CoordinatorSettings(postgres_dsn=parts.dsn, **{**given, **values})  # type: ignore[arg-type]


def leader_of(parts: Parts, name: str = "c1", **settings: Any) -> Leader:
    """Return a whole leader over the parts; its ``run`` is to be run."""
    election = Election(parts.etcd, parts.keys, name, 2.0, parts.clock)
    return Leader(
        settings_of(parts, coordinator_id=name, **settings),
        parts.db,
        parts.etcd,
        parts.keys,
        parts.clock,
        election,
        parts.lanes,
        parts.finisher,
        parts.dependants,
        parts.hints,
        parts.canceler,
        parts.kinds,
    )
