"""What a key may be: the same for every adapter, so that none leads out of its store, whatever is asked for.

Segments of letters, digits and ``. _ = -`` that begin with a letter, a digit or ``_``, with ``/`` between them.
"""

from __future__ import annotations

import re

from tenure.model.errors import FieldViolation, InvalidInput

SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,254}")
MAX_KEY_CHARS = 900
"""S3 takes 1,024 bytes with the store's own prefix."""


def checked(key: str) -> str:
    """Return a key as it is.

    Raises:
        InvalidInput: it is none.
    """
    if len(key) > MAX_KEY_CHARS or not all(map(SEGMENT.fullmatch, key.split("/"))):
        raise InvalidInput([FieldViolation("key", f"{key[:100]!r} names no object")])
    return key


def checked_prefix(prefix: str) -> str:
    """Return a prefix of keys as it is: empty, or whole segments with a ``/`` behind the last.

    Raises:
        InvalidInput: it is none.
    """
    if prefix and not prefix.endswith("/"):
        raise InvalidInput([FieldViolation("prefix", f"{prefix[:100]!r} does not end with a slash")])
    if prefix:
        checked(prefix[:-1])
    return prefix
