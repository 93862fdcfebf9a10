"""Whether the object store is of use, tried out: for ``tenure doctor``, whose caller holds no credentials of it.

Writes, finds, reads, fetches by a signed URL, and deletes one small object under ``_check/``, which no namespace is
named. One at a time, so that whoever asks again and again costs little. Invariant: the steps stop at the first that
fails, but for the comparison of clocks, after which the rest is still of interest; what was written is deleted in any
case; each step is bounded in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from tenure.coordinator.transfers import File
from tenure.coordinator.uploads import ObjectAccess
from tenure.model.clock import Clock
from tenure.model.errors import TenureError, Unavailable
from tenure.model.objects import DEFAULT_CONTENT_TYPE
from tenure.v1.transfer import Files, Measured

PREFIX = "_check/"
STEP_S = 10.0
MAX_SKEW_S = 60.0
"""Signed URLs are good for ten minutes; S3 refuses what was signed a quarter of an hour off."""


class Step(NamedTuple):
    """What was tried. Without ``problem`` it worked."""

    name: str
    took_s: float
    problem: str = ""
    hint: str = ""


class StoreProbe:
    """Tries the store out. Without ``objects`` there is none."""

    def __init__(self, clock: Clock, *, ca_files: tuple[Path | None, ...] = ()) -> None:
        self.objects: ObjectAccess | None = None
        self.base_url = ""
        """Where a URL is that is a path."""
        self._clock = clock
        self._ca_files = ca_files
        self._turn = asyncio.Lock()

    async def steps(self) -> list[Step]:
        """Return what was tried, in order."""
        if self.objects is None:
            return []
        async with self._turn:
            return await self._try_out(self.objects)

    async def _try_out(self, objects: ObjectAccess) -> list[Step]:
        store, data = objects.store, secrets.token_bytes(64)
        key = PREFIX + secrets.token_hex(16)
        file = File(key, len(data), hashlib.sha256(data).digest(), DEFAULT_CONTENT_TYPE)
        steps: list[Step] = []

        async def clocks() -> None:
            found = await store.head(key)
            if found is None:
                raise Unavailable("what was written is not found")
            skew_s = (found.modified_at - self._clock.wall()) / timedelta(seconds=1)
            if abs(skew_s) > MAX_SKEW_S:
                told = f"its clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this coordinator's"
                raise Unavailable(told, hint="set the clocks; signed URLs expire by them")

        async def read() -> None:
            if await store.get(key) != data:
                raise Unavailable("what was read is not what was written")

        async def fetch() -> None:
            url = (await objects.transfers.download(file, "check")).url
            files = Files(ca_files=self._ca_files)
            try:
                await files.fetch(
                    self.base_url + url if url.startswith("/") else url, Measured(file.size_bytes, file.sha256)
                )
            finally:
                files.close()

        for name, step in (
            ("write", lambda: store.put(key, data)),
            ("clock", clocks),
            ("read", read),
            ("fetch by a signed URL", fetch),
        ):
            steps.append(await self._timed(name, step))
            if steps[-1].problem and name != "clock":
                break
        deleted = await self._timed("delete", lambda: store.delete([key]))
        return steps if steps[0].problem and deleted.problem else [*steps, deleted]

    async def _timed(self, name: str, step: Callable[[], Awaitable[Any]]) -> Step:
        began = self._clock.monotonic()
        problem = hint = ""
        try:
            async with asyncio.timeout(STEP_S):
                await step()
        except TimeoutError:
            problem = f"no answer within {STEP_S:g} s"
        except TenureError as exc:
            problem, hint = exc.message, exc.hint or ""
        return Step(name, self._clock.monotonic() - began, problem, hint)
