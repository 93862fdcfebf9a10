"""Who calls, and what they may do here: the one place where gRPC and REST ask.

The transport says who calls (``called_by``), before anything else is done; what serves the call asks ``require`` for
the right that it needs, at the namespace or route that it is about. The decision is ``model.access``'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from tenure.model.access import ANYBODY, EVERY, Identity, Right, allows, has
from tenure.model.errors import PermissionDenied
from tenure.model.routes import covers

log = structlog.get_logger(__name__)

_HINT = "ask an admin for a token: tenure tokens create --help"
_caller: ContextVar[Identity] = ContextVar("caller", default=ANYBODY)


def caller() -> Identity:
    """Return who calls; ``ANYBODY`` where no credentials are asked for."""
    return _caller.get()


@contextmanager
def called_by(identity: Identity) -> Iterator[None]:
    """Serve a call on behalf of an identity."""
    token = _caller.set(identity)
    try:
        yield
    finally:
        _caller.reset(token)


def serve_as(identity: Identity) -> None:
    """Serve a call on behalf of an identity, in a task that serves this call and nothing else."""
    _caller.set(identity)


def may(right: Right, *, namespace: str | None = None, route: str | None = None) -> bool:
    """Say whether who calls may do this, there; see ``model.access.allows``."""
    return allows(_caller.get(), right, namespace=namespace, route=route)


def require(right: Right, *, namespace: str | None = None, route: str | None = None) -> None:
    """Refuse what who calls may not do.

    Raises:
        PermissionDenied: it names who, what and where.
    """
    if may(right, namespace=namespace, route=route):
        return
    where = f" in namespace {namespace[:64]}" if namespace else f" at route {route[:255]}" if route else " everywhere"
    raise denied(right, where)


def require_somewhere(right: Right) -> None:
    """Refuse who has not got this right at all; where it may be used is for what serves the call.

    Raises:
        PermissionDenied: it names who and what.
    """
    if not has(_caller.get(), right):
        raise denied(right, "")


def denied(right: Right, where: str, *, field: str = "") -> PermissionDenied:
    """Return a refusal, which is logged; ``field`` names what of the request asked for it."""
    who = _caller.get()
    log.warning("permission_denied", caller=who.name, role=who.role.value, right=right.value, where=where.strip())
    return PermissionDenied(f"{field and f'{field}: '}{who.name} ({who.role}) may not {right}{where}", hint=_HINT)


def namespaces_for(right: Right, namespace: str | None) -> list[str] | None:
    """Return the namespaces to which a look at many things is confined; None for no confinement besides the asked one.

    Raises:
        PermissionDenied: the namespace that was asked for is not the caller's.
    """
    who = _caller.get()
    if EVERY in who.namespaces and has(who, right):
        return None
    if namespace:
        require(right, namespace=namespace)
        return None
    require_somewhere(right)
    return list(who.namespaces)


def is_confined() -> bool:
    """Say whether the caller's scope is some namespaces and not all of them."""
    return EVERY not in _caller.get().namespaces


def sees(namespace: str) -> bool:
    """Say whether a namespace lies in the caller's scope; what does not is not there for this caller."""
    namespaces = _caller.get().namespaces
    return EVERY in namespaces or namespace in namespaces


def serves(route: str) -> bool:
    """Say whether a route lies in the caller's pools."""
    pools = _caller.get().pools
    return EVERY in pools or any(covers(pool, route) for pool in pools)


def serves_all() -> bool:
    """Say whether every route lies in the caller's pools."""
    return EVERY in _caller.get().pools
