"""Who may do what: identities, roles and their scope, as one pure decision. Denied unless something here allows it.

An identity has one role, over namespaces and pools. What it asks for is a right, mostly at a namespace or at a route;
``allows`` says yes or no. Who somebody is (tokens, certificates), and what a call needs, is for the coordinator to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tenure.model.routes import covers

EVERY = "*"
"""In a scope: every namespace, or every pool."""


class Role(StrEnum):
    """What an identity is for."""

    ADMIN = "admin"
    """Everything, tokens and the audit log included."""
    OPERATOR = "operator"
    """Submits, reads, cancels, retries, pauses and sets limits in its namespaces."""
    SUBMITTER = "submitter"
    """Submits to its namespaces, and reads there."""
    VIEWER = "viewer"
    """Reads in its namespaces."""
    WORKER = "worker"
    """Executes jobs of its pools, beside etcd."""
    RUNNER = "runner"
    """Executes jobs of its pools, over HTTPS alone."""
    COORDINATOR = "coordinator"
    """Another coordinator, by a token that follows from the signing key; no credential can be made with it."""


class Right(StrEnum):
    """What a call needs."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    WORK = "work"
    RUN = "run"
    ADMINISTER = "administer"
    COORDINATE = "coordinate"
    """Hints to the leader."""


_RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right) - {Right.COORDINATE},
    Role.OPERATOR: frozenset({Right.READ, Right.SUBMIT, Right.OPERATE}),
    Role.SUBMITTER: frozenset({Right.READ, Right.SUBMIT}),
    Role.VIEWER: frozenset({Right.READ}),
    Role.WORKER: frozenset({Right.WORK}),
    Role.RUNNER: frozenset({Right.RUN}),
    Role.COORDINATOR: frozenset({Right.COORDINATE}),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls."""

    name: str
    role: Role
    namespaces: tuple[str, ...] = (EVERY,)
    pools: tuple[str, ...] = (EVERY,)


ANYBODY = Identity("anybody", Role.ADMIN)
"""Who calls where no credentials are asked for."""


def has(identity: Identity, right: Right) -> bool:
    """Say whether an identity has a right at all, wherever that may be."""
    return right in _RIGHTS[identity.role]


def allows(identity: Identity, right: Right, *, namespace: str | None = None, route: str | None = None) -> bool:
    """Say whether an identity may do this, there.

    Without ``namespace`` (``route``) the question is for a right that is not confined to one: it takes a scope over
    all of them.
    """
    if not has(identity, right):
        return False
    if right in (Right.WORK, Right.RUN):
        return EVERY in identity.pools or (route is not None and any(covers(pool, route) for pool in identity.pools))
    return EVERY in identity.namespaces or namespace in identity.namespaces
