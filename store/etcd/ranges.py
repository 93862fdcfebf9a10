"""How etcd names a prefix: by the first key that lies behind it. Pure; used by both transports."""

from __future__ import annotations

FIRST_KEY = b"\0"
ALL_KEYS = b"\0"
"""As a range end: every key from the start on."""


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the start and the end (exclusive) of all keys that begin with a prefix; everything if it is empty."""
    start = prefix.encode()
    if not start:
        return FIRST_KEY, ALL_KEYS
    end = bytearray(start)
    while end and end[-1] == 0xFF:
        end.pop()
    if not end:
        return start, ALL_KEYS
    end[-1] += 1
    return start, bytes(end)


def after(key: bytes) -> bytes:
    """Return the smallest key greater than ``key``: where the next page begins."""
    return key + b"\0"
