"""Who calls, and what they may do here: the one place where gRPC and REST ask.

The transport says who calls (``called_by``), before anything else is done; what serves the call asks ``require`` for
the right that it needs, at the namespace or route that it is about. The decision is ``model.access``'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from tenure.model.access import ANYBODY, Identity, Right, allows
from tenure.model.errors import PermissionDenied

log = structlog.get_logger(__name__)

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
    who = _caller.get()
    where = f" in namespace {namespace}" if namespace else f" at route {route}" if route else " everywhere"
    log.warning("permission_denied", caller=who.name, role=who.role.value, right=right.value, where=where.strip())
    raise PermissionDenied(
        f"{who.name} ({who.role}) may not {right}{where}", hint="ask an admin for a token: tenure tokens create --help"
    )
