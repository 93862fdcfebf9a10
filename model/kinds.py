"""Settings of kinds: what a job of a kind gets where its submitter asked for nothing. Pure.

Settings are put for a kind in one namespace, or in all of them (``ALL_NAMESPACES``). Field by field the submitter's own
word comes first, then the namespace's settings, then those of all namespaces, then the built-in defaults. Limits are
the exception towards the submitter: those of the kind are added to the job's own, so that no job escapes them. Applied
once, when the job is written: a change of settings leaves jobs alone that are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tenure.model import bounds as b
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.jobs import JobSpec, RetrySpec, violations_of
from tenure.model.routes import kind_error, limit_error, name_error

ALL_NAMESPACES = ""
PLACEHOLDERS = ("namespace", "kind")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LONGEST_NAMESPACE = "n" * 63


def _known_placeholders(template: str) -> str:
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            allowed = " and ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(f"{{{name[:64]}}} is no placeholder; there are {allowed}")
    return template


LimitTemplate = Annotated[
    str, Field(max_length=DEFAULT_BOUNDS.limit_template_chars), AfterValidator(_known_placeholders)
]


class KindSettings(BaseModel):
    """What is set for a kind; None and empty: nothing. The fields are those of ``JobSpec``.

    ``limits`` are names, or templates of them: ``scan:{namespace}``, ``{kind}``. Of ``retry`` the fields count that are
    set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    priority: int | None = Field(default=None, ge=b.MIN_PRIORITY, le=b.MAX_PRIORITY)
    ttl_s: float | None = Field(default=None, ge=DEFAULT_BOUNDS.min_ttl_s, le=DEFAULT_BOUNDS.max_ttl_s)
    timeout_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.timeout_s)
    start_within_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.delay_s)
    job_timeout_s: float | None = Field(default=None, gt=0, le=DEFAULT_BOUNDS.delay_s)
    max_crashes: int | None = Field(default=None, ge=1, le=DEFAULT_BOUNDS.attempts)
    retry: RetrySpec | None = None
    limits: tuple[LimitTemplate, ...] = Field(default=(), max_length=DEFAULT_BOUNDS.kind_limits)

    def over(self, wider: Self | None) -> KindSettings:
        """Return these settings with what they leave unset from wider ones."""
        if wider is None:
            return self
        update = {name: value for name in _PLAIN if (value := getattr(self, name)) is not None}
        if self.retry is not None:
            update["retry"] = _retry_over(self.retry, wider.retry)
        if self.limits:
            update["limits"] = self.limits
        return wider.model_copy(update=update)

    def stored(self) -> str:
        """Return the text that ``KindSettings.model_validate_json`` reads back, with nothing that was left unset."""
        return self.model_dump_json(exclude_unset=True)


_PLAIN = ("priority", "ttl_s", "timeout_s", "start_within_s", "job_timeout_s", "max_crashes")


def _retry_over(narrow: RetrySpec, wide: RetrySpec | None) -> RetrySpec:
    if wide is None:
        return narrow
    return wide.model_copy(update={name: getattr(narrow, name) for name in narrow.model_fields_set})


def limits_of(settings: KindSettings, namespace: str, kind: str) -> tuple[str, ...]:
    """Return the names that the templates of a kind's limits stand for."""
    values = {"namespace": namespace, "kind": kind}
    return tuple(_PLACEHOLDER.sub(lambda match: values[match[1]], template) for template in settings.limits)


def validate_kind(namespace: str, kind: str, values: Mapping[str, Any], *, path: str = "settings.") -> KindSettings:
    """Build the settings of a kind from loose values.

    Raises:
        InvalidInput: with every violation, its field prefixed by ``path``.
    """
    violations: list[FieldViolation] = []
    if problem := kind_error(kind):
        violations.append(FieldViolation(f"{path}kind", problem))
    if namespace != ALL_NAMESPACES and (problem := name_error(namespace)):
        violations.append(FieldViolation(f"{path}namespace", problem))
    settings: KindSettings | None = None
    try:
        settings = KindSettings.model_validate(values)
    except ValidationError as exc:
        violations.extend(violations_of(exc, path))
    else:
        if not violations:
            violations.extend(_limit_violations(settings, namespace, kind, path))
    if violations or settings is None:
        raise InvalidInput(violations)
    return settings


def _limit_violations(settings: KindSettings, namespace: str, kind: str, path: str) -> list[FieldViolation]:
    """Judge the names that the templates make, in the longest namespace where they hold for all."""
    names = limits_of(settings, namespace or _LONGEST_NAMESPACE, kind)
    found = [
        FieldViolation(f"{path}limits.{index}", f"makes {name[:160]!r}, which {problem}")
        for index, name in enumerate(names)
        if (problem := limit_error(name))
    ]
    if len(set(names)) < len(names):
        found.append(FieldViolation(f"{path}limits", "must not name one twice"))
    return found


class KindBook:
    """One reading of the settings of all kinds, by (namespace, kind)."""

    def __init__(self, settings: Mapping[tuple[str, str], KindSettings]) -> None:
        self._settings = settings
        self._merged: dict[tuple[str, str], KindSettings | None] = {}

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is set for any kind."""
        return not self._settings

    def settings_of(self, namespace: str, kind: str) -> KindSettings | None:
        """Return what holds for a kind in a namespace, None where nothing was set."""
        wide = self._settings.get((ALL_NAMESPACES, kind))
        own = self._settings.get((namespace, kind))
        return own.over(wide) if own is not None else wide

    def apply(self, spec: JobSpec, *, path: str = "job.") -> JobSpec:
        """Return a job as it is to be written: what its submitter left unset, as set for its kind.

        Raises:
            InvalidInput: with the limits of its kind it carries too many.
        """
        if not self._settings:
            return spec
        at = (spec.namespace, spec.kind)
        if at not in self._merged:
            if len(self._merged) >= _MERGED:
                self._merged.clear()
            self._merged[at] = self.settings_of(*at)
        settings = self._merged[at]
        return spec if settings is None else applied(settings, spec, path=path)


_MERGED = 100_000


def applied(settings: KindSettings, spec: JobSpec, *, path: str = "job.") -> JobSpec:
    """Return a job with what its submitter left unset as in the settings of its kind, and with their limits.

    Raises:
        InvalidInput: it would carry too many limits.
    """
    update: dict[str, Any] = {}
    for name in _PLAIN:
        value = getattr(settings, name)
        asked = name in spec.model_fields_set and getattr(spec, name) is not None
        if value is not None and not asked:
            update[name] = value
    if spec.start_by is not None:  # at most one of the two: its own word on when it must have started
        update.pop("start_within_s", None)
    if settings.retry is not None:
        update["retry"] = _retry_over(spec.retry, settings.retry)
    wanted = dict.fromkeys(limits_of(settings, spec.namespace, spec.kind))  # two templates may come to the same
    added = [name for name in wanted if name not in spec.limits]
    if added:
        if len(spec.limits) + len(added) > DEFAULT_BOUNDS.limits:
            raise InvalidInput(
                [
                    FieldViolation(
                        f"{path}limits",
                        f"with the {len(added)} that are set for its kind there are {len(spec.limits) + len(added)},"
                        f" at most {DEFAULT_BOUNDS.limits} are allowed",
                    )
                ]
            )
        update["limits"] = (*spec.limits, *added)
    return spec.model_copy(update=update) if update else spec
