"""What a submitter may ask for, validated: the one rule set behind gRPC, REST, SQL and the clients."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tenure.model import bounds as b
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.retry import Backoff, RetryPolicy
from tenure.model.routes import (
    DEFAULT_NAMESPACE,
    DEFAULT_ROUTE,
    MAX_ROUTE_CHARS,
    kind_error,
    limit_error,
    name_error,
    route_error,
)
from tenure.model.unique import OnDuplicate
from tenure.model.wording import sentence


def _must(check: Any) -> AfterValidator:
    def validate(value: str) -> str:
        problem = check(value)
        if problem:
            raise ValueError(problem)
        return value

    return AfterValidator(validate)


Name = Annotated[str, _must(name_error)]
Kind = Annotated[str, _must(kind_error)]
LimitName = Annotated[str, _must(limit_error)]
Route = Annotated[str, _must(route_error)]
ErrorType = Annotated[str, Field(max_length=DEFAULT_BOUNDS.error_type_chars)]


def json_error(text: str, *, max_bytes: int, max_depth: int) -> str | None:
    """Say what is wrong with a JSON text that is to be stored, or None."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        return f"is {size} bytes, at most {max_bytes} are allowed"
    if _depth(text, max_depth) > max_depth:
        return f"is nested deeper than {max_depth} levels"
    try:
        _READER.decode(text)
    except (ValueError, RecursionError) as exc:
        return f"is not JSON: {exc}"
    if "\\u0000" in text and _NUL.search(text):
        return "contains a NUL character (\\u0000), which Postgres cannot store"
    return None


_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufeff"
    "\ufff0-\uffff\U000e0000-\U0010ffff]"
)
"""What no label may hold: controls, spaces other than the one, marks of direction. Not ``str.isprintable``: that is
another rule in each release of Unicode, and Postgres has none like it."""
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON writes it: an odd number of backslashes before u0000 (a raw one is no JSON at all)."""


def label_problem(name: str, labels: Mapping[str, str]) -> str | None:
    """Say what is wrong with labels, or None; ``name`` is what they are called."""
    for key, value in labels.items():
        if problem := name_error(key):
            return f"{name} key {key[:64]!r} {problem}"
        if len(value) > DEFAULT_BOUNDS.label_value_chars or _UNPRINTABLE.search(value):
            return f"{name} value of {key!r} must be printable, at most {DEFAULT_BOUNDS.label_value_chars} characters"
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_READER = json.JSONDecoder(parse_constant=_no_constant)  # json.loads would make one for each text


def _depth(text: str, enough: int) -> int:
    """Return the nesting, before a parser sees the text; 0 where it cannot exceed ``enough``."""
    if text.count("[") + text.count("{") <= enough:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


class RetrySpec(BaseModel):
    """A retry policy as asked for; unset fields take the defaults of ``RetryPolicy``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_attempts: int = Field(default=b.DEFAULT_MAX_ATTEMPTS, ge=1, le=DEFAULT_BOUNDS.attempts)
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_backoff_s: float = Field(default=1.0, ge=0, le=86_400)
    multiplier: float = Field(default=2.0, ge=1, le=100)
    max_backoff_s: float = Field(default=300.0, ge=0, le=7 * 86_400)
    jitter: float = Field(default=0.2, ge=0, le=1)
    non_retryable: tuple[ErrorType, ...] = Field(default=(), max_length=32)

    def policy(self) -> RetryPolicy:
        """Return the policy that the rules in ``model.retry`` take."""
        return RetryPolicy(**self.model_dump())


