"""How coordinators are called: in the open or over TLS, alike for clients, workers and coordinators among themselves.

Owns what TLS needs (paths of PEM files) and the credentials that were read from them. Invariant: files that are renewed
on disk are read again once a call has failed, so that nobody has to be restarted for a certificate. Who calls keeps the
channels; which coordinator to ask is not said here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from tenure.model.errors import ConfigurationError
from tenure.model.listen import is_loopback

log = logging.getLogger(__name__)  # not structlog: a client lives in processes of others

Options = Sequence[tuple[str, Any]]
File = str | os.PathLike[str]
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "": False, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to speak TLS to coordinators: paths of PEM files; a certificate of our own makes it mutual."""

    ca_file: File | None = None
    """None: the roots that gRPC brings."""
    cert_file: File | None = None
    key_file: File | None = None
    server_name: str | None = None
    """The name in the coordinator's certificate, where it differs from the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            ConfigurationError: a file cannot be read, or only one of certificate and key is given.
        """
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigurationError("TLS needs both a client certificate and its key, or neither")
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what changes when a file is renewed."""
        return tuple(_stamp(file) for file in (self.ca_file, self.cert_file, self.key_file) if file is not None)


def tls_of(
    *, tls: bool, ca_file: File | None, cert_file: File | None, key_file: File | None, server_name: str | None
) -> TLS | None:
    """Choose: TLS where it is asked for or a CA is named, else none.

    Raises:
        ConfigurationError: a client certificate without TLS: it would silently not be shown.
    """
    if tls or ca_file:
        return TLS(ca_file=ca_file, cert_file=cert_file, key_file=key_file, server_name=server_name)
    if cert_file or key_file:
        raise ConfigurationError(
            "TENURE_TLS_CLIENT_CERT and TENURE_TLS_CLIENT_KEY are shown over TLS only",
            hint="set TENURE_TLS_CA, or TENURE_TLS=true",
        )
    return None


def tls_from_environment() -> TLS | None:
    """Read TENURE_TLS, TENURE_TLS_CA, TENURE_TLS_CLIENT_CERT, TENURE_TLS_CLIENT_KEY and TENURE_TLS_SERVER_NAME.

    Raises:
        ConfigurationError: as ``tls_of``; TENURE_TLS is neither true nor false.
    """
    word = os.environ.get("TENURE_TLS", "").strip().lower()
    if word not in _WORDS:
        raise ConfigurationError(f"TENURE_TLS is refused: {word[:100]!r} is neither true nor false")
    return tls_of(
        tls=_WORDS[word],
        ca_file=os.environ.get("TENURE_TLS_CA") or None,
        cert_file=os.environ.get("TENURE_TLS_CLIENT_CERT") or None,
        key_file=os.environ.get("TENURE_TLS_CLIENT_KEY") or None,
        server_name=os.environ.get("TENURE_TLS_SERVER_NAME") or None,
    )


class Dialer:
    """Opens channels to coordinators, all alike."""

    def __init__(self, tls: TLS | None) -> None:
        """Read the files. Raises ``ConfigurationError`` as ``TLS.credentials``."""
        self._tls = tls
        self._stamp = tls.stamp() if tls else ()
        self._credentials = tls.credentials() if tls else None

    def channel(self, address: str, options: Options = ()) -> grpc.aio.Channel:
        """Open a channel; it connects by itself when it is used."""
        if self._tls is None or self._credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        if self._tls.server_name:
            options = (*options, ("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(address, self._credentials, options=options)

    def reread(self) -> bool:
        """Read the files again if they changed; call it after a failure.

        True: channels of before speak with what is old, and are worth opening anew. Files that cannot be read now
        leave everything as it is.
        """
        if self._tls is None or (stamp := self._tls.stamp()) == self._stamp:
            return False
        try:
            self._credentials = self._tls.credentials()
        except ConfigurationError as exc:
            log.warning("tls_files_unreadable: %s", exc.message)
            return False
        self._stamp = stamp
        return True


def warn_of_token_in_the_open(has_token: bool, addresses: Sequence[str], tls: TLS | None) -> None:
    """Log a warning where a token would cross a network that anybody may listen to."""
    if has_token and tls is None and (far := [address for address in addresses if not is_loopback(address)]):
        log.warning("token_in_the_open: a token is sent without TLS to %s; set TENURE_TLS_CA", ", ".join(far))


def _read(path: File | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigurationError(f"cannot read the TLS file {path}: {exc.strerror}") from exc


def _stamp(path: File) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
