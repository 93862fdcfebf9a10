"""From what a handler did to how its attempt ended: the same rules for every mode, in the worker and in its children.

Pure. Invariant: whatever a handler returns or raises gives exactly one ``Ended``, bounded in size.
A handler that returns has completed, also when it had been told to stop: its work is done, and the fence decides
whether it counts. One that raises after being told to stop ended for that cause.
"""

from __future__ import annotations

import traceback
from typing import Any

import pydantic_core
from pydantic import ValidationError

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import OwnershipLost
from tenure.model.states import Outcome
from tenure.model.wording import sentence
from tenure.worker.execute.call import Ended, ErrorReport, ParkRequest, StopCause
from tenure.worker.handler import Fail, Handler, Park, Reschedule

_BY_CAUSE = {
    StopCause.CANCELED: Outcome.CANCELED,
    StopCause.LOST: Outcome.RELEASED,
    StopCause.TIMED_OUT: Outcome.TIMED_OUT,
    StopCause.RELEASED: Outcome.RELEASED,
}
_NOTHING = Ended(Outcome.COMPLETED, "null")
_MAX_TYPE_CHARS = 128
_MAX_BASES = 16


class InvalidPayload(Exception):
    """The payload does not fit the handler's type; every bad field is named."""


def returned(value: Any) -> Ended:
    """Judge what a handler returned."""
    if value is None:
        return _NOTHING
    if isinstance(value, Reschedule | Fail | Park):
        return _asked(value)
    try:
        text = pydantic_core.to_json(value, inf_nan_mode="null").decode()
    except (ValueError, TypeError, RecursionError) as exc:
        return failed("InvalidResult", f"the result cannot be written as JSON: {exc}", retryable=False)
    return completed(text)


def completed(text: str) -> Ended:
    """Complete with a JSON text, if it is one that can be kept."""
    size = len(text) if text.isascii() else len(text.encode())
    if size > DEFAULT_BOUNDS.large_result_bytes:
        message = (
            f"the result is {size} bytes, at most {DEFAULT_BOUNDS.large_result_bytes} are allowed; "
            "ctx.save_artifact takes more"
        )
        return failed("ResultTooLarge", message, retryable=False)
    if "\\u0000" in text:
        message = "the result contains a NUL character, which Postgres cannot store"
        return failed("InvalidResult", message, retryable=False)
    return Ended(Outcome.COMPLETED, text)


def raised(exc: BaseException, handler: Handler, cause: StopCause | None) -> Ended:
    """Judge what a handler raised; ``cause`` is why it had been told to stop, if it had. Never raises itself."""
    try:
        return _raised(exc, handler, cause)
    except Exception as problem:  # whatever a handler comes up with must not end the engine that runs it
        message = f"what the handler raised ({type(exc).__name__}) cannot be told: {type(problem).__name__}"
        return failed("InvalidOutcome", message, retryable=False)


def _raised(exc: BaseException, handler: Handler, cause: StopCause | None) -> Ended:
    if isinstance(exc, Reschedule | Fail | Park) and cause in (None, StopCause.RELEASED):
        return _asked(exc)
    if cause is not None:
        return stopped(cause, _describe(exc) if isinstance(exc, Exception) else None)
    if isinstance(exc, OwnershipLost):
        return stopped(StopCause.LOST, _describe(exc))
    retryable = handler.retryable and not isinstance(exc, handler.non_retryable)
    return Ended(Outcome.FAILED, error=_describe(exc), retryable=retryable)


def stopped(cause: StopCause, error: ErrorReport | None = None) -> Ended:
    """End for the cause for which the handler was stopped."""
    if error is None and cause is StopCause.TIMED_OUT:
        error = ErrorReport("TimedOut", "the attempt ran longer than its timeout")
    return Ended(_BY_CAUSE[cause], error=error)


def invalid_payload(exc: Exception) -> Ended:
    """Fail for good because the payload does not fit."""
    if isinstance(exc, ValidationError):
        lines = [
            f"{'.'.join(map(str, one['loc'])) or 'payload'}: {sentence(one['msg'])}"
            for one in exc.errors(include_url=False, include_input=False, include_context=False)
        ]
        message = "; ".join(lines[:20]) + (f"; and {len(lines) - 20} more" if len(lines) > 20 else "")
    else:
        message = f"payload: {exc}"
    return failed("InvalidPayload", message, retryable=False)


def failed(type_: str, message: str, *, retryable: bool = True, traceback_text: str = "") -> Ended:
    """Fail with an error of ours."""
    error = ErrorReport(_clean(type_)[:_MAX_TYPE_CHARS], _bounded(message), _bounded(traceback_text))
    return Ended(Outcome.FAILED, error=error, retryable=retryable)


def _asked(request: Reschedule | Fail | Park) -> Ended:
    if isinstance(request, Park):
        if not all(isinstance(id, str) for id in request.children) or not isinstance(request.checkpoint, str | None):
            return failed("InvalidPark", "children must be ids of jobs, the checkpoint JSON text", retryable=False)
        return Ended(Outcome.PARKED, park=ParkRequest(request.children, request.checkpoint, request.trigger))
    if isinstance(request, Reschedule):
        return Ended(
            Outcome.RESCHEDULED,
            delay_s=request.delay_s,
            error=ErrorReport("Reschedule", _bounded(str(request))),
            spends_budget=request.spend_budget,
        )
    return failed(request.type, request.message, retryable=request.retryable)


def _describe(exc: BaseException) -> ErrorReport:
    frames = exc.__traceback__
    # The first frame is the engine's own call.
    text = "".join(traceback.format_exception(type(exc), exc, frames.tb_next if frames else None))
    try:
        message = str(exc)
    except Exception as problem:  # an exception whose __str__ raises is still a failed attempt
        message = f"(its message cannot be shown: {type(problem).__name__})"
    name, *bases = (each.__name__[:_MAX_TYPE_CHARS] for each in type(exc).__mro__[: _MAX_BASES + 1])
    return ErrorReport(name, _bounded(message), _bounded(text), tuple(base for base in bases if base != "object"))


def _clean(text: str) -> str:
    """Replace what Postgres or UTF-8 cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _bounded(text: str) -> str:
    """Clean, and keep the beginning and the end of a long text: the end of a traceback says most."""
    text = _clean(text)
    limit = DEFAULT_BOUNDS.error_chars
    if len(text) <= limit:
        return text
    note = f"\n[{len(text) - limit} characters left out]\n"
    head = limit // 4
    return text[:head] + note + text[-(limit - head - len(note)) :]
