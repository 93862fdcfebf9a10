"""What a caller shows: a bearer token as metadata of its calls, given as text or kept in a file.

The file is read again when it has changed, so that a token is replaced without a restart; while it cannot be read, the
last token goes on. Called by clients and workers; without a token it costs a call nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress

from tenure.model.errors import ConfigurationError
from tenure.v1.secret_file import read_secret

TOKEN_VARIABLE = "TENURE_TOKEN"
TOKEN_FILE_VARIABLE = "TENURE_TOKEN_FILE"
Metadata = tuple[tuple[str, str], ...]


class Bearer:
    """A token, or none. Its repr does not show it."""

    def __init__(self, token: str | None = None, *, file: str | os.PathLike[str] | None = None) -> None:
        """Take a token, or else read it from the file; with neither nothing is shown.

        Raises:
            ConfigurationError: the file cannot be read, or is no token.
        """
        self._file = None if token else file
        self._seen: tuple[int, int, int] | None = None
        self._metadata: Metadata = ()
        if token:
            self._metadata = _metadata(token, TOKEN_VARIABLE)
        elif self._file is not None:
            self._refresh(self._file)

    @classmethod
    def given(cls, token: str | None = None) -> Bearer:
        """Return what was given, or else what the environment says.

        Raises:
            ConfigurationError: as the constructor.
        """
        if token is None:
            token = os.environ.get(TOKEN_VARIABLE)
        return cls(token, file=os.environ.get(TOKEN_FILE_VARIABLE) or None)

    def metadata(self) -> Metadata:
        """Return what to send with a call."""
        if self._file is not None:
            with suppress(ConfigurationError):  # it is being replaced
                self._refresh(self._file)
        return self._metadata

    def _refresh(self, file: str | os.PathLike[str]) -> None:
        seen = _stamp(file)
        if seen is None or seen != self._seen:
            self._metadata = _metadata(read_secret(file, TOKEN_FILE_VARIABLE), f"{TOKEN_FILE_VARIABLE}: {file}")
            self._seen = seen


def _stamp(file: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _metadata(token: str, where: str) -> Metadata:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigurationError(f"{where} holds no token")  # and not what it holds
    return (("authorization", f"Bearer {token}"),)
