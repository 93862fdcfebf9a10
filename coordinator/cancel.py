"""Cancel: at once where nobody executes the job, by asking its worker where somebody does.

The final state is decided by whoever writes it: an attempt that completes before it notices has completed.
"""

from __future__ import annotations

import uuid

from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.dependants import Dependants
from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.model.states import JobState
from tenure.store.etcd.keyspace import CancelRequest, Keyspace
from tenure.store.etcd.port import Compare, Etcd, Field, Put, Txn
from tenure.store.postgres.database import Database, Row, Statement

_TRIES = 10


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
                await self._announcer.announce([Ended(str(row.id), JobState.CANCELED, row.attempt) for row in canceled])
                await self._dependants.follow(settled)
                return
            asked = await self._database.fetch("request_cancel", {"ids": [job_id], "reason": reason or "canceled"})
            for row in asked:
                await self._ask(row, reason)
            if asked or await self._database.fetch("states_by_id", {"ids": [job_id]}):
                return
            # Neither idle, executing nor finished: it moved between the statements.
        raise Unavailable("the job kept moving between its states", hint="cancel again")

    async def _ask(self, row: Row, reason: str) -> None:
        """Put a cancel request into the worker's inbox, on its session's lease; a dead worker needs none."""
        worker = await self._etcd.get(self._keys.worker(row.worker))
        if worker is None:
            return  # the reaper finds cancel_requested on the row
        key = self._keys.message(row.worker, row.fence)  # a fence is never given twice
        value = CancelRequest(job=str(row.id), fence=row.fence, reason=reason).to_json()
        result = await self._etcd.txn(
            Txn((Compare(worker.key, Field.CREATE, worker.create_revision),), (Put(key, value, worker.lease),))
        )
        if not result.succeeded:
            raise Unavailable("the worker's session changed meanwhile", hint="cancel again")
