"""How to get a connection to etcd: the transport is chosen by the endpoints' scheme.

``grpc://host:port`` and ``grpcs://`` (TLS) speak etcd's own API; ``http://`` and ``https://`` its JSON gateway, for
networks where only HTTP passes. Nothing is opened before the first call, so a connection can be made anywhere, but it
belongs to the event loop that first uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tenure.model.clock import Clock, SystemClock
from tenure.store.etcd import grpc_transport, http_transport
from tenure.store.etcd.client import EtcdClient
from tenure.store.etcd.member import Member
from tenure.store.etcd.members import Members
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.port import Etcd


def connect(
    endpoints: Sequence[str],
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    user: str | None = None,
    password: str | None = None,
    clock: Clock | None = None,
    timeout_s: float = 5.0,
) -> Etcd:
    """Return a connection to one etcd cluster.

    Raises:
        ConfigurationError: the endpoints or the TLS files do not go together.
    """
    options = EtcdOptions(
        endpoints=tuple(endpoints),
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        user=user,
        password=password,
        clock=clock or SystemClock(),
        timeout_s=timeout_s,
    )
    return connect_with(options)


def connect_with(options: EtcdOptions) -> Etcd:
    """Return a connection as the options say.

    Raises:
        ConfigurationError: the endpoints or the TLS files do not go together.
    """
    open_members, count = _opening(options)
    return EtcdClient(open_members, count, options)


def open_cluster(options: EtcdOptions) -> Members:
    """Return the members themselves, for calls that are not part of the port.

    Raises:
        ConfigurationError: the endpoints or the TLS files do not go together.
    """
    open_members, count = _opening(options)
    return Members(open_members, count, options)


def _opening(options: EtcdOptions) -> tuple[Callable[[], Sequence[Member]], int]:
    speaks_grpc, addresses = options.addresses()
    transport = grpc_transport if speaks_grpc else http_transport
    return lambda: transport.open_members(addresses, options), len(addresses)
