"""Cancel: at once where nobody executes the job, by asking its worker where somebody does.

The final state is decided by whoever writes it: an attempt that completes before it notices has completed.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.dependants import Dependants
from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.model.reap import Executing
from tenure.model.states import JobState
from tenure.store.etcd.keyspace import CancelRequest, Keyspace
from tenure.store.etcd.port import Compare, Etcd, Field, KeyValue, Put, Txn
from tenure.store.postgres.database import Database, Row, Statement

_TRIES = 10
KEYS_PER_TXN = 64
REMIND_AGAIN_S = 10.0


class Canceler:
    """Cancels jobs for operators and submitters."""

    def __init__(
        self, database: Database, etcd: Etcd, keys: Keyspace, clock: Clock, announcer: Announcer, dependants: Dependants
    ) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._announcer = announcer
        self._dependants = dependants

    async def cancel(self, job_id: uuid.UUID, reason: str) -> None:
        """Cancel a job, or ask its worker to stop it; a finished job stays as it is.

        Raises:
            Unavailable: try again; nothing is lost by asking twice.
        """
        for _ in range(_TRIES):
            canceled, settled = await self._database.transaction(
                [
                    Statement("cancel_idle", {"ids": [job_id], "reason": reason or "canceled"}),
                    Statement("settle_parents", {"ids": [job_id]}),
                ]
            )
            if canceled:
                await self.tell(canceled, settled, (), reason)
                return
            asked = await self._database.fetch("request_cancel", {"ids": [job_id], "reason": reason or "canceled"})
            for row in asked:
                await self._ask(row, reason)
            if asked or await self._database.fetch("states_by_id", {"ids": [job_id]}):
                return
            # Neither idle, executing nor finished: it moved between the statements.
        raise Unavailable("the job kept moving between its states", hint="cancel again")

    async def tell(self, canceled: Sequence[Row], settled: Sequence[Row], asked: Sequence[Row], reason: str) -> None:
        """Tell of what a transaction has canceled or asked to stop: the rows of its statements.

        Raises:
            Unavailable: some were not told; sweeps make it good.
        """
        if canceled:
            await self._announcer.announce([Ended(str(row.id), JobState.CANCELED, row.attempt) for row in canceled])
        await self._dependants.follow(settled)
        for row in asked:
            await self._ask(row, reason)

    async def _ask(self, row: Row, reason: str) -> None:
        """Put a cancel request into the worker's inbox; a worker that is away is reminded of it by the sweep."""
        session = await self._etcd.get(self._keys.worker(row.worker))
        if session is not None:
            request = CancelRequest(job=str(row.id), fence=row.fence, reason=reason)
            await put_requests(self._etcd, self._keys, session, row.worker, [request])


class Reminder:
    """Reminds workers of cancels that they have not seen: their session had ended, or the one who asked died.

    For the leader's sweep; each attempt is mentioned once per session of its worker, and again after a while: a worker
    throws away what concerns an attempt whose start it has not heard of yet.
    """

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock) -> None:
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._reminded: dict[int, tuple[int, float]] = {}
        """Fence to the session's lease, and the instant from which on it may be mentioned again."""

    async def remind(self, executing: Iterable[Executing]) -> None:
        """Ask again for the attempts, of all that execute, whose cancel is requested."""
        wanted: dict[str, list[Executing]] = defaultdict(list)
        for row in executing:
            if row.cancel_requested:
                wanted[row.worker].append(row)
        still = {row.fence for rows in wanted.values() for row in rows}
        now = self._clock.monotonic()
        self._reminded = {
            fence: (lease, until) for fence, (lease, until) in self._reminded.items() if fence in still and until > now
        }
        for worker, rows in wanted.items():
            session = await self._etcd.get(self._keys.worker(worker))
            if session is None:
                continue
            new = [row for row in rows if self._reminded.get(row.fence, (0, 0.0))[0] != session.lease]
            requests = [CancelRequest(job=str(row.id), fence=row.fence) for row in new]
            await put_requests(self._etcd, self._keys, session, worker, requests)
            self._reminded.update((row.fence, (session.lease, now + REMIND_AGAIN_S)) for row in new)


async def put_requests(
    etcd: Etcd, keys: Keyspace, session: KeyValue, worker: str, requests: Sequence[CancelRequest]
) -> None:
    """Put cancel requests into a worker's inbox, on its session's lease.

    Raises:
        Unavailable: etcd did not answer, or the session ended meanwhile.
    """
    for start in range(0, len(requests), KEYS_PER_TXN):
        puts = tuple(
            # A fence is never given twice.
            Put(keys.message(worker, request.fence), request.to_json(), session.lease)
            for request in requests[start : start + KEYS_PER_TXN]
        )
        result = await etcd.txn(Txn((Compare(session.key, Field.CREATE, session.create_revision),), puts))
        if not result.succeeded:
            raise Unavailable("the worker's session changed meanwhile", hint="cancel again")
