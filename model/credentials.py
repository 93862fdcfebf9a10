"""What an admin asks for when making a credential, and what is wrong with it.

Pure, like ``model.access``, which says what a role may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tenure.model.access import ANYBODY, EVERY, Role
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.routes import name_error, route_error

DAY_S = 86_400.0
DEFAULT_EXPIRY_S = 90 * DAY_S
MAX_EXPIRY_S = 3_650 * DAY_S
MAX_CHARS = 128
OF_ISSUER = "oidc:"
"""How the names of identities begin that an OIDC issuer vouches for; no stored one may look like them."""
MAX_SUBJECT_CHARS = 512
MAX_SCOPE = 100
GIVEN = tuple(role for role in Role if role is not Role.COORDINATOR)
"""Roles with which credentials are made."""
_OF_POOLS = (Role.WORKER, Role.RUNNER)
_OF_NAMESPACES = (Role.OPERATOR, Role.SUBMITTER, Role.VIEWER)


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A credential to be made. ``subject``: of certificates; None for a token."""

    name: str
    role: Role
    namespaces: tuple[str, ...]
    pools: tuple[str, ...]
    expires_in_s: float
    subject: str | None = None


def validate_credential(
    *,
    name: str,
    role: str,
    namespaces: Sequence[str] = (),
    pools: Sequence[str] = (),
    expires_in_s: float | None = None,
    subject: str = "",
    expiry_field: str = "expires_in",
) -> NewCredential:
    """Return the credential with its defaults.

    Raises:
        InvalidInput: with every bad field.
    """
    violations = [*_of_texts(name, subject)]
    if role not in GIVEN:
        violations.append(FieldViolation("role", f"{role[:64]!r} is none of {', '.join(GIVEN)}"))
    else:
        violations += _of_scope(Role(role), namespaces, pools)
    violations += _of_list("namespaces", namespaces, name_error)
    violations += _of_list("pools", pools, route_error)
    expires_in_s = DEFAULT_EXPIRY_S if expires_in_s is None else expires_in_s
    if not 0 < expires_in_s <= MAX_EXPIRY_S:
        violations.append(FieldViolation(expiry_field, f"must lie ahead, at most {MAX_EXPIRY_S / DAY_S:,.0f} days"))
    if violations:
        raise InvalidInput(violations)
    every = (EVERY,)
    return NewCredential(
        name, Role(role), tuple(namespaces) or every, tuple(pools) or every, expires_in_s, subject or None
    )


_RESERVED = (ANYBODY.name, Role.COORDINATOR.value)


def _of_texts(name: str, subject: str) -> Iterator[FieldViolation]:
    if not name.isprintable() or not 1 <= len(name.strip()) <= len(name) <= MAX_CHARS:
        yield FieldViolation("name", f"must be 1 to {MAX_CHARS} printable characters")
    if name in _RESERVED:
        yield FieldViolation("name", f"{name!r} has a meaning of its own")
    if name.startswith(OF_ISSUER):
        yield FieldViolation("name", f"must not begin with {OF_ISSUER}")
    if not subject.isprintable() or len(subject) > MAX_SUBJECT_CHARS:
        yield FieldViolation("certificate_subject", f"must be printable, at most {MAX_SUBJECT_CHARS} characters")


def _of_scope(role: Role, namespaces: Sequence[str], pools: Sequence[str]) -> Iterator[FieldViolation]:
    if role in _OF_POOLS and not pools:
        yield FieldViolation("pools", f"a {role} names its pools, or {EVERY}")
    if role not in _OF_POOLS and pools:
        yield FieldViolation("pools", f"mean nothing for {role}: only worker and runner have them")
    if role in _OF_NAMESPACES and not namespaces:
        yield FieldViolation("namespaces", f"{role} names its namespaces, or {EVERY}")
    if role is Role.ADMIN and namespaces:
        yield FieldViolation("namespaces", "mean nothing for admin, who may do everything")


def _of_list(field: str, values: Sequence[str], error: Callable[[str], str | None]) -> Iterator[FieldViolation]:
    if len(values) > MAX_SCOPE:
        yield FieldViolation(field, f"{len(values)} are too many, at most {MAX_SCOPE}")
    for index, value in enumerate(values[:MAX_SCOPE]):
        if value != EVERY and (problem := error(value)):
            yield FieldViolation(f"{field}[{index}]", f"{value[:64]!r} {problem}, or {EVERY}")
