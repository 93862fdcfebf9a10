"""Errors on their way out: one interceptor turns tenure's errors into gRPC statuses with rich details.

Bytes that are no message of the call's type are INVALID_ARGUMENT, too: grpc itself would say UNKNOWN. Anything else is
a defect of ours: it is logged with its traceback and answered as INTERNAL without its text.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, NoReturn

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tenure.coordinator.api.acts import ACTS
from tenure.coordinator.api.call_bounds import CallBounds, Streams
from tenure.coordinator.audit import Act
from tenure.coordinator.metrics import GRPC_CALLS, GRPC_S, count_refusal
from tenure.model.clock import elapsed_s
from tenure.model.errors import (
    BoundExceeded,
    FieldViolation,
    InvalidInput,
    NamespaceFull,
    PermissionDenied,
    SubmitRateExceeded,
    TenureError,
    Unavailable,
)
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import wire

log = structlog.get_logger(__name__)

_DEFECT = "internal error; the coordinator's log has the details"
_OURS = "/tenure."
TOLD_BYTES = 5_500
"""Of violations in a refusal: gRPC takes no more than 8 KiB of what ends a call, and drops all of it beyond that."""
OnDenied = Callable[[str, PermissionDenied, Act | None], Awaitable[None]]
"""Told of each call that was denied: its name (``JobService.GetJob``) and, of an audited one, what was asked for."""
Deserializer = Callable[[bytes], Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Refusals(grpc.aio.ServerInterceptor):
    """Wraps every method of every service."""

    def __init__(self, bounds: CallBounds, on_denied: OnDenied | None = None) -> None:
        self._on_denied = on_denied
        self._watches = Streams(bounds.watches, "watches")
        self._submits = Streams(bounds.submit_streams, "streams of submits")

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler with translated errors."""
        handler = await continuation(details)
        if handler is None:
            return handler
        refuse = _Refusal(details.method, self._on_denied)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _answering(handler.unary_unary, refuse),
                _reading(handler.request_deserializer),
                handler.response_serializer,
            )
        if handler.unary_stream:
            # Ours yield their answers; the health service's call writes them.
            if iscoroutinefunction(handler.unary_stream):
                method = _answering(_counted(handler.unary_stream, self._watches), refuse, is_stream=True)
            else:
                method = _streaming(handler.unary_stream, self._watches, refuse)
            return grpc.unary_stream_rpc_method_handler(
                method, _reading(handler.request_deserializer), handler.response_serializer
            )
        if handler.stream_stream:
            # Reflection yields its answers; ours write them.
            ours = details.method.startswith(_OURS)
            method = handler.stream_stream
            return grpc.stream_stream_rpc_method_handler(
                _answering(_counted(method, self._submits), refuse, is_stream=True)
                if ours
                else _streaming(method, self._watches, refuse),
                _raising(handler.request_deserializer),
                handler.response_serializer,
            )
        return handler


def _counted(method: Any, streams: Streams) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        with streams.one_more():
            return await method(request, context)

    return call


def _reading(deserialize: Deserializer) -> Deserializer:
    """Return a reader of requests that gives the refusal in the place of a message that it cannot read."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as exc:
            return _malformed(exc)

    return read


def _raising(deserialize: Deserializer) -> Deserializer:
    """Return a reader of a stream's messages, whose refusal whoever reads the stream meets."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as exc:
            raise _malformed(exc) from exc

    return read


def _malformed(exc: DecodeError) -> InvalidInput:
    return InvalidInput([FieldViolation("message", f"cannot be read: {exc}")])


