"""A worker's process to be stopped or killed by ``test_worker_death``: runs one attempt and renews its trust.

Arguments: the file into which the handler writes its pid, the kind, the seconds of trust per renewal.
"""

from __future__ import annotations

import asyncio
import sys

from tests.worker_execute import sample_handlers
from tests.worker_execute.test_async_engine import Trusted

from tenure.model.clock import SystemClock
from tenure.worker.execute.call import Assignment, Call, Ended
from tenure.worker.execute.engines import Engines
from tenure.worker.execute.forkserver import start_forkserver
from tenure.worker.handler import Handler, Registry, command_handler, definitions_of


class Renewing(Trusted):
    """Trusts for ``ttl_s`` from every renewal, as a claim with KeepAlives does."""

    def __init__(self, ttl_s: float) -> None:
        self.clock = SystemClock()
        self.ttl_s = ttl_s
        self.until = self.clock.monotonic() + ttl_s

    def deadline(self) -> float:
        return self.until

    async def renew(self) -> None:
        while True:
            self.until = self.clock.monotonic() + self.ttl_s
            await asyncio.sleep(self.ttl_s / 3)


async def main(path: str, kind: str, ttl_s: float) -> None:
    script = f"trap '' TERM; (trap '' TERM; sleep 300) & echo $! > {path}.child; echo $$ > {path}; wait; sleep 300"
    command = command_handler("program", ["sh", "-c", script])
    handler: Handler = command if kind == "program" else definitions_of(sample_handlers.stubborn)[0]
    engines = Engines(Registry([handler]), forkserver=start_forkserver([sample_handlers.__name__]))
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    reporter = Renewing(ttl_s)
    payload = f'"{path}"'
    engines.begin(
        Call(handler, Assignment("job", 1, 1, "default", kind, "default", payload), reporter, ended.set_result)
    )
    renewing = asyncio.create_task(reporter.renew())
    print((await ended).outcome, flush=True)
    renewing.cancel()
    await engines.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
