"""KeepAlives, sent to etcd's leader over streams.

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

from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, Unavailable
from tenure.store.etcd.faults import Known
from tenure.store.etcd.member import CallFailed, KeepAliveStream, Member
from tenure.store.etcd.members import Members
from tenure.store.etcd.port import Renewal

WINDOW = 256
"""KeepAlives sent before the answers are read: far below what HTTP/2's flow control lets wait on either side."""
RETRY_S = 0.05


@dataclass(slots=True)
class _Open:
    member: Member
    stream: KeepAliveStream
    token: str | None
    raft_term: int
    """In which the member was the leader; 0: not known, look again after this batch (or the only member)."""


class KeepAlives:
    """Renews leases, one stream per concurrent batch."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self._idle: list[_Open] = []

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
        except (TimeoutError, Unavailable, BoundExceeded):
            pass  # what has no answer is missing from the list
        return answers

    async def _attempt(self, pending: dict[int, None], answers: list[Renewal]) -> None:
        opened = self._idle.pop() if self._idle else await self._open()
        complete = leads = False
        try:
            leads = await self._exchange(opened, pending, answers)
            complete = True
        except CallFailed as exc:
            if exc.fault.known is Known.TOKEN:
                await self._members.renew_token(opened.token)
            elif exc.fault.known is Known.FINAL:
                raise exc.fault.error from exc
        finally:
            # Also when the time is over: unread answers must not be taken for those of a later batch.
            if leads and not self._members.closed:
                self._idle.append(opened)
            else:
                opened.stream.close()
            if not complete:
                self._members.failed(opened.member)
        if not complete:
            await self._clock.sleep(RETRY_S * random.uniform(0.5, 1.5))

    async def _open(self) -> _Open:
        token = await self._members.token()
        leadership = await self._members.leadership()
        return _Open(leadership.member, leadership.member.keep_alive(token), token, leadership.raft_term)

    async def _exchange(self, opened: _Open, pending: dict[int, None], answers: list[Renewal]) -> bool:
        """Renew all that is pending; return whether the stream is still one to the leader."""
        now = self._clock.monotonic
        raft_term = opened.raft_term
        todo = list(pending)
        for start in range(0, len(todo), WINDOW):
            sent_at = now()
            async for answer in opened.stream.exchange(todo[start : start + WINDOW]):
                answers.append(Renewal(answer.id, float(max(answer.ttl, 0)), sent_at))
                pending.pop(answer.id, None)
                raft_term = answer.header.raft_term
        return len(self._members) == 1 or raft_term == opened.raft_term

    def close(self) -> None:
        """End the streams."""
        idle, self._idle = self._idle, []
        for opened in idle:
            opened.stream.close()
