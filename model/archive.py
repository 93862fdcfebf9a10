"""The archive: where its files lie, what is said of them, and how a job's file is found. Pure.

A file is Parquet (``coordinator.archive_format`` has the columns) with jobs of one namespace and one policy that
retention has removed from Postgres. Its manifest lies beside it: one JSON object. Keys:
``_archive/<namespace>/<yyyy>/<mm>/<dd>/<file>.parquet``, by the UTC day on which the first of its jobs ended. Jobs in
a file are in the order of their ids.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tenure.model.batch import pieces

SCHEMA_VERSION = 1
"""Of the columns of a file. A later one has more columns; what a column means never changes."""
SUFFIX = ".parquet"
MANIFEST_SUFFIX = ".json"
ARCHIVE_PREFIX = "_archive/"
MAX_FILE_JOBS = 10_000
"""They leave Postgres in one transaction."""
MAX_FILE_BYTES = 32 * 1024 * 1024
"""Of a file before compression, by what its jobs take in Postgres: it is held in memory."""
GROUP_JOBS = 1_000
GROUP_BYTES = 4 * 1024 * 1024
"""Of a row group: what is read to answer for one job of it."""
MAX_GATHERED_JOBS = 50_000
"""Of all namespaces, that wait for their files to fill."""


_Group = tuple[str, tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Expired:
    """A job that is to be archived."""

    id: uuid.UUID
    namespace: str
    created_at: datetime
    finished_at: datetime
    weight: int
    """About how many bytes it takes."""
    policy: tuple[str, str, str] = ("", "", "")
    """Namespace, kind and state of the policy that decides about it."""
    storage_class: str | None = None
    """That its policy asks for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A file that is to be made: of these jobs, in the order of their ids."""

    file: uuid.UUID
    jobs: Sequence[Expired]

    @property
    def namespace(self) -> str:
        """Whose jobs they are."""
        return self.jobs[0].namespace

    @property
    def group(self) -> _Group:
        """Return what all of them have in common."""
        return self.namespace, self.policy

    @property
    def policy(self) -> tuple[str, str, str]:
        """Return which policy decides about them."""
        return self.jobs[0].policy

    @property
    def storage_class(self) -> str | None:
        """Return in which storage class the file is to lie."""
        return self.jobs[0].storage_class

    @property
    def ids(self) -> list[uuid.UUID]:
        """Return the ids of the jobs."""
        return [job.id for job in self.jobs]

    @property
    def finished_from(self) -> datetime:
        """Return when the first of them ended."""
        return min(job.finished_at for job in self.jobs)

    @property
    def finished_until(self) -> datetime:
        """Return when the last of them ended."""
        return max(job.finished_at for job in self.jobs)

    @property
    def made_at(self) -> datetime:
        """Return a time before which none of them was made."""
        return min(job.created_at for job in self.jobs)

    @property
    def key(self) -> str:
        """Return where the file lies."""
        return file_key(self.namespace, self.finished_from, self.file)

    def groups(self) -> list[list[Expired]]:
        """Return the jobs of each row group."""
        return list(pieces(self.jobs, lambda job: job.weight, max_weight=GROUP_BYTES, max_items=GROUP_JOBS))


class Gathering:
    """Jobs on their way into files: by namespace and policy, until there are enough for a file."""

    def __init__(self, max_jobs: int = MAX_FILE_JOBS, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.max_jobs = max_jobs
        """Of a file; may change meanwhile."""
        self._max_bytes = max_bytes
        self._jobs: dict[_Group, list[Expired]] = {}
        self._weights: dict[_Group, int] = {}

    def add(self, jobs: Iterable[Expired]) -> Iterator[list[Expired]]:
        """Take jobs, in the order of their ids; yield those of each file when it is full."""
        for job in jobs:
            group = job.namespace, job.policy
            weight = self._weights.get(group, 0)
            if weight and weight + job.weight > self._max_bytes:
                yield self._take(group)
            self._jobs.setdefault(group, []).append(job)
            self._weights[group] = self._weights.get(group, 0) + job.weight
            if len(self._jobs[group]) >= self.max_jobs:
                yield self._take(group)
        while sum(map(len, self._jobs.values())) > MAX_GATHERED_JOBS:
            yield self._take(max(self._jobs, key=lambda group: len(self._jobs[group])))

    def rest(self) -> list[list[Expired]]:
        """Return all that is left, whether it fills a file or not."""
        return [self._take(group) for group in sorted(self._jobs)]

    def _take(self, group: _Group) -> list[Expired]:
        del self._weights[group]
        return self._jobs.pop(group)


def file_key(namespace: str, first_end: datetime, file: uuid.UUID) -> str:
    """Return the key of a file."""
    return f"{ARCHIVE_PREFIX}{namespace}/{first_end.astimezone(UTC):%Y/%m/%d}/{file}{SUFFIX}"


def manifest_key(key: str) -> str:
    """Return the key of a file's manifest."""
    return key.removesuffix(SUFFIX) + MANIFEST_SUFFIX


def manifest_of(plan: Plan, size_bytes: int, sha256: bytes) -> bytes:
    """Return what lies beside a file: what it holds, and how to tell that it is whole."""
    told = {
        "file": str(plan.file),
        "key": plan.key,
        "namespace": plan.namespace,
        "schema_version": SCHEMA_VERSION,
        "rows": len(plan.jobs),
        "size_bytes": size_bytes,
        "sha256": sha256.hex(),
        "first_id": str(plan.jobs[0].id),
        "last_id": str(plan.jobs[-1].id),
        "finished_from": plan.finished_from.astimezone(UTC).isoformat(),
        "finished_until": plan.finished_until.astimezone(UTC).isoformat(),
    }
    return json.dumps(told, indent=1).encode() + b"\n"


def mark_of(job: uuid.UUID) -> int:
    """Return the last four bytes of an id, which are random, as Postgres' integer: what is kept of each archived job.

    That one of the ten thousand jobs in a file has the mark of another one that is looked for has a probability of one
    in 400,000. Then a row group is read in vain.
    """
    return int.from_bytes(job.bytes[-4:], "big", signed=True)


def made_ms(job: uuid.UUID) -> int:
    """Return when a job was made, by its id."""
    return job.int >> 80
