"""What the settings say to the libraries beneath, and where others find this coordinator. Nothing is connected here."""

from __future__ import annotations

import socket

import structlog

from tenure.coordinator.api.call_bounds import CallBounds
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.clock import Clock
from tenure.probes.tls import ServerTLS
from tenure.store.etcd.options import EtcdOptions
from tenure.store.postgres.database import PoolOptions
from tenure.v1.dial import TLS, tls_of

log = structlog.get_logger(__name__)


def own_tls(settings: CoordinatorSettings) -> ServerTLS | None:
    """Return the certificate to show, or None: it is served in the open.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    if settings.tls_client_ca and not settings.tls_client_required:
        log.warning("grpc_asks_for_no_client_certificates", hint="set TENURE_TLS_CLIENT_REQUIRED=true for mutual TLS")
    return ServerTLS(
        settings.tls_cert,
        settings.tls_key,
        client_ca_file=settings.tls_client_ca,
        require_client=settings.tls_client_required,
    )


def tls_to_others(settings: CoordinatorSettings) -> TLS | None:
    """Return how to speak TLS to other coordinators, or None."""
    return tls_of(
        tls=settings.tls or settings.tls_cert is not None,  # they are configured as this one is
        ca_file=settings.tls_ca,
        cert_file=settings.tls_client_cert,
        key_file=settings.tls_client_key,
        server_name=settings.tls_server_name,
    )


def etcd_options(settings: CoordinatorSettings, clock: Clock) -> EtcdOptions:
    """Return how to connect to etcd."""
    return EtcdOptions(
        endpoints=settings.etcd_endpoints,
        ca_file=settings.etcd_ca,
        cert_file=settings.etcd_cert,
        key_file=settings.etcd_key,
        user=settings.etcd_user,
        password=settings.etcd_password.get_secret_value() if settings.etcd_password else None,
        timeout_s=settings.etcd_timeout_s,
        clock=clock,
    )


def pool_options(settings: CoordinatorSettings) -> PoolOptions:
    """Return the bounds of the pool of connections to Postgres."""
    return PoolOptions(
        min_size=settings.postgres_pool_min,
        max_size=settings.postgres_pool_max,
        wait_s=settings.postgres_wait_s,
        statement_timeout_s=settings.statement_timeout_s,
        lock_timeout_s=settings.lock_timeout_s,
    )


def call_bounds(settings: CoordinatorSettings) -> CallBounds:
    """Return how many calls are served at once."""
    return CallBounds(
        calls=settings.max_calls, watches=settings.max_watches, submit_streams=settings.max_submit_streams
    )


def advertised(address: str) -> str:
    """Return where others reach what listens at ``address``: this host's own address in the place of all (0.0.0.0)."""
    host, _, port = address.rpartition(":")
    if host not in ("", "0.0.0.0", "[::]"):
        return address
    name = socket.gethostname()
    try:
        own = socket.gethostbyname(name)  # a container's address, by its own hosts file
    except OSError:
        return f"{name}:{port}"
    return f"{name if own.startswith('127.') else own}:{port}"


def base_url(settings: CoordinatorSettings, http_address: str) -> str:
    """Return the URL under which others reach a coordinator's HTTP."""
    if settings.http_advertise:
        return settings.http_advertise.rstrip("/")
    return f"{'https' if settings.tls_cert else 'http'}://{advertised(http_address)}"
