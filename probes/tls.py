"""The certificate that a process shows to its callers, over HTTP and over gRPC, and how it is renewed.

Owns what was read from the files: one ``Loaded``, always whole. Invariants: a listener never has a certificate without
its key; files that are renewed on disk are taken up by the next handshake after ``watch`` saw them, and files that do
not go together change nothing. What may be done with a verified certificate is not said here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import grpc
import structlog

from tenure.model.errors import ConfigurationError

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""How often the files are looked at. Kubernetes takes a minute to show a renewed secret in a pod."""
READS = 3
"""How often files that change while they are read are read again at once."""

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Files that go together."""

    context: ssl.SSLContext
    configuration: grpc.ServerCertificateConfiguration


class ServerTLS:
    """TLS for listeners, 1.2 or later, from PEM files. Share one among all listeners of a process.

    A client certificate that is shown over HTTP has to be signed by ``client_ca_file``, and need not be shown there.
    gRPC demands one if ``require_client``, and asks for none otherwise: its Python library knows nothing in between.
    """

    def __init__(
        self, cert_file: Path, key_file: Path, *, client_ca_file: Path | None = None, require_client: bool = False
    ) -> None:
        """Read the files.

        Raises:
            ConfigurationError: a file cannot be read, or holds something else; it is named.
        """
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self._require_client = require_client and client_ca_file is not None
        self._stamp = self._look()
        self._loaded = self._load()
        self.context = self._front()
        """For listeners of HTTP; it does not change when the files do."""

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one port of a gRPC server; they follow the files."""
        told = self._loaded

        def renewed() -> Any:  # or None: the stubs do not know
            nonlocal told  # asked at every handshake, one at a time
            if told is self._loaded:
                return None
            told = self._loaded
            return told.configuration

        return grpc.dynamic_ssl_server_credentials(told.configuration, renewed, self._require_client)

    async def watch(self) -> None:
        """Take up what is renewed on disk, until cancelled: the body of a task."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.reread)

    def reread(self) -> None:
        """Read the files if they changed since; what does not go together is logged, and the old is kept."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._loaded = self._load()
        except ConfigurationError as exc:
            log.error("certificate_not_renewed", error=exc.message, file=str(self._cert_file))
            return
        log.info("certificate_renewed", file=str(self._cert_file))

    def _look(self) -> Stamp:
        return tuple(_stamp(file) for file in (self._cert_file, self._key_file, self._client_ca_file) if file)

    def _load(self) -> Loaded:
        for _ in range(READS):
            before = self._look()
            chain, key = _read(self._cert_file), _read(self._key_file)
            client_ca = _read(self._client_ca_file) if self._client_ca_file else None
            context = self._context()
            if self._look() == before:
                break
        return Loaded(context, grpc.ssl_server_certificate_configuration([(key, chain)], client_ca))

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # No session is taken up again: it would be without a look at certificates that were renewed since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password="")  # else it would ask the terminal
        except OSError as exc:
            raise ConfigurationError(
                f"the certificate {self._cert_file} and the key {self._key_file} cannot be used: {exc}",
                hint="both are PEM files, and the key is the certificate's and not encrypted",
            ) from exc
        if self._client_ca_file is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(self._client_ca_file)
            except OSError as exc:
                raise ConfigurationError(
                    f"the CA certificates {self._client_ca_file} cannot be used: {exc}", hint="it is a PEM file"
                ) from exc
        return context

    def _front(self) -> ssl.SSLContext:
        """Return a context that hands each handshake over to the one that is loaded then."""
        front = self._context()

        def hand_over(handshake: Any, name: str | None, context: ssl.SSLContext) -> None:
            handshake.context = self._loaded.context

        front.sni_callback = hand_over  # called without a name, too
        return front


def subjects(certificate: Mapping[str, Any] | None) -> Mapping[str, tuple[str, ...]]:
    """Say whose certificate it is, in the words of gRPC's ``auth_context``; nobody's if there is none.

    ``x509_subject`` (``CN=ada,O=x``), ``x509_common_name``, and ``x509_subject_alternative_name`` (DNS names, URIs,
    addresses, e-mail addresses). ``certificate`` is what ``ssl`` gives of one that it verified.
    """
    if not certificate:
        return {}
    relatives = certificate.get("subject", ())
    told = {
        "x509_subject": (",".join("+".join(starmap(_part, reversed(relative))) for relative in reversed(relatives)),),
        "x509_common_name": tuple(value for relative in relatives for name, value in relative if name == "commonName"),
        "x509_subject_alternative_name": tuple(value for _, value in certificate.get("subjectAltName", ())),
    }
    return {name: values for name, values in told.items() if any(values)}


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "userId": "UID",
}


def _part(name: str, value: str) -> str:
    """Write one part of a subject so that it cannot be taken for several: RFC 2253, section 2.4, as gRPC does."""
    text = "".join(f"\\{c}" if c in ',+"\\<>;' else _printable(c) for c in value)
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    if text.endswith(" ") and len(value) > 1:
        text = f"{text[:-1]}\\ "
    return f"{_SHORT.get(name, name)}={text}"


def _printable(c: str) -> str:
    return c if " " <= c <= "~" else "".join(f"\\{byte:02X}" for byte in c.encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"cannot read the TLS file {path}: {exc.strerror}") from exc


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_mtime_ns, status.st_ino, status.st_size
