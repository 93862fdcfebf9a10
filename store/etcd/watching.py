"""One watch: a stream that is opened again, elsewhere if need be, from where it broke.

Invariant: every change after the start revision is yielded once, in order, or ``Compacted`` is raised. Faults of etcd
that this guards against: repeated events (dropped by revision), a silent stream (progress is asked for), a store that
went back in time (restored or wiped: reported as ``Compacted``, for the caller has to list again).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable

import structlog

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, ConfigurationError, Unavailable
from tenure.store.etcd.faults import Known
from tenure.store.etcd.member import RANGE, CallFailed, Member, WatchStream
from tenure.store.etcd.members import Members
from tenure.store.etcd.port import Compacted, Events
from tenure.store.etcd.protobuf_wire import event
from tenure.store.etcd.ranges import prefix_range

log = structlog.get_logger(__name__)

RETRY_S = 0.05
MAX_RETRY_S = 1.0
REQUEST_TIMEOUT_S = 5.0


class _Broken(Exception):
    """This stream is of no more use; open another."""


class _Reopen(Exception):
    """Nothing is wrong as far as is known: open another stream, on the same member, to be sure."""


class Watch:
    """The state of one watch over its streams. ``run`` is the async generator that the port promises."""

    def __init__(
        self,
        members: Members,
        clock: Clock,
        prefix: str,
        start_revision: int,
        *,
        previous: bool,
        progress: bool,
        deletions: bool,
        on_broken: Callable[[str], None] | None = None,
    ) -> None:
        self._members = members
        self._clock = clock
        self._prefix = prefix
        self._next = start_revision
        """The first revision not yet yielded; 0 until the first stream is established."""
        self._previous = previous
        self._progress = progress
        self._filters = () if deletions else (rpc.WatchCreateRequest.NODELETE,)
        self._on_broken = on_broken
        self._noticed = 0
        """Revision of the last progress notice."""
        self._established = False
        self._cluster_id = 0
        self._refused = False

    async def run(self) -> AsyncGenerator[Events, None]:
        """Yield changes until the connection is closed.

        Raises:
            Compacted: the next revision is forgotten.
            ConfigurationError: reading the prefix is not allowed.
        """
        failures = 0
        while not self._members.closed:
            member: Member | None = None
            stream: WatchStream | None = None
            reading: asyncio.Task[rpc.WatchResponse | None] | None = None
            try:
                token = await self._members.token()
                member = self._members.current
                stream = member.watch(token)
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await stream.open(self._request())
                asked = False
                while True:
                    reading = reading or asyncio.ensure_future(stream.read())
                    done, _ = await asyncio.wait((reading,), timeout=stream.quiet_s)
                    if not done:
                        await self._ask(stream, asked)
                        asked = True
                        continue
                    answer, reading, asked = reading.result(), None, False
                    events = await self._take(answer, member, token)
                    failures = 0
                    if events is not None:
                        yield events
            except _Reopen:
                continue
            except (_Broken, TimeoutError, Unavailable, BoundExceeded) as exc:
                reason = str(exc)
                if member is not None:
                    self._members.failed(member)
            except CallFailed as exc:
                reason = str(exc)
                await self._failed(exc, member, token)
            finally:
                if reading is not None:
                    reading.cancel()
                if stream is not None:
                    stream.close()
            log.debug("etcd_watch_broken", prefix=self._prefix, reason=reason)
            if self._on_broken is not None:
                self._on_broken(reason)
            failures += 1
            pause_s = min(RETRY_S * 2 ** min(failures, 8), MAX_RETRY_S)
            await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))

    def _request(self) -> rpc.WatchCreateRequest:
        start, end = prefix_range(self._prefix)
        return rpc.WatchCreateRequest(
            key=start, range_end=end, start_revision=self._next, prev_kv=self._previous, filters=self._filters
        )

    async def _ask(self, stream: WatchStream, asked: bool) -> None:
        if asked:
            raise _Broken("silent")
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            if not await stream.ask():
                raise _Reopen

    async def _take(self, answer: rpc.WatchResponse | None, member: Member, token: str | None) -> Events | None:
        if answer is None:
            raise _Broken("ended by the member")
        if answer.canceled:
            await self._canceled(answer, token)
        if answer.created:
            return await self._created(answer, member, token)
        if not answer.events:
            return self._notice(answer.header.revision)
        self._refused = False
        # Some versions repeat events after a reconnect (etcd PR 15274): what was yielded once is dropped.
        fresh = tuple(map(event, answer.events))
        if fresh[0].item.mod_revision < self._next:
            fresh = tuple([one for one in fresh if one.item.mod_revision >= self._next])
        if not fresh:
            return None
        self._next = fresh[-1].item.mod_revision + 1
        return Events(fresh, self._next - 1)

    async def _created(self, answer: rpc.WatchResponse, member: Member, token: str | None) -> Events | None:
        revision = answer.header.revision
        if self._cluster_id not in (0, answer.header.cluster_id):
            raise Compacted(revision)
        self._cluster_id = answer.header.cluster_id
        self._refused = False
        if self._next == 0:
            self._next = revision + 1
        elif revision < self._next - 1:
            await self._check_not_rewound(member, token)
        if self._established and not self._progress:
            return None
        self._established = True
        return Events((), self._next - 1)

    async def _check_not_rewound(self, member: Member, token: str | None) -> None:
        # A member that lags is behind us too: only a linearizable read tells the two apart.
        start, _ = prefix_range(self._prefix)
        request = rpc.RangeRequest(key=start, count_only=True)
        answer = await member.call(RANGE, request, timeout_s=REQUEST_TIMEOUT_S, token=token)
        if answer.header.revision < self._next - 1:
            raise Compacted(answer.header.revision)

    def _notice(self, revision: int) -> Events | None:
        # Before 3.4.25 and 3.5.8 a notice may overtake events (etcd #15220): believed when the next one comes.
        believed, self._noticed = self._noticed, revision
        self._next = max(self._next, min(believed, revision) + 1)
        return Events((), self._next - 1) if self._progress else None

    async def _canceled(self, answer: rpc.WatchResponse, token: str | None) -> None:
        if answer.compact_revision:
            raise Compacted(answer.compact_revision)
        reason = answer.cancel_reason
        if "permission denied" in reason or "auth" in reason:
            # A member says this also when the token is old: try once with a new one.
            if self._refused:
                raise ConfigurationError(f"etcd refuses to watch {self._prefix}: {reason}")
            self._refused = True
            await self._members.renew_token(token)
        raise _Broken(reason)

    async def _failed(self, exc: CallFailed, member: Member | None, token: str | None) -> None:
        if exc.fault.known is Known.TOKEN:
            with contextlib.suppress(Unavailable, BoundExceeded):  # the next stream is refused, and this tried again
                await self._members.renew_token(token)
        elif exc.fault.known is Known.FINAL:
            raise exc.fault.error from exc
        elif member is not None:
            self._members.failed(member)
