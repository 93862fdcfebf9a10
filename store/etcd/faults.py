"""The one translation of etcd's errors, by gRPC status code and message, for both transports.

A fault says two things: the error that the caller will see, and what is known about the request, so that a
transport may try another endpoint without ever doing a write twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tenure.model.errors import BoundExceeded, ConfigurationError, TenureError, Unavailable
from tenure.store.etcd.port import Compacted, Refusal, Refused, TooLarge


class Known(Enum):
    """What a failure tells about the request."""

    FINAL = "refused for good; nothing was done"
    NOT_DONE = "certainly not done; may be sent elsewhere"
    UNKNOWN = "may have been done"
    TOKEN = "not done, the token is old: authenticate and send again"


class Code(Enum):
    """The gRPC status codes that matter here, as numbers (the gateway reports numbers)."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed call."""

    error: TenureError
    known: Known


_TOKEN_IS_OLD = ("invalid auth token", "revision of auth store is old")
_NOT_DONE = (
    "failed to connect to all addresses",
    "dns resolution failed",
    "connection refused",
    "no leader",
    "raft proposal dropped",  # by the member itself, while the leadership is handed over
)
_FINAL_CODES = {code.value for code in Code}


def fault(code: int, message: str, endpoint: str) -> Fault:
    """Classify a failure that an endpoint (or the library, on its behalf) reported."""
    text = message.lower()
    told = f"etcd {endpoint}: {message or f'status {code}'}"
    if any(mark in text for mark in _TOKEN_IS_OLD):
        return Fault(ConfigurationError(told), Known.TOKEN)
    if code not in _FINAL_CODES:
        known = Known.NOT_DONE if any(mark in text for mark in _NOT_DONE) else Known.UNKNOWN
        return Fault(Unavailable(told), known)
    if "too many requests" in text:
        return Fault(BoundExceeded(told), Known.NOT_DONE)
    return Fault(_final(code, text, told), Known.FINAL)


def _final(code: int, text: str, told: str) -> TenureError:
    if "has been compacted" in text:
        return Compacted(0)
    if "lease not found" in text:
        return Refused(Refusal.LEASE_GONE, told)
    if "duplicate key" in text:
        return Refused(Refusal.DUPLICATE_KEY, told)
    if "too many operations" in text or "request is too large" in text or "larger than max" in text:
        return TooLarge(told)
    if "space exceeded" in text:
        return BoundExceeded(told, hint="compact, defragment and disarm the NOSPACE alarm, or raise the quota")
    if code in (Code.PERMISSION_DENIED.value, Code.UNAUTHENTICATED.value) or any(
        mark in text for mark in ("user name is empty", "authentication", "auth ", "permission denied")
    ):
        return ConfigurationError(told, hint="check the user, password and role that tenure uses in etcd")
    return Refused(Refusal.OTHER, told)


def unreachable(message: str, endpoint: str, *, sent: bool) -> Fault:
    """Classify a failure of the connection itself."""
    return Fault(Unavailable(f"etcd {endpoint}: {message}"), Known.UNKNOWN if sent else Known.NOT_DONE)
