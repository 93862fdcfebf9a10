"""Sessions: the lease by which a worker is there, and its key on it. For workers, and on behalf of runners.

A session that expired is opened anew; claims have leases of their own and do not depend on it. Only the inbox hangs on
it: offers to a worker that vanished vanish with it.
"""

from __future__ import annotations

from tenure.store.etcd.keyspace import Keyspace, WorkerValue
from tenure.store.etcd.port import Delete, Etcd, Grant, Put, Txn


class Sessions:
    """Opens, changes and ends sessions of workers."""

    def __init__(self, etcd: Etcd, keys: Keyspace) -> None:
        self._etcd = etcd
        self._keys = keys

    async def open(self, worker: str, value: WorkerValue, ttl_s: float) -> Grant:
        """Grant a session's lease, and show the worker on it; of a session that was not shown the lease expires."""
        grant = await self._etcd.grant(ttl_s)
        # A put over the key of an older session, of a process of this name that died, would keep its create revision:
        # by that the reaper knows which claims are older than the session.
        await self._etcd.txn(Txn((), (Delete(self._keys.worker(worker)),)))
        await self.change(worker, value, grant.lease, ttl_s)
        return grant

    async def change(self, worker: str, value: WorkerValue, lease: int, ttl_s: float) -> None:
        """Show what changed of a worker.

        Raises:
            Refused: the lease is gone; nothing is put that would not hang on it.
        """
        await self._etcd.txn(Txn((), (Put(self._keys.worker(worker), value.to_json(), lease),)))

    async def stands(self, worker: str, lease: int) -> bool:
        """Say whether a worker's key is there, on this lease."""
        found = await self._etcd.get(self._keys.worker(worker))
        return found is not None and found.lease == lease

    async def end(self, lease: int) -> None:
        """End a session: the key, and offers still in the inbox, go at once."""
        await self._etcd.revoke(lease)
