"""A file of an attempt on its way into the object store: asked for, sent, and said to be there.

Sent again a bounded number of times, or as long as a ``Watch`` lets it. An artifact is sent only while the attempt's
claim is trusted; of a result, whose handler has ended, the fence alone decides. Results have places (threads,
connections) of their own, so that none waits behind large files. Invariant: what returns is recorded under the
attempt's fence. The link says where to send what; ``tenure.v1.transfer`` sends it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import InvalidInput, OwnershipLost, TenureError, Unavailable, WrongState
from tenure.model.objects import DEFAULT_CONTENT_TYPE, OBJECTS_PATH, RESULT
from tenure.v1.transfer import THREADS, Files, Measured, Stopped, UrlExpired
from tenure.worker.artifact import Artifact, Source

if TYPE_CHECKING:
    from tenure.worker.link import Started

log = structlog.get_logger(__name__)

TRIES = 5
"""Of a file that goes whole, and of each part."""
RESULT_THREADS = 2 * THREADS
"""So that results do not wait for those that were given up, whose threads still wait for an answer."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 8.0
_FINAL = (InvalidInput, OwnershipLost, WrongState, Stopped)
"""What will be so the next time, too. Whatever else is wrong may be gone then: a coordinator is away, or of an older
release, or what was sent is not there."""


class Wanted(NamedTuple):
    """A file to be saved."""

    name: str
    size_bytes: int
    sha256: bytes
    content_type: str = DEFAULT_CONTENT_TYPE
    upload: str = ""
    """The upload in parts that is under way."""


class Plan(NamedTuple):
    """Where to send it: whole, or in parts."""

    upload: str
    url: str = ""
    headers: Mapping[str, str] = {}  # never changed
    part_bytes: int = 0
    part_urls: Sequence[str] = ()


class UploadCalls(Protocol):
    """What a coordinator is asked for."""

    async def create_upload(self, started: Started, wanted: Wanted) -> Plan:
        """Ask where to send a file. Raises ``OwnershipLost``, ``InvalidInput``, ``WrongState``: no object store."""
        ...

    async def complete_upload(self, started: Started, upload: str, tags: Sequence[str]) -> None:
        """Say that it was sent. Raises ``OwnershipLost``, ``NotFound``."""
        ...

    def turn_away(self) -> None:
        """Let the next calls go to another coordinator, if there is one."""
        ...

    def trusted_until(self, started: Started) -> float:
        """Return the monotonic instant until which the attempt's claim is trusted."""
        ...


class Watch:
    """Over an upload that is given up when it does not get on for a while, or when it is too late. From any thread."""

    def __init__(self, clock: Clock, patience_s: float, until: float) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._until = until
        self._moved_at = clock.monotonic()
        self._reached = 0
        self._tries = TRIES

    @property
    def until(self) -> float:
        """The monotonic instant at which it is given up, unless it gets on before."""
        return min(self._until, self._moved_at + self._patience_s)

    def reached(self, end: int) -> None:
        """Take note that the bytes up to ``end`` were taken; what was taken before, in this try, is no progress."""
        if end > self._reached:
            self._reached, self._moved_at = end, self._clock.monotonic()

    def begin_again(self) -> None:
        """Count the bytes of another try from the first one on, for ``TRIES`` tries in all.

        What is sent anew would else be no progress until it is beyond where the last try got, which may take a slow
        line longer than the patience.
        """
        self._tries -= 1
        if self._tries > 0:
            self._reached = 0


@dataclass
class Patience:
    """How often something is tried again, or until when."""

    clock: Clock
    watch: Watch | None
    tries: int = TRIES
    pause_s: float = field(default=FIRST_PAUSE_S)

    async def bear(self, exc: TenureError) -> None:
        """Wait before another try, or raise the error: there is none."""
        if isinstance(exc, _FINAL):
            raise exc
        self.tries -= 1
        pause_s = self.pause_s * random.uniform(0.5, 1.0)
        if self.tries <= 0 if self.watch is None else self.clock.monotonic() + pause_s >= self.watch.until:
            raise exc
        log.info("upload_tried_again", error=exc.message)
        await self.clock.sleep(pause_s)
        self.pause_s = min(2 * self.pause_s, MAX_PAUSE_S)


class Uploader:
    """Uploads files of attempts."""

    def __init__(self, calls: UploadCalls, files: Files, clock: Clock) -> None:
        self.files = files
        self._calls = calls
        self._files = files
        self._result_files = files.beside(RESULT_THREADS)
        self._clock = clock

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, watch: Watch | None = None
    ) -> Artifact:
        """Save a file. With a watch it is tried again for as long as that says, else ``TRIES`` times.

        Raises:
            OwnershipLost: the claim is gone. InvalidInput: it is too large, or no file. WrongState: there is no object
            store. Unavailable: it could not be sent.
        """
        files = self._result_files if name == RESULT else self._files
        measured = await files.measure(source)
        wanted = Wanted(name, measured.size_bytes, measured.sha256, content_type)
        patience = Patience(self._clock, watch)
        reached = None if watch is None else watch.reached
        while True:
            try:
                self._require_trust(started, wanted)
                plan = await self._calls.create_upload(started, wanted)
                tags: list[str] = []
                if plan.url:
                    await self._put(files, plan, source, measured.size_bytes, reached)
                else:
                    tags = await self._send_parts(started, wanted, plan, source, measured, watch)
                await self._calls.complete_upload(started, plan.upload, tags)
            except TenureError as exc:
                await patience.bear(exc)
                if watch is not None:
                    watch.begin_again()
            else:
                return Artifact(name, measured.size_bytes, measured.sha256.hex())

    async def _put(
        self, files: Files, plan: Plan, source: Source, length: int, reached: Callable[[int], None] | None
    ) -> None:
        try:
            await files.put(plan.url, source, start=0, length=length, headers=plan.headers, reached=reached)
        except Unavailable:
            if OBJECTS_PATH in plan.url:  # a coordinator's: it has no place, or is not reached, and another one may be
                self._calls.turn_away()
            raise

    async def _send_parts(
        self, started: Started, wanted: Wanted, plan: Plan, source: Source, measured: Measured, watch: Watch | None
    ) -> list[str]:
        tags: list[str] = []
        urls = plan.part_urls
        for number in range(len(urls)):
            patience = Patience(self._clock, watch)
            start = number * plan.part_bytes
            length = min(plan.part_bytes, measured.size_bytes - start)
            while True:
                self._require_trust(started, wanted)
                try:
                    tags.append(await self._files.put(urls[number], source, start=start, length=length, headers={}))
                    break
                except UrlExpired as exc:
                    await patience.bear(exc)
                    urls = (await self._calls.create_upload(started, wanted._replace(upload=plan.upload))).part_urls
                except Unavailable as exc:
                    await patience.bear(exc)
        return tags

    def _require_trust(self, started: Started, wanted: Wanted) -> None:
        if wanted.name == RESULT:
            return  # its handler has ended: the fence decides, as with the report that follows
        if self._clock.monotonic() >= self._calls.trusted_until(started):
            raise OwnershipLost(f"the claim of job {started.assignment.job_id} is not trusted any more")
