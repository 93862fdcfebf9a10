"""The members of a cluster: which one to ask, who leads, and the token that proves who we are.

Invariant: all callers share one choice of member; whoever sees it fail moves everybody on. ``call`` decides what
may be sent twice: reads and what does no harm twice goes to every member until the time is over, a write only
if it certainly was not done. Used by the client, the KeepAlives and the watches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.errors import Unavailable
from tenure.store.etcd.faults import Fault, Known
from tenure.store.etcd.member import AUTHENTICATE, STATUS, CallFailed, Member, Method
from tenure.store.etcd.options import EtcdOptions

log = structlog.get_logger(__name__)

STATUS_TIMEOUT_S = 0.5
RETRY_S = 0.02
MAX_RETRY_S = 0.25
FIRST_TRY_S = 0.5
"""Far longer than a cluster that is well takes."""
MAX_TOKENS = 2
"""How often one call may find its token too old."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """The member that leads and the raft term in which it says so; term 0 if it is only the next best."""

    member: Member
    raft_term: int


class Members:
    """All members. They are opened on first use, inside the running event loop."""

    def __init__(self, open_members: Callable[[], Sequence[Member]], count: int, options: EtcdOptions) -> None:
        self._open_members = open_members
        self._count = count
        self._user = options.user
        self._password = options.password or ""
        self._timeout_s = options.timeout_s
        self._clock = options.clock
        self._opened: Sequence[Member] = ()
        self._at = 0
        self._token: str | None = None
        self._authenticating = asyncio.Lock()
        self.closed = False

    def __len__(self) -> int:
        return self._count

    @property
    def current(self) -> Member:
        """The member to ask now. Raises ``Unavailable`` after ``close``."""
        return self._all()[self._at]

    def _all(self) -> Sequence[Member]:
        if not self._opened:
            if self.closed:
                raise Unavailable("the connection to etcd is closed")
            self._opened = self._open_members()
        return self._opened

    def failed(self, member: Member) -> None:
        """Move on from a member that is not well, unless somebody has done so already."""
        if len(self._opened) > 1 and self._opened[self._at] is member:
            self._at = (self._at + 1) % len(self._opened)
            log.debug("etcd_member_changed", failed=member.name, now=self._opened[self._at].name)

    def blame(self, fault: Fault, member: Member) -> None:
        """Move on if a fault speaks against the member rather than the request."""
        if fault.known in (Known.NOT_DONE, Known.UNKNOWN):
            self.failed(member)

    async def call(self, method: Method, request: Any, *, timeout_s: float | None, repeatable: bool = True) -> Any:
        """Send a request until it is answered, refused, or the time is over.

        Raises:
            Unavailable: no answer in time.
            TenureError: as etcd refused it (see ``port``).
        """
        budget_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = self._clock.monotonic() + budget_s
        left_s, tries, tokens, silent = budget_s, 0, 0, 0
        while True:
            member = self.current
            token = self._token if self._user is None or self._token else await self.token()
            try_s = self._try_s(left_s, tries, silent) if repeatable else left_s
            try:
                return await member.call(method, request, timeout_s=try_s, token=token)
            except CallFailed as exc:
                failure = exc
            fault = failure.fault
            self.blame(fault, member)
            if fault.known is Known.FINAL or (fault.known is Known.UNKNOWN and not repeatable):
                raise fault.error from failure
            tries += 1
            silent += fault.known is Known.UNKNOWN
            if fault.known is Known.TOKEN:
                tokens += 1
                if tokens > MAX_TOKENS:
                    raise fault.error from failure
                await self.renew_token(token)
            elif tries >= self._count:
                await self._clock.sleep(_pause_s(tries - self._count))
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                raise fault.error from failure

    def _try_s(self, left_s: float, tries: int, silent: int) -> float:
        """Return how long one try of a call may take that may be made elsewhere.

        One member that hangs must not use up the time: each of those not tried has its share of it. And while the
        leader is dead and nobody has noticed (1 to 2 s by etcd's defaults) its followers send it what they are asked,
        and answer with their own timeout of 7 s: so tries are short. They grow, for a cluster that is merely slow.
        """
        if self._count == 1:
            return left_s
        return min(left_s / max(self._count - tries, 1), FIRST_TRY_S * float(2 ** (silent // 2)))

    async def token(self) -> str | None:
        """Return the token to send, None without a user. Raises as ``renew_token``."""
        if self._user is not None and self._token is None:
            await self.renew_token(None)
        return self._token

    async def renew_token(self, old: str | None) -> None:
        """Get a new token, unless somebody replaced ``old`` while this waited.

        Raises:
            ConfigurationError: the user or the password is wrong.
            Unavailable: nobody answered.
        """
        async with self._authenticating:
            if self._user is None or self._token != old:
                return
            request = rpc.AuthenticateRequest(name=self._user, password=self._password)
            for left in reversed(range(self._count)):
                member = self.current
                try:
                    answer = await member.call(AUTHENTICATE, request, timeout_s=self._timeout_s, token=None)
                    break
                except CallFailed as exc:
                    self.blame(exc.fault, member)
                    if exc.fault.known is Known.FINAL or not left:
                        raise exc.fault.error from exc
            self._token = answer.token

    async def leadership(self) -> Leadership:
        """Ask every member who leads, all at once; the first that says "I do" with the highest raft term seen counts.

        The leader found becomes the current member, which saves calls the hop through a follower.
        """
        members = self._all()
        if len(members) == 1:
            return Leadership(members[0], 0)
        waiting = {asyncio.ensure_future(self._status(member)): index for index, member in enumerate(members)}
        highest = 0
        best: Leadership | None = None
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    index, status = waiting.pop(task), task.result()
                    if status is None or status.raft_term < highest:
                        continue
                    highest = status.raft_term
                    if status.leader == status.header.member_id:
                        best = Leadership(members[index], highest)
                        self._at = index
                if best is not None and best.raft_term == highest:
                    return best
        finally:
            for task in waiting:
                task.cancel()
        return best or Leadership(self.current, 0)

    async def _status(self, member: Member) -> rpc.StatusResponse | None:
        try:
            answer: rpc.StatusResponse = await member.call(
                STATUS, rpc.StatusRequest(), timeout_s=STATUS_TIMEOUT_S, token=self._token
            )
        except CallFailed:
            return None
        return answer

    async def close(self) -> None:
        """Close every member; calls and streams under way end."""
        self.closed = True
        opened, self._opened = self._opened, ()
        for member in opened:
            await member.close()


def _pause_s(round_: int) -> float:
    return min(RETRY_S * float(2 ** min(round_, 8)), MAX_RETRY_S) * random.uniform(0.5, 1.0)