class JobSpec(BaseModel):
    """One job as asked for. ``payload`` is JSON text; durations are in seconds.

    ``depends_on`` holds ids of jobs, or the ``ref`` of members of the same batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind
    payload: str = "null"
    namespace: Name = DEFAULT_NAMESPACE
    route: Route = DEFAULT_ROUTE
    priority: int = Field(default=0, ge=b.MIN_PRIORITY, le=b.MAX_PRIORITY)
    activate_at: datetime | None = None
    delay_s: float | None = Field(default=None, ge=0, le=DEFAULT_BOUNDS.delay_s)
    retry: RetrySpec = RetrySpec()
    ttl_s: float = Field(default=b.DEFAULT_TTL_S, ge=DEFAULT_BOUNDS.min_ttl_s, le=DEFAULT_BOUNDS.max_ttl_s)
    timeout_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.timeout_s)
    start_within_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.delay_s)
    """From its first possible start: past its activation time, and with nothing left to wait for."""
    start_by: datetime | None = None
    job_timeout_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.delay_s)
    """For all attempts together, from its first possible start."""
    max_crashes: int = Field(default=b.DEFAULT_MAX_CRASHES, ge=1, le=DEFAULT_BOUNDS.attempts)
    idempotency_key: str | None = Field(
        default=None, min_length=1, max_length=DEFAULT_BOUNDS.idempotency_key_chars, pattern=r"^[^\x00-\x1f\x7f]*$"
    )
    labels: dict[str, str] = Field(default_factory=dict, max_length=DEFAULT_BOUNDS.labels)
    limits: tuple[LimitName, ...] = Field(default=(), max_length=DEFAULT_BOUNDS.limits)
    requires: dict[str, str] = Field(default_factory=dict, max_length=DEFAULT_BOUNDS.labels)
    depends_on: tuple[str, ...] = Field(default=(), max_length=DEFAULT_BOUNDS.dependencies)
    ref: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")
    trigger: Trigger = Trigger.ALL_COMPLETED
    upstream_failure: UpstreamFailure = UpstreamFailure.CANCEL
    unique_key: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")
    """At most one unfinished job of this namespace and kind has it."""
    on_duplicate: OnDuplicate = OnDuplicate.REFUSE
    idempotency_ttl_s: float | None = Field(
        default=None, ge=DEFAULT_BOUNDS.min_idempotency_ttl_s, le=DEFAULT_BOUNDS.max_idempotency_ttl_s
    )
    """How long the key stands for this job; None: ``IDEMPOTENCY_TTL_S``."""

    @model_validator(mode="after")
    def _relations(self) -> JobSpec:
        if self.activate_at is not None:
            if self.delay_s is not None:
                raise ValueError("at most one of activate_at and delay may be given")
            if self.activate_at.tzinfo is None:
                raise ValueError("activate_at must carry a time zone")
        if self.start_by is not None:
            if self.start_within_s is not None:
                raise ValueError("at most one of start_by and start_within may be given")
            if self.start_by.tzinfo is None:
                raise ValueError("start_by must carry a time zone")
            if self.activate_at is not None and self.start_by <= self.activate_at:
                raise ValueError("start_by must lie after activate_at")
        for name in ("labels", "requires"):
            if problem := label_problem(name, getattr(self, name)):
                raise ValueError(problem)
        if len(set(self.limits)) < len(self.limits):
            raise ValueError("limits must not name one twice")
        if self.on_duplicate is not OnDuplicate.REFUSE and self.unique_key is None:
            raise ValueError("on_duplicate needs a unique_key")
        if self.idempotency_ttl_s is not None and self.idempotency_key is None:
            raise ValueError("idempotency_ttl_s needs an idempotency_key")
        return self


def _is_one_of(error: Callable[[str], str | None], most: int) -> Callable[[Any], bool]:
    """Return the check of a name by one of the rules of ``model.routes``; the same few come again and again."""
    remembered = lru_cache(4096)(error)
    return lambda value: type(value) is str and len(value) <= most and remembered(value) is None


def _is_from(least: float, most: float, type_: type[int | float]) -> Callable[[Any], bool]:
    def is_right(value: Any) -> bool:
        return type(value) is type_ and bool(least <= value <= most)

    return is_right


def _is_payload(value: Any) -> bool:
    return (
        type(value) is str
        and (value.isascii() or not _SURROGATE.search(value))
        and json_error(value, max_bytes=DEFAULT_BOUNDS.payload_bytes, max_depth=DEFAULT_BOUNDS.json_depth) is None
    )


_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[\x20-\x7e]+")
_TINY = 1e-9
_PLAIN: dict[str, Callable[[Any], bool]] = {
    "kind": _is_one_of(kind_error, MAX_ROUTE_CHARS),
    "payload": _is_payload,
    "namespace": _is_one_of(name_error, MAX_ROUTE_CHARS),
    "route": _is_one_of(route_error, MAX_ROUTE_CHARS),
    "idempotency_key": lambda value: (
        type(value) is str
        and len(value) <= DEFAULT_BOUNDS.idempotency_key_chars
        and _PLAIN_KEY.fullmatch(value) is not None
    ),
    "priority": _is_from(b.MIN_PRIORITY, b.MAX_PRIORITY, int),
    "max_crashes": _is_from(1, DEFAULT_BOUNDS.attempts, int),
    "ttl_s": _is_from(DEFAULT_BOUNDS.min_ttl_s, DEFAULT_BOUNDS.max_ttl_s, float),
    "timeout_s": _is_from(_TINY, DEFAULT_BOUNDS.timeout_s, float),
    "delay_s": _is_from(0.0, DEFAULT_BOUNDS.delay_s, float),
    "trigger": lambda value: type(value) is Trigger,
    "upstream_failure": lambda value: type(value) is UpstreamFailure,
    "labels": lambda value: (
        type(value) is dict
        and len(value) <= DEFAULT_BOUNDS.labels
        and all(type(key) is str and type(text) is str for key, text in value.items())
        and label_problem("labels", value) is None
    ),
}
"""What is certainly right about the fields that most jobs have. Whatever is not is for ``JobSpec`` to judge."""
_UNASKED = vars(JobSpec(kind="k")).copy()


def _plain(values: Mapping[str, Any]) -> JobSpec | None:
    """Build a job that asks for nothing unusual, None for one that does: pydantic takes ten times as long."""
    for name, value in values.items():
        is_right = _PLAIN.get(name)
        if is_right is None or not is_right(value):
            return None
    if "kind" not in values:
        return None
    spec = JobSpec.__new__(JobSpec)
    # As model_construct does, without its way through every field.
    object.__setattr__(spec, "__dict__", {**_UNASKED, "labels": {}, "requires": {}, **values})
    object.__setattr__(spec, "__pydantic_fields_set__", set(values))
    object.__setattr__(spec, "__pydantic_extra__", None)
    object.__setattr__(spec, "__pydantic_private__", None)
    return spec


def validate_spec(values: Mapping[str, Any], *, path: str = "") -> JobSpec:
    """Build a ``JobSpec`` from loose values.

    Raises:
        InvalidInput: with every violation, its field prefixed by ``path`` (such as ``jobs[3].``).
    """
    if (plain := _plain(values)) is not None:
        return plain
    violations: list[FieldViolation] = []
    spec: JobSpec | None = None
    try:
        spec = JobSpec.model_validate(values)
    except ValidationError as exc:
        violations.extend(violations_of(exc, path))
    payload = values.get("payload", "null")
    if isinstance(payload, str):
        problem = json_error(payload, max_bytes=DEFAULT_BOUNDS.payload_bytes, max_depth=DEFAULT_BOUNDS.json_depth)
        if problem:
            violations.append(FieldViolation(f"{path}payload", problem))
    if violations or spec is None:
        raise InvalidInput(violations)
    return spec


_RELATION_FIELDS = ("start_by", "activate_at", "labels", "requires", "limits", "on_duplicate", "idempotency_ttl_s")
"""In this order: a message may name two."""


def violations_of(exc: ValidationError, path: str) -> list[FieldViolation]:
    """Say what pydantic found, each field prefixed by ``path``."""
    found = []
    for error in exc.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in error["loc"])
        message = sentence(error["msg"])
        if not field:
            # A rule between fields: the message begins with the field it is about, or names it.
            field = next((name for name in _RELATION_FIELDS if message.startswith(name)), "") or next(
                (name for name in _RELATION_FIELDS if name in message), ""
            )
        if field.endswith("_s") and message[-1:].isdigit():
            message += " s"
        # What names its own field at the start would name it twice.
        message = message.removeprefix(f"{field} ")
        found.append(FieldViolation(f"{path}{field}" if field else path.rstrip(".") or "job", message))
    return found


ALONE = "job"
"""The path of a job that is no member of a batch."""


def member_path(path: str, index: int) -> str:
    """Return the path of a member of a batch, such as ``jobs[3]``; of a job on its own, ``job``."""
    return path if path == ALONE else f"{path}[{index}]"


class PlannedJob(NamedTuple):
    """A validated job with its id, ready to be written. ``parents`` are ids, within the batch or earlier ones."""

    id: uuid.UUID
    spec: JobSpec
    parents: tuple[uuid.UUID, ...]
    request_hash: bytes
    parent_id: uuid.UUID | None = None
    schedule_id: uuid.UUID | None = None
    scheduled_at: datetime | None = None
    """The tick that this job is for."""
    workflow_id: uuid.UUID | None = None


def resolve_batch(
    specs: Sequence[JobSpec], ids: Sequence[uuid.UUID], *, path: str = "jobs"
) -> list[tuple[uuid.UUID, ...]]:
    """Return, per member, the ids it depends on; references inside the batch are resolved.

    Raises:
        InvalidInput: a ``ref`` given twice, an unknown reference, or a cycle (with its path).
    """
    if not any(spec.ref is not None or spec.depends_on for spec in specs):
        return [()] * len(specs)
    by_ref: dict[str, int] = {}
    violations: list[FieldViolation] = []
    for index, spec in enumerate(specs):
        if spec.ref is not None and by_ref.setdefault(spec.ref, index) != index:
            violations.append(
                FieldViolation(
                    f"{member_path(path, index)}.ref",
                    f"{spec.ref!r} is also the ref of {member_path(path, by_ref[spec.ref])}",
                )
            )
    edges: list[list[int]] = [[] for _ in specs]
    resolved: list[tuple[uuid.UUID, ...]] = []
    for index, spec in enumerate(specs):
        parents: dict[uuid.UUID, None] = {}
        for position, name in enumerate(spec.depends_on):
            if name in by_ref:
                edges[index].append(by_ref[name])
                parents[ids[by_ref[name]]] = None
                continue
            try:
                parents[uuid.UUID(name)] = None
            except ValueError:
                violations.append(
                    FieldViolation(
                        f"{member_path(path, index)}.depends_on[{position}]",
                        f"{name[:64]!r} is neither the ref of a member of this batch nor a job id",
                    )
                )
        resolved.append(tuple(parents))
    cycle = find_cycle(edges)
    if cycle:
        names = " -> ".join(specs[i].ref or member_path(path, i) for i in cycle)
        violations.append(FieldViolation(f"{member_path(path, cycle[0])}.depends_on", f"dependency cycle: {names}"))
    if violations:
        raise InvalidInput(violations)
    return resolved


def find_cycle(edges: Sequence[Sequence[int]]) -> list[int]:
    """Return the nodes of one cycle, the first repeated at the end, or an empty list. Linear, without recursion."""
    done = [False] * len(edges)
    for root in range(len(edges)):
        if done[root]:
            continue
        path: list[int] = []
        position: dict[int, int] = {}
        stack: list[tuple[int, int]] = [(root, 0)]
        while stack:
            node, edge = stack.pop()
            if edge == 0:
                position[node] = len(path)
                path.append(node)
            for index in range(edge, len(edges[node])):
                target = edges[node][index]
                if target in position:
                    return [*path[position[target] :], target]
                if not done[target]:
                    stack.append((node, index + 1))
                    stack.append((target, 0))
                    break
            else:
                done[node] = True
                path.pop()
                del position[node]
    return []
