"""The asyncio client of the coordinators: their calls, which ``client.calls`` holds, over one link.

``client.sync_client`` is generated from this class and from those that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tenure.client.calls.archive import ArchiveCalls
from tenure.client.calls.artifacts import ArtifactCalls
from tenure.client.calls.audit import AuditCalls
from tenure.client.calls.cluster import ClusterCalls
from tenure.client.calls.follow import FollowCalls
from tenure.client.calls.jobs import JobCalls
from tenure.client.calls.kinds import KindCalls
from tenure.client.calls.limits import LimitCalls
from tenure.client.calls.logs import LogCalls
from tenure.client.calls.namespaces import NamespaceCalls
from tenure.client.calls.pools import PoolCalls
from tenure.client.calls.retention import RetentionCalls
from tenure.client.calls.schedules import ScheduleCalls
from tenure.client.calls.submit import SubmitCalls
from tenure.client.calls.tokens import TokenCalls
from tenure.client.calls.workflows import WorkflowCalls
from tenure.client.gather import Gathering
from tenure.client.link import TLS, Link, addresses_of
from tenure.v1.bearer import Bearer
from tenure.v1.dial import tls_from_environment


class AsyncClient(
    SubmitCalls,
    FollowCalls,
    JobCalls,
    ArtifactCalls,
    WorkflowCalls,
    ScheduleCalls,
    LimitCalls,
    KindCalls,
    PoolCalls,
    NamespaceCalls,
    ClusterCalls,
    TokenCalls,
    AuditCalls,
    RetentionCalls,
    ArchiveCalls,
    LogCalls,
):
    """A client of the coordinators, for asyncio. Use it as ``async with`` or call ``close``; safe for many tasks.

    ::

        async with AsyncClient() as client:
            job = await client.submit("noop", {"n": 1})
            job = await client.wait(job.id, timeout_s=60)
            print(job.state)  # completed

    Ids are texts, durations seconds (``_s``), times ``datetime`` with a time zone. A request that gets no answer is
    sent again, to the next coordinator, for as long as ``timeout_s`` lets it; nothing is done twice for it. Beside what
    each call says, any may raise these, each a ``TenureError`` that may have a ``hint``:

    - ``Unavailable``, ``DeadlineExceeded``: no coordinator answered in time.
    - ``BoundExceeded``: the service is out of room, or too many requests wait. Later it may go.
    - ``Unauthenticated``: no token was shown, or it is not valid; ``PermissionDenied``: it is not for this.
    """

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        tls: TLS | None = None,
        timeout_s: float = 30.0,
        outage_s: float = 300.0,
    ) -> None:
        """Prepare a client; nothing is connected before the first call.

        ``address``: HOST:PORT, several comma-separated or listed: the next is asked when one does not answer.
        None reads TENURE_COORDINATOR, else 127.0.0.1:7070. ``token``: None reads TENURE_TOKEN, or
        the file that TENURE_TOKEN_FILE names, again whenever it has changed. ``tls``: None reads TENURE_TLS_CA and what
        belongs to it, else speaks without TLS. TENURE_OBJECT_STORE_CA names further authorities, for downloads.
        ``timeout_s``: the most that one call may take, its retries included. ``outage_s``: how long ``wait`` and
        ``watch`` bear with coordinators that answered before and do not now.

        Raises:
            InvalidInput: an address that is not HOST:PORT.
            ConfigurationError: a TLS file, or that of the token, that cannot be read, or TLS settings that do not go
                together.
        """
        bearer = Bearer.given(token)
        tls = tls if tls is not None else tls_from_environment()
        self._link = Link(addresses_of(address), bearer=bearer, tls=tls, timeout_s=timeout_s, outage_s=outage_s)
        self._gathering = Gathering(self._link)
        self._files = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._link.close()
        if self._files is not None:
            self._files.close()
