"""What the shell offers after Tab beyond commands and options: names that the coordinator knows at this moment.

Invariant: it never takes long and never says anything: without a coordinator, or with one that is slow, nothing is
offered. Ids of jobs are the newest ones; Tab is no search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenure.client import Client

TIMEOUT_S = 1.0
JOBS = 50
WORKFLOWS = 20


def _ask(context: Any, incomplete: str, read: Callable[[Client], Iterable[str | tuple[str, str]]]) -> list[Any]:
    from tenure.client import Client
    from tenure.model.errors import TenureError

    address = (context.params or {}).get("coordinator")
    with suppress(TenureError, OSError), Client(address, timeout_s=TIMEOUT_S) as client:
        found = [one if isinstance(one, tuple) else (one, "") for one in read(client)]
        return sorted({one for one in found if one[0].startswith(incomplete)})
    return []


def namespaces(ctx: Any, incomplete: str) -> list[Any]:
    """Offer namespaces: those with settings, and those of the newest jobs."""

    def read(client: Client) -> Iterable[str]:
        return [one.name for one in client.namespaces()] + [job.namespace for job in client.list(limit=JOBS)]

    return _ask(ctx, incomplete, read)


def kinds(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the kinds that a worker serves."""
    return _ask(ctx, incomplete, lambda client: [kind for worker in client.workers() for kind in worker.kinds])


def pools(ctx: Any, incomplete: str) -> list[Any]:
    """Offer pools that are or were served."""
    return _ask(ctx, incomplete, lambda client: [pool.path for pool in client.pools()])


def workers(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the workers that are there."""
    return _ask(ctx, incomplete, lambda client: [worker.id for worker in client.workers()])


def jobs(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the ids of the newest jobs, with what they are."""

    def read(client: Client) -> Iterable[tuple[str, str]]:
        return [(job.id, f"{job.kind} {job.state}") for job in client.list(limit=JOBS)]

    return _ask(ctx, incomplete, read)


def schedules(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the names of schedules."""
    return _ask(ctx, incomplete, lambda client: [one.name for one in client.schedules()])


def workflows(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the newest workflows, by name where they have one."""

    def read(client: Client) -> Iterable[tuple[str, str]]:
        return [(one.name or one.id, str(one.state or "")) for one in client.list_workflows(limit=WORKFLOWS)]

    return _ask(ctx, incomplete, read)


def limits(ctx: Any, incomplete: str) -> list[Any]:
    """Offer the names of limits."""
    return _ask(ctx, incomplete, lambda client: [one.name for one in client.limits()])
