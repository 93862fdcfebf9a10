"""What ``tenure doctor`` says about certificates: those that servers show, and those in the files that are set.

A certificate is read, not trusted: whether it is signed by the right one is for the connections themselves to say.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tenure.cli.findings import Finding, Level

WARN_DAYS = 30
FAIL_DAYS = 3
ASK_S = 3.0
FILES = (
    "TENURE_TLS_CERT", "TENURE_TLS_CA", "TENURE_TLS_CLIENT_CERT", "TENURE_TLS_CLIENT_CA",
    "TENURE_ETCD_CA", "TENURE_ETCD_CERT", "TENURE_OIDC_CA",
)  # fmt: skip
"""Variables that name files with certificates."""
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a client of Postgres sends to ask for TLS."""
STEP = "issue it anew, and put it in the place of the old one (docs/TLS.md says who reads files again by themselves)"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate and the days for which it is valid."""

    where: str
    name: str
    begins_at: datetime
    ends_at: datetime


def judge(found: Iterable[Certificate], now: datetime) -> Iterator[Finding]:
    """Say which certificates have ended or soon will."""
    why = "when it has run out, nobody who checks it connects any more: claims end, and nothing is submitted"
    for one in found:
        left = one.ends_at - now
        told = f"{one.where}: {one.name} is valid until {one.ends_at:%Y-%m-%d %H:%M} UTC"
        if one.begins_at > now:
            yield Finding(
                Level.FAIL, "certificates", f"{one.where}: {one.name} is valid only from {one.begins_at:%Y-%m-%d} on",
                "is this machine's clock right? else issue it anew", why, "certificates",
            )  # fmt: skip
        elif left.total_seconds() <= 0:
            yield Finding(Level.FAIL, "certificates", f"{told}: it has run out", STEP, why, "certificates")
        elif left.days < WARN_DAYS:
            level = Level.FAIL if left.days < FAIL_DAYS else Level.WARN
            yield Finding(level, "certificates", f"{told}: {left.days} days", STEP, why, "certificates")
        else:
            yield Finding(Level.OK, "certificates", f"{told}: {left.days} days", check="certificates")


def in_files(environment: Mapping[str, str]) -> Iterator[Certificate | Finding]:
    """Yield the certificates of the files that the environment names; a finding for one that cannot be read."""
    for variable in FILES:
        path = environment.get(variable)
        if not path:
            continue
        try:
            data = Path(path).read_bytes()
            certificates = parsed(data, f"{variable} ({path})")
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            yield Finding(
                Level.FAIL, "certificates", f"{variable}: {path} cannot be read: {reason}",
                "correct the path, or who may read it", "whoever needs it does not start", "certificates",
            )  # fmt: skip
            continue
        # One of a bundle of authorities may have ended long ago, and nobody uses it.
        yield from _lasting(certificates) if variable.endswith("_CA") else certificates


def _lasting(bundle: list[Certificate]) -> list[Certificate]:
    """Return the authority of a bundle that lasts longest: while it is valid, the file is of use."""
    return [max(bundle, key=lambda one: one.ends_at)]


def parsed(data: bytes, where: str) -> list[Certificate]:
    """Read certificates in PEM or one in DER.

    Raises:
        ValueError: there is none.
    """
    from cryptography import x509

    found = x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
    return [
        Certificate(
            where, one.subject.rfc4514_string() or "(no name)", one.not_valid_before_utc, one.not_valid_after_utc
        )
        for one in found
    ]


def shown_by(host: str, port: int, where: str, *, is_postgres: bool = False) -> list[Certificate]:
    """Return the certificate that a server shows. Blocks.

    Raises:
        OSError: it cannot be reached, or speaks no TLS.
        ValueError: what it shows cannot be read.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is read here, not trusted: no data is sent
    with socket.create_connection((host, port), timeout=ASK_S) as plain:
        if is_postgres:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                return []
        with context.wrap_socket(plain, server_hostname=host) as secured:
            data = secured.getpeercert(binary_form=True)
    return parsed(data, where) if data else []
