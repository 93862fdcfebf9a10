"""Sees what the stores saw: every claim that came and went in etcd, every start and every end in Postgres.

Invariants: claims are watched from the first revision, over reconnects, without gap; where a compaction hid some, the
rest is recorded as of another cluster (``Claim.cluster``), so that nothing is judged across the gap, and the gap is
counted. Starts are noted by a trigger, in the transaction that makes them, apart from tenure's own record. Sits with
the runner, whom no fault cuts off.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import psycopg
from tests.chaos.history import Active, Attempt, Claim, Recorder, Start, Terminal, Unclaim

from tenure.model.errors import TenureError
from tenure.store.etcd.keyspace import ClaimValue, Keyspace
from tenure.store.etcd.port import Compacted, Etcd, Event, EventKind, KeyValue


class ClaimWatcher:
    """Writes down every claim. ``run`` is the body of a task."""

    def __init__(self, etcd: Etcd, keys: Keyspace, recorder: Recorder) -> None:
        self.gaps = 0
        self.claims = 0
        self.taken_from: Counter[str] = Counter()
        """Worker to how many jobs that it had claimed another claimed after it."""
        self._etcd = etcd
        self._keys = keys
        self._recorder = recorder
        self._standing: dict[str, int] = {}
        """Job to the create revision of its claim."""
        self._holders: dict[str, str] = {}
        """Job to the worker that claimed it last."""

    @property
    def standing(self) -> int:
        """How many claims stand now."""
        return len(self._standing)

    async def run(self) -> None:
        """Watch until cancelled."""
        start = 1
        while True:
            try:
                async for events in self._etcd.watch(self._keys.claims, start_revision=start, previous=True):
                    for event in events.events:
                        self._take(event)
            except Compacted:
                start = await self._begin_anew()

    async def _begin_anew(self) -> int:
        """Record what stands now as the beginning of another cluster; return the revision to go on from."""
        while True:
            try:
                listing = await self._etcd.list(self._keys.claims)
                break
            except TenureError:
                await asyncio.sleep(0.5)
        self.gaps += 1
        self._standing.clear()
        for item in listing.items:
            self._claimed(item)
        return listing.revision + 1

    def _take(self, event: Event) -> None:
        if event.kind is EventKind.PUT:
            self._claimed(event.item)
            return
        job = self._keys.last(event.item.key)
        # What a compaction took from the event is known from the put.
        created = event.previous.create_revision if event.previous is not None else self._standing.get(job, 0)
        self._standing.pop(job, None)
        self._recorder.write(
            Unclaim(at=time.monotonic(), job=job, created=created, revision=event.item.mod_revision, cluster=self.gaps)
        )

    def _claimed(self, item: KeyValue) -> None:
        job = self._keys.last(item.key)
        value = ClaimValue.from_json(item.value)
        self._standing[job] = item.create_revision
        self.claims += 1
        before = self._holders.get(job, value.worker)
        if before != value.worker:
            self.taken_from[before] += 1
        self._holders[job] = value.worker
        self._recorder.write(
            # By the revision of the change: a claim that is written over has another than that of its creation.
            Claim(
                at=time.monotonic(),
                job=job,
                worker=value.worker,
                revision=item.mod_revision,
                lease=item.lease,
                cluster=self.gaps,
            )
        )


async def note_starts(dsn: str) -> None:
    """Have Postgres note every start by itself."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(_TRIGGER)


async def active(dsn: str) -> int:
    """Return how many jobs have not ended.

    Raises:
        psycopg.OperationalError: Postgres does not answer.
    """
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute("SELECT count(*) FROM tenure.job")).fetchone()
    assert row is not None
    return int(row[0])


async def rest(dsn: str) -> list[str]:
    """Return the jobs that have not ended, as JSON, for people."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute("SELECT row_to_json(j)::text FROM tenure.job j ORDER BY id")).fetchall()
    return [text for (text,) in rows]


async def read_postgres(dsn: str, recorder: Recorder) -> int:
    """Write down what Postgres remembers at the end; return how many jobs that is."""
    now = time.monotonic()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        started = await (await connection.execute(_STARTED)).fetchall()
        attempts = await (await connection.execute(_ATTEMPTS)).fetchall()
        ended = await (await connection.execute(_ENDED)).fetchall()
        remaining = await (await connection.execute(_ACTIVE)).fetchall()
    for job, attempt, fence, worker, at in started:
        recorder.write(Start(at=now, job=job, attempt=attempt, fence=fence, worker=worker, started_at=at))
    for job, attempt, fence, outcome in attempts:
        recorder.write(Attempt(at=now, job=job, attempt=attempt, fence=fence, outcome=outcome))
    for job, state, fence, at, result, key in ended:
        row = Terminal(at=now, job=job, state=state, fence=fence, finished_at=at, result=result, key=key)
        recorder.write(row)
    for job, state, key in remaining:
        recorder.write(Active(at=now, job=job, state=state, key=key))
    return len(ended) + len(remaining)


_TRIGGER = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.started (
    job_id uuid NOT NULL, attempt integer NOT NULL, fence bigint NOT NULL, worker text NOT NULL,
    started_at timestamptz NOT NULL
);
CREATE FUNCTION chaos.note_start() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.started VALUES (NEW.id, NEW.attempt, NEW.fence, NEW.worker, NEW.started_at);
    RETURN NULL;
END $$;
CREATE TRIGGER note_start AFTER UPDATE ON tenure.job FOR EACH ROW
    WHEN (NEW.fence IS NOT NULL AND NEW.fence IS DISTINCT FROM OLD.fence) EXECUTE FUNCTION chaos.note_start();
"""
_STARTED = "SELECT job_id::text, attempt, fence, worker, extract(epoch FROM started_at)::float8 FROM chaos.started"
_ATTEMPTS = "SELECT job_id::text, attempt, fence, outcome FROM tenure.attempt"
# Children's keys are their parent's own: named here as the handler that submitted them names them.
_ENDED = """
SELECT id::text, state, fence, extract(epoch FROM finished_at)::float8, coalesce(result #>> '{}', ''),
       coalesce(parent_id::text || '/' || idempotency_key, idempotency_key, '')
FROM tenure.history
"""
_ACTIVE = """
SELECT id::text, state, coalesce(parent_id::text || '/' || idempotency_key, idempotency_key, '') FROM tenure.job
"""
