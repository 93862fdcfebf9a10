"""The stage: one deployment on which all scenarios play, with hands for what they need in common.

Owns the processes and the connections; whatever happens they are gone at the end. Rows are cleared between cases,
so that each begins with empty tables. It measures nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self
from uuid import UUID

import psycopg

from tenure.bench.cpu import Meter
from tenure.bench.handlers import HOLD, NOOP
from tenure.bench.plan import COORDINATORS, Plan
from tenure.bench.results import BenchError
from tenure.bench.stamp import STAMP
from tenure.cli.embedded.deployment import Deployment
from tenure.cli.embedded.member import Member
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.client import AsyncClient, NewJob
from tenure.model.errors import TenureError

POOL = "bench"
STAMPS = ("tenure.bench.stamp",)
"""Of a worker that serves the stamp alone: whatever else is ready in its pool waits."""
HANDLERS = ("tenure.bench.handlers", *STAMPS)
CALL_S = 60.0
PATIENCE_S = 600.0
POLL_S = 0.02
LOOK_S = 0.5
"""Where each look reads many rows."""
CLEAR = "TRUNCATE tenure.job, tenure.history, tenure.attempt, tenure.dependency, tenure.idempotency"
FINISHED = """
SELECT count(*) AS jobs,
       count(*) FILTER (WHERE state <> 'completed') AS failed,
       count(*) FILTER (WHERE attempt <> 1) AS repeated,
       count(*) FILTER (WHERE finished_at > %(since)s) AS since,
       extract(epoch FROM max(finished_at) - %(since)s)::float8 AS seconds
FROM tenure.history
"""
ENDED_SINCE = """
SELECT count(*), count(*) FILTER (WHERE state <> 'completed'),
       extract(epoch FROM max(finished_at) - %(since)s)::float8
FROM tenure.history WHERE finished_at > %(since)s
"""
METRIC = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
STATEMENTS = """
SELECT query, calls, total_exec_time AS milliseconds
FROM pg_stat_statements
WHERE query !~ 'pg_stat_statements'
"""
NOTHING_LEFT = "SELECT NOT EXISTS (SELECT FROM tenure.job)"
ONLY_LEFT = "SELECT count(*) = %(jobs)s FROM tenure.job"
STAMPED = "SELECT count(*) = %(jobs)s FROM tenure.history WHERE kind = %(kind)s"
STAMPS_OF = "SELECT id::text, result::text::bigint FROM tenure.history WHERE kind = %(kind)s"
FIRST_ATTEMPTS = "SELECT count(*) FROM tenure.job WHERE kind = %(kind)s AND state = 'executing' AND attempt = 1"
ALL_ENDED = "SELECT count(*) = cardinality(%(ids)s) FROM tenure.history WHERE id = ANY (%(ids)s)"
LAST_END = """
SELECT extract(epoch FROM max(finished_at) - %(since)s)::float8 FROM tenure.history WHERE id = ANY (%(ids)s)
"""
ALL_BEGUN = """
SELECT (SELECT count(*) FROM tenure.job WHERE kind = %(kind)s AND state = 'executing')
     + (SELECT count(*) FROM tenure.history WHERE kind = %(kind)s) >= %(jobs)s
"""
FILL = """
INSERT INTO tenure.job
       (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, max_crashes)
SELECT tenure.new_id(), namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, max_crashes
FROM tenure.job, generate_series(1, %(copies)s)
WHERE id = %(id)s
"""
FILL_ROWS = 100_000
"""Written at once."""
FIRST_FINISHED = """
SELECT count(*) FILTER (WHERE priority = %(priority)s AND state = 'completed') = %(jobs)s
FROM tenure.history
"""
RATE_UNTIL_FIRST = """
SELECT count(*) FILTER (WHERE finished_at > %(since)s) AS jobs,
       extract(epoch FROM max(finished_at) - %(since)s)::float8 AS seconds
