"""The worker's entry point: what must exist before gRPC and threads do, then the worker.

The forkserver and the watchdog of process handlers are started first: a process that has threads or gRPC in it
cannot be forked safely.
"""

from __future__ import annotations

import asyncio

import structlog

from tenure.model.clock import SystemClock
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Registry, load
from tenure.worker.settings import WorkerSettings

log = structlog.get_logger(__name__)


def main(settings: WorkerSettings) -> int:
    """Run a worker; return the process's exit code.

    Raises:
        ConfigurationError: a module cannot be imported, or two declare the same kind.
        Unavailable: etcd cannot be reached.
    """
    registry: Registry = load(settings.imports)
    return asyncio.run(_run(settings, registry))


async def _run(settings: WorkerSettings, registry: Registry) -> int:
    engines = Engines(registry, concurrency=settings.capacity, clock=SystemClock(), modules=settings.imports)
    try:
        from tenure.worker.worker import serve  # brings gRPC with it: after the forkserver

        await serve(settings, registry, engines)
    finally:
        await engines.close()
    return 0
