"""A secret that is kept in a file, as mounted by Kubernetes or written by an agent: one rule for how it is read.

Lies this low because clients read tokens by it, and whoever reads passwords does (``store.secrets``). Invariant: what is
wrong with a file is told by its path and never by its content.
"""

from __future__ import annotations

import os

from tenure.model.errors import ConfigurationError

MAX_BYTES = 65_536


def read_secret(path: str | os.PathLike[str], named_by: str) -> str:
    """Return what a file holds, without the line's end that editors leave.

    Raises:
        ConfigurationError: it cannot be read, is empty, or is no text of reasonable size.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{named_by}: {path} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{named_by}: {path} is longer than {MAX_BYTES} bytes")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{named_by}: {path} is no text in UTF-8") from None  # the cause holds the content
    if not text.strip():
        raise ConfigurationError(f"{named_by}: {path} is empty")
    return text