FROM tenure.history
WHERE finished_at <= (SELECT max(finished_at) FROM tenure.history WHERE priority = %(priority)s)
"""
RESTARTED = """
SELECT count(*) AS jobs,
       count(*) FILTER (WHERE state <> 'completed' OR attempt < 2) AS wrong,
       percentile_disc(ARRAY[0, 0.5, 0.99, 1]) WITHIN GROUP (ORDER BY result::text::bigint) AS began_ns,
       count(*) FILTER (WHERE attempt > 2) AS lost_again
FROM tenure.history
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """Jobs that finished after an instant, and how many seconds after it the last one did, by Postgres' clock."""

    jobs: int
    seconds: float
    repeated: int
    """Jobs that took more than one attempt, of all."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """When the first, half, 99 % and all of the lost jobs had begun again, in ns of CLOCK_MONOTONIC."""

    first_ns: int
    half_ns: int
    most_ns: int
    last_ns: int
    lost_again: int
    """Jobs that were lost more than once."""


class Stage:
    """A deployment without workers, ready on entry; scenarios bring the workers that they need."""

    def __init__(self, data: Path, plan: Plan) -> None:
        self.plan = plan
        self._counts = False
        """Whether Postgres counts what statements take."""
        self._deployment = Deployment(
            data,
            coordinators=COORDINATORS,
            workers=0,
            env={"TENURE_LEADER_TTL_S": f"{plan.leader_ttl_s:g}"},
            fsync=True,
        )
        self._database: psycopg.AsyncConnection[Any]
        self.client: AsyncClient

    async def __aenter__(self) -> Self:
        say("starting Postgres, etcd and coordinators")
        await asyncio.to_thread(self._deployment.start)
        try:
            self.client = AsyncClient(self._deployment.coordinator_addresses, timeout_s=CALL_S)
            await self._connect()
            await self.leader()
        except BaseException:
            await asyncio.to_thread(self._deployment.abort)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._tell_what_was_said()
        say("stopping everything")
        try:
            await self.client.close()
            await self._database.close()
        finally:
            await asyncio.to_thread(self._deployment.stop if error is None else self._deployment.abort)

    async def _connect(self) -> None:
        self._database = await psycopg.AsyncConnection.connect(self.postgres_dsn, autocommit=True, connect_timeout=10)

    def _tell_what_was_said(self) -> None:
        """Show the logs after a failure: they go with the data."""
        for member in (*self.coordinators, *self.workers):
            state = "runs" if member.alive else f"ended with {member.exit_code}"
            say(f"--- {member.name} ({member.id}) {state}\n{member.said()}")

    @property
    def folder(self) -> Path:
        """Where its processes write their logs."""
        return self._deployment.folder.path / "log"

    @property
    def etcd_address(self) -> str:
        """The URL of etcd's HTTP."""
        assert self._deployment.etcd is not None
        return self._deployment.etcd.http_endpoints[0]

    @property
    def etcd_pid(self) -> int:
        """The process of etcd."""
        assert self._deployment.etcd is not None
        return self._deployment.etcd.pid

    async def etcd_metrics(self) -> dict[str, float]:
        """Return etcd's metrics by name, summed over their labels."""
        url = f"{self.etcd_address}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        found: defaultdict[str, float] = defaultdict(float)
        for name, value in METRIC.findall(text):
            found[name] += float(value)
        return dict(found)

    @property
    def etcd_endpoints(self) -> list[str]:
        """Where etcd is, as its clients are told."""
        return self._deployment.env["TENURE_ETCD_ENDPOINTS"].split(",")

    @property
    def postgres_dsn(self) -> str:
        """Where the database is."""
        return self._deployment.env["TENURE_POSTGRES_DSN"]

    # -- processes --

    @property
    def coordinators(self) -> Sequence[Member]:
        """The coordinators."""
        return self._deployment.coordinators

    @property
    def workers(self) -> Sequence[Member]:
        """The workers that scenarios brought."""
        return self._deployment.workers

    async def add_workers(
        self, count: int, capacity: int, *, pool: str = POOL, handlers: Sequence[str] = HANDLERS
    ) -> None:
        """Start workers together and return when all have registered."""
        imported = [part for module in handlers for part in ("--import", module)]
        args = [*imported, "--pool", pool, "--capacity", str(capacity)]
        added = [await asyncio.to_thread(self._deployment.add_worker, args, wait=False) for _ in range(count)]
        for member in added:
            await asyncio.to_thread(self._deployment.wait_for_worker, member)

    async def add_warm_worker(self) -> None:
        """Start a worker for rates, and return when it has run a job."""
        await self.add_workers(1, self.plan.capacity)
        await self.client.wait((await self.client.submit(NOOP, route=POOL)).id, PATIENCE_S)

    async def remove_workers(self) -> None:
        """Stop all workers."""
        for member in list(self._deployment.workers):
            await asyncio.to_thread(member.stop)
            self._deployment.workers.remove(member)

    async def remove_newest_worker(self) -> None:
        """Stop the worker that was added last."""
        await asyncio.to_thread(self._deployment.workers[-1].stop)
        self._deployment.workers.pop()

    async def restart(self, member: Member) -> None:
        """Start a killed worker or coordinator again and return when it serves."""
        await asyncio.to_thread(member.restart)
        if member in self._deployment.workers:
            await asyncio.to_thread(self._deployment.wait_for_worker, member)
        else:
            deadline = asyncio.get_running_loop().time() + CALL_S
            await asyncio.to_thread(member.wait_until_ready, deadline)

    async def leader(self) -> Member:
        """Return the coordinator that leads, once one does.

        Raises:
            TimeoutError: nobody was elected.
        """
        async with asyncio.timeout(CALL_S):
            while True:
                try:
                    leader = (await self.client.cluster()).leader
                except TenureError:
                    leader = None
                for member in self.coordinators:
                    if member.id == leader and member.alive:
                        return member
                await asyncio.sleep(POLL_S)

    async def follower(self) -> Member:
        """Return a coordinator that does not lead."""
        leader = await self.leader()
        return next(member for member in self.coordinators if member is not leader)

    @contextlib.asynccontextmanager
    async def rest(self) -> AsyncIterator[tuple[EmbeddedPostgres, Path]]:
        """Stop the coordinators meanwhile: others have Postgres to themselves. Give it, and a folder for logs."""
        assert self._deployment.postgres is not None
        for member in self.coordinators:
            await asyncio.to_thread(member.stop)
        try:
            yield self._deployment.postgres, self.folder
        finally:
            for member in self.coordinators:
                await self.restart(member)

    async def meter(self) -> Meter:
        """Begin to measure the CPU of every process of the deployment."""
        leader = await self.leader()
        deployment = self._deployment
        assert deployment.postgres is not None and deployment.etcd is not None
        return Meter(
            {
                "postgres": (deployment.postgres.pid,),
                "etcd": (deployment.etcd.pid,),
                "coordinator, leads": (leader.pid,),
                "coordinator, follows": tuple(member.pid for member in self.coordinators if member is not leader),
                "workers": tuple(member.pid for member in self.workers),
            }
        )

    def client_of(self, *members: Member) -> AsyncClient:
        """Return a client that asks these coordinators, the first one first."""
        return AsyncClient([member.grpc for member in members], timeout_s=CALL_S)

    @contextlib.asynccontextmanager
    async def callers(self, count: int, *, apart: bool) -> AsyncIterator[list[AsyncClient]]:
        """Give the client of each of so many callers, connected: one for all of them, or each its own."""
        async with contextlib.AsyncExitStack() as stack:
            clients = [self.client] * count
            if apart:
                clients = [await stack.enter_async_context(self.client_of(*self.coordinators)) for _ in range(count)]
            for client in dict.fromkeys(clients):
                await client.cluster()
            yield clients

    async def versions(self) -> dict[str, str]:
        """Return the releases of the stores."""
        cluster = await self.client.cluster()
        return {"postgres": cluster.postgres_version, "etcd": cluster.etcd_version, "schema": cluster.schema_version}

    # -- jobs --

    async def submit_bulk(self, jobs: int, priority: int = 0) -> str:
        """Submit no-op jobs in batches, one after the other, and return the id of the last."""
        last = ""
        while jobs > 0:
            size = min(jobs, self.plan.batch_jobs)
            batch = [NewJob(kind=NOOP, route=POOL, priority=priority) for _ in range(size)]
            last = (await self.client.submit_many(batch))[-1].id
            jobs -= len(batch)
        return last

    async def hold(self, jobs: int, ttl_s: float, pool: str = POOL) -> int:
        """Submit jobs that hold their first attempt; return how many do, once all of them were begun.

        One that is lost while others are begun ends by its second attempt.
        """
        await self.hold_more(jobs, ttl_s, pool)
        await self.begun(HOLD, jobs)
        return await self.first_attempts(HOLD)

    async def hold_more(self, jobs: int, ttl_s: float, pool: str = POOL) -> None:
        """Submit jobs that hold their first attempt."""
        for start in range(0, jobs, self.plan.batch_jobs):
            size = min(self.plan.batch_jobs, jobs - start)
            await self.client.submit_many([NewJob(kind=HOLD, route=pool, ttl_s=ttl_s) for _ in range(size)])

    async def begun(self, kind: str, jobs: int) -> None:
        """Wait until so many jobs of a kind execute or have ended."""
        await self._until(ALL_BEGUN, {"jobs": jobs, "kind": kind})

    async def claims_of(self, kind: str) -> set[tuple[str, int, int]]:
        """Return the claims of a kind's jobs, each as it was made."""
        return {(each.job_id, each.lease, each.revision) for each in await self.client.claims() if each.kind == kind}

    async def restarted(self, jobs: int) -> Restarted:
        """Wait until held jobs have all been taken away and run again.

        Raises:
            BenchError: jobs were lost or failed.
        """
        await self._until(NOTHING_LEFT)
        finished, wrong, began_ns, lost_again = (await self.rows(RESTARTED))[0]
        if finished != jobs or wrong:
            raise BenchError(f"of {jobs} jobs {finished} finished, {wrong} of them not as they should")
        first, half, most, last = began_ns
        return Restarted(first, half, most, last, lost_again)

    async def erase_etcd(self) -> None:
        """Lose etcd whole, and return when an empty one answers."""
        etcd = self._deployment.etcd
        assert etcd is not None
        for step in (etcd.kill, etcd.erase, etcd.start):
            await asyncio.to_thread(step)

    async def count_statements(self) -> None:
        """Let Postgres count what its statements take, where it can; a restart of it and of the coordinators."""
        self._counts = bool(await self.rows("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'"))
        if not self._counts:
            return
        async with self.rest() as (postgres, _):
            await self.rows("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
            await self._database.close()
            await asyncio.to_thread(postgres.restart)
            await self._connect()
            await self.rows("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    async def forget_statements(self) -> None:
        """Count from zero."""
        if self._counts:
            await self.rows("SELECT pg_stat_statements_reset()")

    async def statements(self) -> list[tuple[str, int, float]]:
        """Return each statement since: the text, calls and milliseconds in the executor."""
        return [tuple(row) for row in await self.rows(STATEMENTS)] if self._counts else []

    async def clear(self) -> None:
        """Empty the tables of jobs."""
        await self.rows(CLEAR)

    async def now(self) -> Any:
        """Return Postgres' clock, by which jobs finish."""
        return (await self.rows("SELECT clock_timestamp()"))[0][0]

    async def drained(self, last: str, jobs: int, since: Any, *, beside: int = 0) -> Drained:
        """Wait until no job is left but those beside, the one submitted last being most likely the last; check them.

        Raises:
            BenchError: jobs were lost or failed.
            DeadlineExceeded: it takes too long.
        """
        await self.client.wait(last, PATIENCE_S)  # looking all the time would be among the costs
        await (self._until(ONLY_LEFT, {"jobs": beside}) if beside else self._until(NOTHING_LEFT))
        finished, failed, repeated, counted, seconds = (await self.rows(FINISHED, {"since": since}))[0]
        if finished != jobs or failed:
            raise BenchError(f"of {jobs} jobs {finished} finished, {failed} of them failed")
        return Drained(counted, seconds, repeated)

    async def all_ended_since(self, jobs: int, since: Any) -> float:
        """Wait until so many jobs have ended after an instant, whatever else is there; return within how many seconds.

        Raises:
            BenchError: some of them failed.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                count, failed, seconds = (await self.rows(ENDED_SINCE, {"since": since}))[0]
                if failed:
                    raise BenchError(f"{failed} jobs failed")
                if count >= jobs:
                    return float(seconds)
                await asyncio.sleep(LOOK_S)

    async def drained_first(self, last: str, jobs: int, priority: int, since: Any) -> tuple[int, float]:
        """Wait until the jobs of a priority are done; return how many of any ended since, by then, and in how long.

        Raises:
            DeadlineExceeded, TimeoutError: it takes too long, or some of them failed.
        """
        await self.client.wait(last, PATIENCE_S)
        await self._until(FIRST_FINISHED, {"priority": priority, "jobs": jobs})
        counted, seconds = (await self.rows(RATE_UNTIL_FIRST, {"since": since, "priority": priority}))[0]
        return counted, seconds

    async def fill(self, job: NewJob, jobs: int) -> None:
        """Have jobs that nobody submits one by one: copies, by SQL, of one that the service wrote."""
        first = (await self.client.submit_many([job]))[0].id
        for start in range(1, jobs, FILL_ROWS):
            await self.rows(FILL, {"id": first, "copies": min(FILL_ROWS, jobs - start)})

    async def settle(self) -> None:
        """Do what autovacuum and the checkpointer will have done by the time that there are many jobs."""
        await self.rows("VACUUM (ANALYZE) tenure.job")
        await self.rows("CHECKPOINT")

    async def stamps(self, jobs: int) -> dict[str, int]:
        """Wait until so many jobs have told when they began; return that by job."""
        await self._until(STAMPED, {"jobs": jobs, "kind": STAMP})
        return dict(await self.rows(STAMPS_OF, {"kind": STAMP}))

    async def ended_s(self, ids: Sequence[str], since: Any) -> float:
        """Wait until these have ended; return how many seconds after an instant the last one did."""
        jobs = {"ids": [UUID(each) for each in ids], "since": since}
        await self._until(ALL_ENDED, jobs)
        return float((await self.rows(LAST_END, jobs))[0][0])

    async def first_attempts(self, kind: str) -> int:
        """Return how many jobs of a kind execute for the first time."""
        return int((await self.rows(FIRST_ATTEMPTS, {"kind": kind}))[0][0])

    async def empty(self) -> None:
        """Wait until no job is left."""
        await self._until(NOTHING_LEFT)

    async def _until(self, query: LiteralString, values: dict[str, Any] | None = None) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if (await self.rows(query, values))[0][0]:
                    return
                await asyncio.sleep(POLL_S)

    async def rows(self, query: LiteralString, values: dict[str, Any] | None = None) -> list[Any]:
        """Return what a query gives."""
        async with asyncio.timeout(CALL_S):
            cursor = await self._database.execute(query, values)
            return await cursor.fetchall() if cursor.description else []


def say(text: str) -> None:
    """Tell a person what goes on, on stderr."""
    print(text, file=sys.stderr, flush=True)