class _Refusal(NamedTuple):
    """How a call is refused."""

    method: str
    on_denied: OnDenied | None

    async def of(self, exc: Exception, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        """End the call with the status of an error."""
        count_refusal("grpc", exc)
        if isinstance(exc, PermissionDenied) and self.on_denied is not None:
            call = self.method.rpartition("tenure.v1.")[2].replace("/", ".")
            await self.on_denied(call, exc, ACTS[call].asked(request) if call in ACTS else None)
        await _refuse(exc, context)


@functools.cache  # of methods that are served: nobody can name another
def _label(method: str) -> str:
    return method.rpartition("tenure.v1.")[2].lstrip("/")


def _count(method: str, outcome: str, took_s: float | None = None) -> None:
    """Count a call; streams last as long as somebody listens, which is no figure."""
    GRPC_CALLS.add(1, _label(method), outcome)
    if took_s is not None:
        GRPC_S.observe(took_s, _label(method))


def _code_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the status with which a method has ended its call itself, as the health service does."""
    code = context.code()
    return _NAMES.get(code, "UNKNOWN") if isinstance(code, int) else code.name


_NAMES = {int(code.value[0]): code.name for code in grpc.StatusCode}


def _code(exc: BaseException) -> str:
    if isinstance(exc, TenureError):
        return exc.grpc_status
    if isinstance(exc, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED"
    return "UNIMPLEMENTED" if isinstance(exc, NotImplementedError) else "INTERNAL"


def _answering(method: Any, refuse: _Refusal, *, is_stream: bool = False) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        began = elapsed_s()
        outcome = "OK"
        try:
            if isinstance(request, InvalidInput):
                raise request
            return await method(request, context)
        except grpc.aio.AbortError:
            outcome = _code_of(context)
            raise
        except asyncio.CancelledError as exc:
            outcome = _code(exc)
            raise
        except Exception as exc:  # the top of a call
            outcome = _code(exc)
            await refuse.of(exc, request, context)
        finally:
            _count(refuse.method, outcome, None if is_stream else elapsed_s() - began)

    return call


def _streaming(method: Any, streams: Streams, refuse: _Refusal) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        outcome = "OK"
        try:
            if isinstance(request, InvalidInput):
                raise request
            with streams.one_more():
                async for response in method(request, context):
                    yield response
        except grpc.aio.AbortError:
            outcome = _code_of(context)
            raise
        except (asyncio.CancelledError, GeneratorExit) as exc:
            outcome = _code(exc)
            raise
        except Exception as exc:  # the top of a call
            outcome = _code(exc)
            await refuse.of(exc, request, context)
        finally:
            _count(refuse.method, outcome)

    return call


async def _refuse(exc: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(exc, NotImplementedError):  # as generated servicers say it: Health.List is one
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this call is not served here")
    if not isinstance(exc, TenureError):
        log.exception("call_failed")
        await context.abort(grpc.StatusCode.INTERNAL, _DEFECT)
    if isinstance(exc, InvalidInput):
        exc = _told(exc)
    status = status_pb2.Status(code=_number(exc.grpc_status), message=exc.message)
    if isinstance(exc, InvalidInput):
        detail = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                for v in exc.violations
            ]
        )
        status.details.append(_packed(detail))
    if isinstance(exc, SubmitRateExceeded) and exc.retry_after_s is not None:
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=wire.duration(exc.retry_after_s))))
    if exc.hint:
        status.details.append(
            _packed(error_details_pb2.Help(links=[error_details_pb2.Help.Link(description=exc.hint)]))
        )
    await context.abort_with_status(rpc_status.to_status(status))


def _told(exc: InvalidInput) -> InvalidInput:
    """Return the first violations, as many as a refusal has room for; the last says how many more there are."""
    room = TOLD_BYTES
    for told, violation in enumerate(exc.violations):
        size = len(f"{violation.field}: {violation.description}; ".encode())
        # As text, with three bytes for each that is not ASCII, and twice in the details, which travel as base64.
        room -= size * (4 if violation.description.isascii() and violation.field.isascii() else 6)
        if room < 0 and told:
            more = len(exc.violations) - told
            last = FieldViolation(violation.field, f"{violation.description[:200]} (and {more - 1} more)")
            return InvalidInput([*exc.violations[:told], last], hint=exc.hint)
    return exc


def is_of_all(exc: Exception) -> bool:
    """Say whether an error is no fault of the one job that it came for: a store's trouble, or too much to do."""
    return isinstance(exc, (Unavailable, BoundExceeded)) and not isinstance(exc, NamespaceFull)


def refusal_to_pb(exc: Exception) -> pb.JobRefusal:
    """Convert what one of several jobs was refused with; a defect of ours is logged and says no more than that."""
    if not isinstance(exc, TenureError):
        log.error("submit_failed", exc_info=exc)
        return pb.JobRefusal(status=grpc.StatusCode.INTERNAL.name, message=_DEFECT)
    violations = exc.violations if isinstance(exc, InvalidInput) else ()
    return pb.JobRefusal(
        status=exc.grpc_status,
        message=exc.message,
        hint=exc.hint,
        fields=[pb.RefusedField(field=one.field, description=one.description) for one in violations],
    )


def _number(name: str) -> int:
    return int(grpc.StatusCode[name].value[0])


def _packed(detail: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
