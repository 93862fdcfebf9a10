"""The object store of a coordinator: opened with its settings, and what is signed for it.

A coordinator without one, or whose store does not answer, does everything else.
"""

from __future__ import annotations

import structlog

from tenure.coordinator.object_tokens import ObjectSigner
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.transfers import transfers_of
from tenure.coordinator.uploads import ObjectAccess
from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.opening import open_store
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)


def store_of(settings: CoordinatorSettings) -> ObjectStore | None:
    """Return the object store, or None where there is none. Nothing is asked of it yet.

    Raises:
        ConfigurationError: it cannot be used.
    """
    return open_store(settings.object_store, settings.store_options()) if settings.object_store else None


def access_to(store: ObjectStore, signer: ObjectSigner, clock: Clock) -> ObjectAccess:
    """Return a store with what signs for it."""
    return ObjectAccess(store, transfers_of(store, signer, clock), signer)


async def recognize(store: ObjectStore, database: Database) -> None:
    """Have a folder be of use only while it is the one that the database knows; make the first one known to it.

    Raises:
        Unavailable: Postgres does not answer.
    """
    if not isinstance(store, FolderObjects):
        return
    [known] = await database.fetch("known_object_store")
    if known.id is None:
        try:
            mark = await store.mark()
        except TenureError as exc:  # the next start makes it known
            log.warning("object_store_not_marked", error=exc.message, next_step=exc.hint)
            return
        await database.fetch("know_object_store", {"id": mark})
        [known] = await database.fetch("known_object_store")
    store.expect(known.id)


async def tell_of(store: ObjectStore) -> None:
    """Say in the log if a store is of no use now: uploads fail until it is."""
    try:
        await store.check()
    except TenureError as exc:
        log.error("object_store_unusable", error=exc.message, next_step=exc.hint)
