"""The worker's entry point: what must exist before gRPC and threads do, then the worker.

The fork server of process handlers is started first: a process that has threads or gRPC in it cannot be forked safely.
"""

from __future__ import annotations

import asyncio

from tenure.model.clock import SystemClock
from tenure.model.logs import Level
from tenure.probes import garbage
from tenure.worker.execute.engines import Engines
from tenure.worker.execute.forkserver import start_forkserver
from tenure.worker.handler import Mode, Registry, load
from tenure.worker.kinds.builtin import builtin
from tenure.worker.kinds.egress import EgressPolicy
from tenure.worker.log_capture import capturing
from tenure.worker.settings import WorkerSettings


def main(settings: WorkerSettings) -> int:
    """Run a worker until it is told to stop; return the process's exit code.

    Raises:
        ConfigurationError: a module cannot be imported, or two declare the same kind.
    """
    kinds = builtin(allow_command=settings.allow_command, egress=EgressPolicy.allowing(settings.http_allow))
    registry = load(settings.imports, into=kinds)
    garbage.look_seldom()
    return asyncio.run(_run(settings, registry))


async def _run(settings: WorkerSettings, registry: Registry) -> int:
    needs_processes = registry.modes() & {Mode.PROCESS, Mode.COMMAND}
    forkserver = start_forkserver(settings.imports) if needs_processes else None
    engines = Engines(registry, concurrency=settings.capacity, clock=SystemClock(), forkserver=forkserver)
    try:
        from tenure.worker.worker import serve  # brings gRPC with it: after the fork server

        with capturing(10 * Level[settings.handler_log_level]):
            await serve(settings, registry, engines)
    finally:
        await engines.close()
    return 0
