"""The errors of tenure: one root, a class only where a caller acts differently, one table to the outside.

Outcomes that belong to the protocol (a claim not won, a finish refused) are values, not errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class TenureError(Exception):
    """Root of every error that tenure raises on purpose. The class attributes are the one mapping to the outside."""

    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    hint: str | None = None
    """The next step for a person, where one is known."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: ``field`` is its path (``jobs[3].route``), ``description`` says what is wrong and allowed."""

    field: str
    description: str


class InvalidInput(TenureError):
    """The request is malformed; nothing was written. Carries every violation found, not the first alone."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400
    exit_code = 2

    def __init__(self, violations: Sequence[FieldViolation], *, hint: str | None = None) -> None:
        self.violations = tuple(violations)
        text = "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        super().__init__(text or "invalid input", hint=hint)


class NotFound(TenureError):
    """What was named does not exist (or is not visible to the caller)."""

    grpc_status = "NOT_FOUND"
    http_status = 404
    exit_code = 3


class Unauthenticated(TenureError):
    """Who calls did not say, or did not show, who they are."""

    grpc_status = "UNAUTHENTICATED"
    http_status = 401
    exit_code = 8


class PermissionDenied(TenureError):
    """Who calls may not do this."""

    grpc_status = "PERMISSION_DENIED"
    http_status = 403
    exit_code = 8
    is_noted = False
    """It is in the audit log already."""


class Conflict(TenureError):
    """The same idempotency key came with another request, or the thing exists already."""

    grpc_status = "ALREADY_EXISTS"
    http_status = 409
    exit_code = 4


class WrongState(TenureError):
    """The job is in a state from which this cannot be done."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409
    exit_code = 4


class OwnershipLost(TenureError):
    """A write carried an old fence: the attempt is no longer its worker's, and nothing was changed."""

    grpc_status = "ABORTED"
    http_status = 409
    exit_code = 4


class Deposed(TenureError):
    """The leader's term is over: another leads, or the stores are not those with which the term began."""


class BoundExceeded(TenureError):
    """A bound of the service (backlog, rate, size) is reached; trying later may help."""

    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429
    exit_code = 5


class NamespaceFull(BoundExceeded):
    """A namespace's own bound. A repeated submit of a job that is there is still answered."""


class BacklogFull(NamespaceFull):
    """The namespace has as many unfinished jobs as it may."""


class SchedulesFull(NamespaceFull):
    """The namespace has as many schedules as it may."""


class SubmitRateExceeded(NamespaceFull):
    """The namespace submits faster than it may. ``retry_after_s`` says when it fits; None: as it is it never does."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(TenureError):
    """A store or a peer cannot be reached now; the same request may be sent again."""

    grpc_status = "UNAVAILABLE"
    http_status = 503
    exit_code = 6


class Locked(Unavailable):
    """Somebody else holds a row that the write needs, for longer than it waits. Nothing was written."""


class ParentGone(Unavailable):
    """A job that was to be waited for was removed since the request was planned. Nothing was written."""


class TookTooLong(Unavailable):
    """Postgres gave a statement up, since it took longer than it may. Less at once may do. Nothing was written."""


class DeadlineExceeded(TenureError):
    """The caller's deadline passed before an answer; the outcome may be unknown."""

    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504
    exit_code = 7


class ConfigurationError(TenureError):
    """A setting is missing or unsafe; the process refuses to start and says which arithmetic failed."""

    exit_code = 78


BY_GRPC_STATUS: dict[str, type[TenureError]] = {
    cls.grpc_status: cls
    for cls in (
        NotFound,
        Unauthenticated,
        PermissionDenied,
        Conflict,
        WrongState,
        OwnershipLost,
        BoundExceeded,
        Unavailable,
        DeadlineExceeded,
    )
}
"""For clients: the error that a gRPC status stands for (INVALID_ARGUMENT is built from its details instead)."""
