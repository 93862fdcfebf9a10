"""HTTPS to coordinators: whom a runner trusts, under which name, and what it shows; read again when files are renewed.

As ``v1.dial`` does it for gRPC. Invariant: a context is whole; files that do not go together change nothing. Who calls
keeps the connections, and asks here again after a call that failed.
"""

from __future__ import annotations

import ssl

import structlog

from tenure.model.errors import ConfigurationError
from tenure.v1.dial import TLS

log = structlog.get_logger(__name__)


class _Context(ssl.SSLContext):
    """Expects a name that is told, where there is one, in the place of the address'.

    Said with a request, httpx would lose it on the way through a proxy.
    """

    expected: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.expected or server_hostname, session)


class RunnerTLS:
    """What was read from the files; ``context`` is replaced, and never changed."""

    def __init__(self, tls: TLS) -> None:
        """Read the files.

        Raises:
            ConfigurationError: a file cannot be used; they are named.
        """
        self._tls = tls
        self._stamp = tls.stamp()
        self.context: ssl.SSLContext = _read(tls)

    def reread(self) -> bool:
        """Read the files again if they changed; call it after a failure.

        True: connections of before speak with what is old. Files that cannot be used now leave everything as it is.
        """
        if (stamp := self._tls.stamp()) == self._stamp:
            return False
        try:
            self.context = _read(self._tls)
        except ConfigurationError as exc:
            log.warning("tls_files_not_renewed", error=exc.message)
            return False
        self._stamp = stamp
        log.info("tls_files_renewed")
        return True


def _read(tls: TLS) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # verifies the authority, the dates and the name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.expected = tls.server_name
    try:
        if tls.ca_file:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # else it would ask the terminal
    except OSError as exc:
        named = [str(file) for file in (tls.ca_file, tls.cert_file, tls.key_file) if file]
        raise ConfigurationError(f"the TLS files cannot be used: {exc}", hint=f"look at {', '.join(named)}") from exc
    return context
