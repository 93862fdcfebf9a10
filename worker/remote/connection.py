"""The remote connection: HTTPS to coordinators, and nothing else."""

from __future__ import annotations

from importlib.metadata import version

from tenure.model.clock import Clock
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.v1.dial import TLS
from tenure.worker.connection import Bodies, Connection, tls_to_coordinators
from tenure.worker.control import Control
from tenure.worker.metrics import Renewals
from tenure.worker.registration import Registration
from tenure.worker.remote.api import Api
from tenure.worker.remote.leases import RemoteLeases, RemoteSessions
from tenure.worker.remote.link import RemoteLink
from tenure.worker.remote.tls import RunnerTLS
from tenure.worker.settings import WorkerSettings, bearer_of, files_of


def connect_remotely(settings: WorkerSettings, value: WorkerValue, control: Control, clock: Clock) -> Connection:
    """Build the connection of a runner."""
    api = Api(
        settings.runner_url,
        clock,
        bearer=bearer_of(settings),
        tls=RunnerTLS(tls_to_coordinators(settings) or TLS(server_name=settings.tls_server_name)),
        agent=f"tenure-runner/{version('tenure')}",
    )
    leases = RemoteLeases(api)
    sessions = RemoteSessions(api, leases)
    keeper = LeaseKeeper(leases, clock, Renewals())
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

    # Coordinators open its session: whom they refuse is not registered.
    return Connection(keeper, registration, link, lifelines, lambda: None, close)
