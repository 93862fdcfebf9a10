"""What a caller shows: a bearer token as metadata of its calls, given as text or kept in a file.

The file is read again when it has changed, so that a token is replaced without a restart; while it cannot be read, the
last token goes on. Called by clients and workers; without a token it costs a call nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress

from tenure.model.errors import ConfigurationError

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
        try:
            if token:
                self._metadata = _metadata(token)
            elif self._file is not None:
                self._refresh(self._file)
        except (OSError, ValueError) as exc:
            where = TOKEN_VARIABLE if token else f"{TOKEN_FILE_VARIABLE}, {file}"
            raise ConfigurationError(f"cannot read the token of {where}: {_words(exc)}") from exc

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
            with suppress(OSError, ValueError):  # it is being replaced
                self._refresh(self._file)
        return self._metadata

    def _refresh(self, file: str | os.PathLike[str]) -> None:
        found = os.stat(file)
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen != self._seen:
            with open(file, encoding="ascii") as opened:
                self._metadata = _metadata(opened.read().strip())
            self._seen = seen


def _words(exc: OSError | ValueError) -> str:
    """Say what is wrong, without what was read."""
    return exc.strerror or "it cannot be read" if isinstance(exc, OSError) else "it is no token"


def _metadata(token: str) -> Metadata:
    if not token or not token.isascii() or not token.isprintable():
        raise ValueError("it is no token")
    return (("authorization", f"Bearer {token}"),)
