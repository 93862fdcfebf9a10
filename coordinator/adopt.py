"""Files of the archive that the database does not know, and taking in what they hold.

So it is after Postgres was restored to a time before they were made: the jobs that they hold are in history again, and
will be archived again; but those that came into being after that time are nowhere else. To adopt a file is to write
another one with just these, which counts from then on, and to have the first one deleted. Killed in between, it leaves
a file more that the database does not know, of which nothing is missing elsewhere once the other one was adopted.
Nothing here runs by itself: somebody says so (``tenure archive adopt``).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tenure.coordinator import archive_format
from tenure.coordinator.archive import CONTENT_TYPE, POLICY
from tenure.coordinator.archived import Archived
from tenure.coordinator.retain import policy_of
from tenure.model.archive import (
    ARCHIVE_PREFIX,
    SCHEMA_VERSION,
    SUFFIX,
    Expired,
    Plan,
    made_ms,
    manifest_key,
    manifest_of,
    mark_of,
)
from tenure.model.errors import FieldViolation, InvalidInput, Locked, NotFound, WrongState
from tenure.model.ids import new_id
from tenure.model.retention import Policy, policy_for
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Statement
from tenure.store.postgres.together import all_or_none

PAGE_OBJECTS = 1_000
IDS_AT_ONCE = 1_000


class Adopted(NamedTuple):
    """What became of a file."""

    file: uuid.UUID | None
    """That counts now; None: nothing of it was missing elsewhere."""
    known: int
    """Jobs that are in the database, or in another file that counts."""


async def unknown_files(database: Database, archived: Archived, after: str) -> tuple[list[str], str | None]:
    """Return keys of files that the database does not know, of a page of objects; and after which the next one begins.

    Raises:
        WrongState: there is no archive. Unavailable: the object store does not answer.
    """
    keys: list[str] = []
    async for page in _store(archived).list(ARCHIVE_PREFIX, after=after):
        keys += [one.key for one in page]
        if len(keys) >= PAGE_OBJECTS:
            break
    files = [key for key in keys if key.endswith(SUFFIX)]
    known = {row.key for row in await database.fetch("known_archive_keys", {"keys": files})}
    return [key for key in files if key not in known], keys[-1] if len(keys) >= PAGE_OBJECTS else None


async def adopt(database: Database, archived: Archived, key: str) -> Adopted:
    """Let those jobs of a file count that are nowhere else, and have it deleted.

    Raises:
        InvalidInput: no file of the archive is named so. NotFound: there is no such file. WrongState: it is known, or
            cannot be read, or another file with jobs of its time came to count meanwhile: ask again. Unavailable: a
            store, or another file in which its jobs may be, does not answer.
    """
    objects = _store(archived)
    if not key.startswith(ARCHIVE_PREFIX) or not key.endswith(SUFFIX):
        raise InvalidInput([FieldViolation("key", f"must begin with {ARCHIVE_PREFIX} and end with {SUFFIX}")])
    refused = WrongState(f"{key} is no file that the database does not know", hint="tenure archive verify")
    if await database.fetch("known_archive_keys", {"keys": [key]}):
        raise refused
    [now] = await database.fetch("time")
    data = await objects.get(key)
    ids = [uuid.UUID(id) for id in await asyncio.to_thread(archive_format.ids_of, data)]
    if not ids:
        raise WrongState(f"{key} cannot be read as a file of the archive")
    known = await _known(database, objects, ids)
    missing = [id for id in ids if id not in known]
    found = await asyncio.to_thread(archive_format.only, data, {str(id) for id in missing} or {str(ids[0])})
    jobs = [Expired(id, one.namespace, one.created_at, one.finished_at, 0) for id, one in found.jobs.items()]
    policies = [policy_of(row) for row in await database.fetch("retention_policies")]
    decides = _longest(policies, {(one.namespace, one.kind, one.state) for one in found.jobs.values()})
    plan = Plan(new_id(), jobs)
    sha256 = hashlib.sha256(found.data).digest()
    storage_class = decides.storage_class if decides else None
    if missing:
        await objects.put(plan.key, found.data, content_type=CONTENT_TYPE, storage_class=storage_class)
        manifest = manifest_of(plan, len(found.data), sha256)
        await objects.put(manifest_key(plan.key), manifest, content_type="application/json")
    row: dict[str, Any] = {
        "id": plan.file,
        "old_id": new_id(),
        "looked_at": now.now,
        "old_key": key,
        "namespace": plan.namespace,
        "key": plan.key,
        "jobs": len(missing),
        "first_id": plan.ids[0],
        "last_id": plan.ids[-1],
        "made_from": made_ms(plan.ids[0]),
        "made_until": made_ms(plan.ids[-1]),
        "finished_from": plan.finished_from,
        "finished_until": plan.finished_until,
        "size_bytes": len(found.data),
        "sha256": sha256,
        "schema_version": SCHEMA_VERSION,
        "marks": [mark_of(id) for id in plan.ids],
        "storage_class": storage_class,
        **dict(zip(POLICY, (decides.namespace, decides.kind, decides.state) if decides else (None,) * 3, strict=True)),
    }
    try:
        await all_or_none(database, [Statement("lock_retention", {}), Statement("adopt_archive_file", row)])
    except Locked as exc:  # somebody else has adopted it meanwhile, or made a file that may hold the same jobs
        if missing:
            await objects.delete([plan.key, manifest_key(plan.key)])
        raise refused from exc
    return Adopted(plan.file if missing else None, len(known))


def _longest(policies: Sequence[Policy], jobs: Iterable[tuple[str, str, str]]) -> Policy | None:
    """Return the policy that says for longest, of those that decide about such jobs; None: for ever, without one."""
    deciding = {policy_for(policies, *job) for job in jobs}
    return max(deciding, key=lambda one: math.inf if one is None or one.archive_keep_s is None else one.archive_keep_s)


async def _known(database: Database, objects: ObjectStore, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of these jobs are in the database, or in a file that counts."""
    known: set[uuid.UUID] = set()
    for some in _pieces(ids):
        known |= {row.id for row in await database.fetch("known_of_jobs", {"ids": some})}
    for some in _pieces([id for id in ids if id not in known]):
        asked = {"ids": some, "made_ms": [made_ms(id) for id in some], "marks": [mark_of(id) for id in some]}
        for file in await database.fetch("archive_files_of_jobs", asked):
            try:
                other = await objects.get(file.key)
            except NotFound:
                continue  # it says that they are there, and they are not
            known |= {uuid.UUID(id) for id in await asyncio.to_thread(archive_format.ids_of, other)} & set(some)
    return known


def _pieces(ids: Sequence[uuid.UUID]) -> Iterator[list[uuid.UUID]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield list(ids[start : start + IDS_AT_ONCE])


def _store(archived: Archived) -> ObjectStore:
    problem = archived.missing()
    if problem is not None or archived.objects is None:
        raise WrongState(f"there is no archive: {problem}")
    return archived.objects
