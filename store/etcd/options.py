"""What a connection to etcd is made of. Pure data; read by ``connect`` and by both transports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tenure.model.clock import Clock, SystemClock
from tenure.model.errors import ConfigurationError

GRPC_SCHEMES = {"grpc": False, "grpcs": True}
HTTP_SCHEMES = {"http": False, "https": True}
DEFAULT_PORT = 2379


@dataclass(frozen=True, slots=True)
class Address:
    """Where one member listens."""

    host: str
    port: int
    tls: bool

    @property
    def target(self) -> str:
        """``host:port``, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """How to reach etcd. All endpoints speak the same protocol; a list may hold several members of one cluster."""

    endpoints: tuple[str, ...]
    ca_file: Path | None = None
    """CA certificates in PEM; the system's if None (TLS schemes only)."""
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0
    """How long a call may take in all when it names no timeout, failover included."""
    clock: Clock = field(default_factory=SystemClock, repr=False)

    def addresses(self) -> tuple[bool, tuple[Address, ...]]:
        """Return whether to speak gRPC (else the JSON gateway) and the members' addresses.

        Raises:
            ConfigurationError: no endpoint, an unknown scheme, no host, or schemes that cannot be mixed; a client
                certificate without its key; a TLS file that is not there.
        """
        if not self.endpoints:
            raise ConfigurationError("no etcd endpoint is given", hint="for example grpc://127.0.0.1:2379")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigurationError("a client certificate for etcd needs its key, and a key its certificate")
        for file in (self.ca_file, self.cert_file, self.key_file):
            if file is not None and not file.is_file():
                raise ConfigurationError(f"the TLS file {file} for etcd is not there")
        parsed = [_parse(endpoint) for endpoint in self.endpoints]
        if len({scheme for scheme, _ in parsed}) > 1:
            raise ConfigurationError("etcd endpoints of one cluster must all have the same scheme")
        return parsed[0][0] in GRPC_SCHEMES, tuple(address for _, address in parsed)


def _parse(endpoint: str) -> tuple[str, Address]:
    parts = urlsplit(endpoint if "://" in endpoint else f"grpc://{endpoint}")
    tls = {**GRPC_SCHEMES, **HTTP_SCHEMES}.get(parts.scheme)
    if tls is None:
        raise ConfigurationError(
            f"etcd endpoint scheme {parts.scheme!r} is unknown", hint="use grpc://, grpcs://, http:// or https://"
        )
    if parts.username or parts.password:
        raise ConfigurationError("user and password of etcd do not belong into the endpoint's URL")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError as exc:
        raise ConfigurationError(f"etcd endpoint {endpoint!r} has no valid port") from exc
    if not parts.hostname:
        raise ConfigurationError(f"etcd endpoint {endpoint!r} has no host")
    return parts.scheme, Address(parts.hostname, port, tls)
