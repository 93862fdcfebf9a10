"""gRPC's errors to tenure's, translated once, here. Called by ``client.link`` only.

Invariant: no ``grpc.RpcError`` leaves the client, and an INVALID_ARGUMENT keeps every field that the service named.
"""

from __future__ import annotations

import grpc

from tenure.model.errors import (
    BY_GRPC_STATUS,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    OwnershipLost,
    TenureError,
    Unavailable,
)
from tenure.v1 import job_service_pb2, wire


class UnknownCall(TenureError):
    """The coordinator is of a release that does not have this call."""


RETRYABLE = (Unavailable, DeadlineExceeded, OwnershipLost)
"""What may be sent again as it was: UNAVAILABLE, and DEADLINE_EXCEEDED and ABORTED, since each request of the
client is idempotent (reads, keyed submits, cancel)."""


_NOT_SENT = "Internal error from Core"
"""What grpcio itself says of a stream whose connection broke under a message; no server says it."""


def translate(error: grpc.aio.AioRpcError, address: str) -> TenureError:
    """Return the error that a failed call to a coordinator stands for."""
    code, details = error.code(), error.details() or ""
    violations, hint = wire.details_of(error)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(violations or [FieldViolation("request", details or "is malformed")], hint=hint)
    broke_while_sending = code is grpc.StatusCode.INTERNAL and details == _NOT_SENT
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or broke_while_sending:
        # CANCELLED from outside: the coordinator or the connection went away. Our own cancel is CancelledError.
        return Unavailable(
            f"no coordinator answers at {address}: {_first_line(details)}",
            hint=_next_step(details),
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            f"the coordinator at {address} did not answer in time", hint="ask again; tenure doctor says what is wrong"
        )
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        hint = hint or "is TENURE_TOKEN set, and valid for this?"
        return BY_GRPC_STATUS[code.name](f"refused by {address}: {details}", hint=hint)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return UnknownCall(
            f"the coordinator at {address} does not know this call", hint="do the versions fit? see `tenure cluster`"
        )
    return BY_GRPC_STATUS.get(code.name, TenureError)(details or code.name, hint=hint)


def refused(refusal: job_service_pb2.JobRefusal) -> TenureError:
    """Return the error that one of several jobs was refused with."""
    hint = refusal.hint or None
    if refusal.fields:
        return InvalidInput([FieldViolation(one.field, one.description) for one in refusal.fields], hint=hint)
    return BY_GRPC_STATUS.get(refusal.status, TenureError)(refusal.message, hint=hint)


def _next_step(details: str) -> str:
    """Say what to look at, by the words in which gRPC tells why a connection failed."""
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate is of another authority than TENURE_TLS_CA names, or is out of date"
    if "Hostname Verification" in details:
        return "its certificate has another name than this address: call it by that, or set TENURE_TLS_SERVER_NAME"
    if "WRONG_VERSION_NUMBER" in details:
        return "does it speak TLS? if not, leave TENURE_TLS and TENURE_TLS_CA out"
    if "Socket closed" in details:
        return "does it speak TLS? then set TENURE_TLS_CA; and TENURE_TLS_CLIENT_CERT if it demands a certificate"
    return "is it running? see --coordinator or TENURE_COORDINATOR; `tenure up` starts everything"


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else "connection lost"
