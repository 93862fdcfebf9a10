"""Settings of kinds, as this coordinator applies them to what is submitted and to what schedules fire.

A cached copy, read again every half second: a change is heeded by every coordinator within a second, by the one that
made it at once. A failure to read leaves the older copy; a coordinator without Postgres writes no jobs either.
"""

from __future__ import annotations

import structlog
from pydantic import ValidationError

from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.model.kinds import KindBook, KindSettings
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

REFRESH_S = 0.5


class Kinds:
    """The cache; every coordinator has one. ``keep_fresh`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._read: tuple[tuple[str, str, str], ...] = ()
        self.book = KindBook({})

    async def refresh(self) -> None:
        """Read the settings again, and understand them anew if any has changed."""
        rows = await self._database.fetch("kinds")
        read = tuple((row.namespace, row.name, row.settings) for row in rows)
        if read != self._read:
            self.book = _book_of(read)
            self._read = read

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await self.refresh()
            except TenureError as exc:
                log.warning("kinds_not_refreshed", error=exc.message)


def _book_of(read: tuple[tuple[str, str, str], ...]) -> KindBook:
    settings = {}
    for namespace, name, text in read:
        try:
            settings[namespace, name] = KindSettings.model_validate_json(text)
        except ValidationError as exc:  # written by hand: it holds up no other
            log.error("kind_settings_unreadable", namespace=namespace, kind=name, error=str(exc))
    return KindBook(settings)
