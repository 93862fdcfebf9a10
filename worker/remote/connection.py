"""The remote connection: HTTPS to coordinators, and nothing else."""

from __future__ import annotations

import ssl
from importlib.metadata import version

from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.worker.connection import Bodies, Connection
from tenure.worker.control import Control
from tenure.worker.registration import Registration
from tenure.worker.remote.api import Api
from tenure.worker.remote.leases import RemoteLeases, RemoteSessions
from tenure.worker.remote.link import RemoteLink
from tenure.worker.settings import WorkerSettings, bearer_of, files_of


def connect_remotely(settings: WorkerSettings, value: WorkerValue, control: Control, clock: Clock) -> Connection:
    """Build the connection of a runner."""
    api = Api(
        settings.runner_url,
        clock,
        bearer=bearer_of(settings),
        tls=_tls(settings),
        agent=f"tenure-runner/{version('tenure')}",
    )
    leases = RemoteLeases(api)
    sessions = RemoteSessions(api, leases)
    keeper = LeaseKeeper(leases, clock)
    registration = Registration(sessions, clock, keeper, settings.worker_id, value, settings.session_ttl_s)
    files = files_of(settings)
    link = RemoteLink(
        api,
        sessions,
        leases,
        keeper,
        clock,
        room=control.room,
        stop=control.stop,
        touch=registration.touch,
        files=files,
    )

    def lifelines() -> Bodies:
        return {}

    async def close() -> None:
        files.close()
        await api.close()

    return Connection(keeper, registration, link, lifelines, close)


def _tls(settings: WorkerSettings) -> ssl.SSLContext:
    """Return what says whom to trust, and who this is.

    Raises:
        ConfigurationError: a file cannot be used; it is named.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if settings.tls_ca:
            context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_client_cert:
            context.load_cert_chain(settings.tls_client_cert, settings.tls_client_key, password="")
    except OSError as exc:
        named = [str(file) for file in (settings.tls_ca, settings.tls_client_cert, settings.tls_client_key) if file]
        raise ConfigurationError(f"the TLS files cannot be used: {exc}", hint=f"look at {', '.join(named)}") from exc
    return context
