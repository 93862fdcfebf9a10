"""The direct connection: etcd for offers, claims and leases, gRPC to the coordinators that etcd lists."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from tenure.model.clock import Clock
from tenure.store.etcd.connect import connect_with
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.sessions import Sessions
from tenure.store.etcd.view import View
from tenure.worker.connection import Bodies, Connection, tls_to_coordinators
from tenure.worker.control import Control
from tenure.worker.coordinators import Coordinators
from tenure.worker.direct import DirectLink
from tenure.worker.introduction import Introduction
from tenure.worker.metrics import Renewals
from tenure.worker.registration import Registration
from tenure.worker.settings import WorkerSettings, bearer_of, files_of

log = structlog.get_logger(__name__)


def connect_directly(settings: WorkerSettings, value: WorkerValue, control: Control, clock: Clock) -> Connection:
    """Build the connection of a worker beside etcd."""
    etcd = connect_with(
        EtcdOptions(
            endpoints=settings.etcd_endpoints,
            user=settings.etcd_user,
            password=settings.etcd_password.get_secret_value() if settings.etcd_password else None,
            ca_file=settings.etcd_ca,
            cert_file=settings.etcd_cert,
            key_file=settings.etcd_key,
            timeout_s=settings.etcd_timeout_s,
            clock=clock,
        )
    )
    keys = Keyspace(settings.etcd_prefix)
    worker = settings.worker_id
    keeper = LeaseKeeper(etcd, clock, Renewals())
    seen = View(etcd, keys.coordinators, clock)
    coordinators = Coordinators(
        lambda: settings.coordinator or _addresses(seen),
        clock,
        tls=tls_to_coordinators(settings),
        bearer=bearer_of(settings),
    )
    introduction = Introduction(coordinators, clock, worker)
    registration = Registration(Sessions(etcd, keys), clock, keeper, worker, value, settings.session_ttl_s)
    files = files_of(settings)
    link = DirectLink(
        etcd,
        keys,
        clock,
        keeper,
        coordinators,
        worker,
        idle_leases=settings.capacity,
        room=control.room,
        stop=control.stop,
        touch=registration.touch,
        verify_s=settings.verify_s,
        files=files,
    )

    def lifelines() -> Bodies:
        return {"coordinators": seen.run(), "introduction": introduction.run()}

    async def close() -> None:
        files.close()
        await coordinators.close()
        await etcd.close()

    return Connection(keeper, registration, link, lifelines, introduction.problem, close)


def _addresses(seen: View) -> Sequence[str]:
    addresses = []
    for key, item in seen.items.items():
        try:
            addresses.append(CoordinatorValue.from_json(item.value).grpc)
        except ValueError as exc:
            log.warning("key_unreadable", key=key, error=str(exc))  # written by hand
    return addresses
