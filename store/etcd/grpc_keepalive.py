"""KeepAlives over bidirectional streams to etcd's leader.

Owns: the streams. Invariant: an answer is counted for the request that it answers, so that ``sent_at`` is never too
late (a late answer to an earlier request would stretch the trust in a lease). A stream is therefore used for one
batch at a time, read to the last answer, and thrown away if any is missing.

A follower forwards KeepAlives one by one (10 ms each); so streams go to the leader, and the raft term in every answer
tells when to look for a new one. Deliberately without a policy: ``leases.LeaseKeeper`` decides when to renew what.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.store.etcd.faults import Known
from tenure.store.etcd.grpc_endpoints import Endpoint, Endpoints, Metadata
from tenure.store.etcd.port import Renewal

WINDOW = 256
"""KeepAlives sent before the answers are read: far below what HTTP/2's flow control lets wait on either side."""
RETRY_S = 0.05


@dataclass(slots=True)
class _Stream:
    endpoint: Endpoint
    call: Any
    metadata: Metadata
    raft_term: int
    """In which the endpoint was the leader; 0: not known, find out after this batch (or the only endpoint)."""


class _Ended(Exception):
    """The member ended the stream without an error."""


class KeepAliveStreams:
    """Renews leases, one stream per concurrent batch."""

    def __init__(self, endpoints: Endpoints, clock: Clock) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._idle: list[_Stream] = []

    async def renew(self, leases: Sequence[int], timeout_s: float) -> list[Renewal]:
        """Send one KeepAlive per lease; repeat the unanswered ones elsewhere until the time is over.

        Raises:
            ConfigurationError: the user or the password is wrong.
        """
        pending = dict.fromkeys(leases)
        answers: list[Renewal] = []
        try:
            async with asyncio.timeout(timeout_s):
                while pending:
                    await self._attempt(pending, answers)
        except (TimeoutError, Unavailable):
            pass  # what has no answer is missing from the list
        return answers

    async def _attempt(self, pending: dict[int, None], answers: list[Renewal]) -> None:
        stream = self._idle.pop() if self._idle else await self._open()
        complete = False
        try:
            current = await self._exchange(stream, pending, answers)
            complete = True
        except _Ended:
            self._endpoints.failed(stream.endpoint)
        except grpc.aio.AioRpcError as exc:
            found = self._endpoints.translate(exc, stream.endpoint)
            if found.known is Known.TOKEN:
                await self._endpoints.authenticate(stream.metadata)
            elif found.known is Known.FINAL:
                raise found.error from exc
        finally:
            # Also when cancelled: unread answers must not be taken for those of a later batch.
            if complete and current:
                self._idle.append(stream)
            else:
                stream.call.cancel()
        if not complete:
            await self._clock.sleep(RETRY_S * random.uniform(0.5, 1.5))

    async def _open(self) -> _Stream:
        metadata = await self._endpoints.authenticated()
        leadership = await self._endpoints.leadership()
        # Without the demand for a leader: a stream is cheap to try, and a follower that forwards is better than none.
        call = leadership.endpoint.keep_alive(metadata=metadata)
        return _Stream(leadership.endpoint, call, metadata, leadership.raft_term)

    async def _exchange(self, stream: _Stream, pending: dict[int, None], answers: list[Renewal]) -> bool:
        """Renew all that is pending; return whether the stream is still one to the leader."""
        now = self._clock.monotonic
        write, read = stream.call.write, stream.call.read
        raft_term = stream.raft_term
        todo = list(pending)
        for start in range(0, len(todo), WINDOW):
            window = todo[start : start + WINDOW]
            sent: dict[int, float] = {}
            for lease in window:
                sent[lease] = now()
                await write(rpc.LeaseKeepAliveRequest(id=lease))
            for _ in window:
                answer = await read()
                if answer is grpc.aio.EOF:
                    raise _Ended
                answers.append(Renewal(answer.id, float(max(answer.ttl, 0)), sent[answer.id]))
                pending.pop(answer.id, None)
                raft_term = answer.header.raft_term
        return len(self._endpoints) == 1 or raft_term == stream.raft_term

    async def close(self) -> None:
        """End the streams."""
        idle, self._idle = self._idle, []
        for stream in idle:
            stream.call.cancel()
