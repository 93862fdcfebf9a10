"""What connects a worker: its link, its session and its leases, whichever way they go (direct or remote)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from tenure.store.etcd.leases import LeaseKeeper
from tenure.v1.dial import TLS, tls_of
from tenure.worker.link import Link
from tenure.worker.registration import Registration
from tenure.worker.settings import WorkerSettings

Bodies = Mapping[str, Coroutine[Any, Any, None]]
"""Bodies of tasks, by name."""


class ConnectedLink(Link, Protocol):
    """A link, as the process that runs it sees it."""

    @property
    def claims(self) -> int:
        """How many claims are held, or may be."""
        ...

    def bodies(self) -> Bodies:
        """Return what must run for attempts to come in."""
        ...

    async def close(self) -> bool:
        """Let go of every claim; return whether there was none."""
        ...


class Connection(NamedTuple):
    """Built, and not running."""

    keeper: LeaseKeeper
    registration: Registration
    link: ConnectedLink
    lifelines: Callable[[], Bodies]
    """What must run as long as anything is held or unreported, besides keeper and registration."""
    problem: Callable[[], str | None]
    """Says why coordinators would start nothing for this worker, besides what registration tells; None if they do."""
    close: Callable[[], Awaitable[None]]


def tls_to_coordinators(settings: WorkerSettings) -> TLS | None:
    """Return how coordinators are to be called; None: in the open, or as the address has it.

    Raises:
        ConfigurationError: a client certificate without TLS.
    """
    return tls_of(
        tls=settings.tls,
        ca_file=settings.tls_ca,
        cert_file=settings.tls_client_cert,
        key_file=settings.tls_client_key,
        server_name=settings.tls_server_name,
    )
