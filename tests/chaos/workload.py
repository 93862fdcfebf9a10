"""The workload of a chaos run: jobs of every sort at a steady rate, by a client that knows nothing of the faults.

Owns: what is submitted, and the record of what the client was told: ``ok`` with the job, ``info`` where no answer came
(zero or one job), ``fail`` where it was refused. What is unknown is asked again under the same key until it is known
(``settle``). Some jobs are submitted twice on purpose, some depend on others, some fail a few times, some are canceled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.handlers import ASYNC, COMMAND, PARENT, PROCESS, THREAD
from tests.chaos.history import Limited, Recorder, Submit

from tenure.client import AsyncClient, NewJob, Retry
from tenure.model.errors import DeadlineExceeded, TenureError, Unavailable

KINDS = {ASYNC: 50, THREAD: 32, PROCESS: 10, COMMAND: 3, PARENT: 5}
TTL_S = {ASYNC: (2.0, 3.0), THREAD: (2.0, 3.0, 5.0), PROCESS: (4.0, 5.0), COMMAND: (4.0, 5.0), PARENT: (2.0, 3.0)}
LONG_SHARE, BATCH_SHARE, CHILD_SHARE = 0.12, 0.15, 0.1
AGAIN_SHARE, CANCEL_SHARE, FAIL_SHARE, DOOMED_SHARE = 0.05, 0.02, 0.06, 0.01
LIMIT, LIMIT_JOBS, LIMITED_SHARE = "narrow", 3, 0.06
CALL_S = 6.0
AT_ONCE = 64
"""Calls under way at most: beyond that a client waits, as one would."""
UNFINISHED = 1_500
"""Jobs at most; above, it pauses: what is left at the end must end in time, however slow the machine."""
_RETRY = Retry(max_attempts=4, initial_backoff_s=0.2, multiplier=1.5)


@dataclass(frozen=True, slots=True)
class Request:
    """What one call submits: one job, or a batch whose members may depend on each other."""

    jobs: tuple[NewJob, ...]

    @property
    def keys(self) -> list[str]:
        """The members' idempotency keys."""
        return [job.idempotency_key or "" for job in self.jobs]


class Workload:
    """Submits until told to stop. ``run`` is the body of a task.

    Args:
        client: of the coordinators.
        recorder: of the client's history.
        rng: what is submitted depends on it alone.
        rate: jobs per second.
    """

    def __init__(self, client: AsyncClient, recorder: Recorder, rng: random.Random, rate: float) -> None:
        self.submitted = 0
        self.without_answer = 0
        self.refused: list[str] = []
        self._client = client
        self._recorder = recorder
        self._rng = rng
        self._rate = rate
        self._numbers = itertools.count(1)
        self._known: deque[str] = deque(maxlen=400)
        """Jobs that others may depend on."""
        self._unknown: list[Request] = []
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._room = asyncio.Event()
        self._room.set()

    @property
    def unknown(self) -> int:
        """How many calls have had no answer yet."""
        return len(self._unknown)

    async def run(self, stop: asyncio.Event) -> None:
        """Submit at the rate until stopped; then wait for the calls under way."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await self._room.wait()
                request = self._request()
                due = max(due + len(request.jobs) / self._rate, time.monotonic() - 1.0)
                await self._gate.acquire()
                group.create_task(self._submit(request))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await stop.wait()

    def note_unfinished(self, jobs: int) -> None:
        """Pause while there are too many jobs."""
        if jobs > UNFINISHED:
            self._room.clear()
        else:
            self._room.set()

    async def set_limit(self) -> None:
        """Define the limit under which some of the jobs run."""
        await self._client.put_limit(LIMIT, concurrent=LIMIT_JOBS)
        self._recorder.write(Limited(at=time.monotonic(), limit=LIMIT, most=LIMIT_JOBS))

    async def settle(self) -> None:
        """Ask again for what is unknown, until all is known. Cancel it when that takes too long."""
        while self._unknown:
            for request in list(self._unknown):
                if await self._send(request):
                    self._unknown.remove(request)
            await asyncio.sleep(0.2)

    async def _submit(self, request: Request) -> None:
        try:
            if not await self._send(request):
                self._unknown.append(request)
                return
            roll = self._rng.random()
            if roll < AGAIN_SHARE:
                await self._send(request)
            elif roll < AGAIN_SHARE + CANCEL_SHARE:
                await self._cancel()
        finally:
            self._gate.release()

    async def _send(self, request: Request) -> bool:
        """Submit and record the answer. False where none came."""
        try:
            ids = await self._call(request)
        except (Unavailable, DeadlineExceeded):
            self.without_answer += 1
            self._record(request, "info")
            return False
        except TenureError as exc:
            self.refused.append(f"{request.keys[0]}: {exc}")
            self._record(request, "fail")
            return True
        self._record(request, "ok", ids)
        return True

    async def _call(self, request: Request) -> list[str]:
        if len(request.jobs) > 1:
            return [made.id for made in await self._client.submit_many(request.jobs)]
        (job,) = request.jobs
        values: dict[str, Any] = {name: getattr(job, name) for name in NewJob.__dataclass_fields__ if name != "ref"}
        return [(await self._client.submit(**values)).id]

    def _record(self, request: Request, outcome: str, ids: Sequence[str] = ()) -> None:
        by_ref = {job.ref: id for job, id in zip(request.jobs, ids, strict=False) if job.ref}
        for place, job in enumerate(request.jobs):
            parents = tuple(by_ref.get(name, name) for name in job.depends_on) if ids else ()
            self._recorder.write(
                Submit(
                    at=time.monotonic(),
                    key=job.idempotency_key or "",
                    outcome=outcome,
                    job=ids[place] if ids else "",
                    parents=parents,
                    limit=job.limits[0] if job.limits else "",
                )
            )
        if ids:
            self.submitted += len(ids)
            self._known.extend(ids)

    async def _cancel(self) -> None:
        with contextlib.suppress(TenureError):  # too late, or unknown: its end tells
            await self._client.cancel(self._rng.choice(self._known), reason="by chance")

    def _request(self) -> Request:
        if self._rng.random() >= BATCH_SHARE:
            parents = (self._rng.choice(self._known),) if self._known and self._rng.random() < CHILD_SHARE else ()
            return Request((replace(self._job(), depends_on=parents),))
        return self._diamond() if self._rng.random() < 0.5 else Request(tuple(self._job() for _ in range(5)))

    def _diamond(self) -> Request:
        """One job, two that wait for it, one that waits for those."""
        first, left, right, last = (replace(self._job(), ref=name) for name in ("first", "left", "right", "last"))
        return Request(
            (
                first,
                replace(left, depends_on=("first",)),
                replace(right, depends_on=("first",)),
                replace(last, depends_on=("left", "right")),
            )
        )

    def _job(self) -> NewJob:
        rng = self._rng
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        seconds = rng.uniform(2.0, 6.0) if rng.random() < LONG_SHARE else rng.expovariate(1 / 0.15)
        payload: dict[str, object] = {"seconds": round(min(seconds, 6.0), 2)}
        if kind == PARENT:
            payload["children"] = rng.randint(1, 3)
        if kind != COMMAND and (roll := rng.random()) < FAIL_SHARE:
            payload["fails"] = 1_000 if roll < DOOMED_SHARE else rng.randint(1, 2)
        return NewJob(
            kind=kind,
            payload=payload,
            priority=rng.choice((0, 0, 0, 5)),
            delay_s=round(rng.uniform(0.1, 2.0), 2) if rng.random() < 0.05 else None,
            retry=_RETRY,
            ttl_s=rng.choice(TTL_S[kind]),
            max_crashes=20,
            limits=(LIMIT,) if rng.random() < LIMITED_SHARE else (),
            idempotency_key=f"chaos-{next(self._numbers)}",
        )


def client_of(addresses: Sequence[str]) -> AsyncClient:
    """Return the workload's client: one that gives up soon, so that it learns what no answer is like."""
    return AsyncClient(addresses, timeout_s=CALL_S)
