"""The keys that tokens are signed with, as Postgres has them now: one, or two while one takes the place of the other.

``tenure db signing-key --replace`` makes a new key. Every coordinator reads it within ``LOOK_S``, takes what is signed
with it from then on, and signs with it from an instant on that lies later by several such looks, so that no coordinator
meets a token that it cannot read. What was signed with the key before is taken for as long as the command said; runners
are given newer tokens in the place of theirs as they renew. Invariant: a coordinator that has not read the keys of late
refuses nobody for a key that it does not know: it cannot say.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog

from tenure.coordinator.object_tokens import ObjectSigner
from tenure.coordinator.runner_tokens import Signer
from tenure.dashboard.sessions import SessionKeys
from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

LOOK_S = 5.0
FRESH_S = 15.0
"""Half of what coordinators have to learn of a key before anybody signs with it (``store.postgres.signing_key``)."""


class Keys(NamedTuple):
    """The keys that are known, newest first, and which of them signs."""

    known: tuple[bytes, ...]
    signing: int = 0


async def read_keys(database: Database) -> Keys:
    """Return the installation's keys, as they are now.

    Raises:
        Unavailable: Postgres does not answer.
    """
    [row] = await database.fetch("signing_key")
    if row.previous is None:
        return Keys((bytes(row.key),))
    return Keys((bytes(row.key), bytes(row.previous)), signing=0 if row.signs else 1)


class SigningKeys:
    """The signers have the keys once ``refresh`` was called; ``keep_fresh`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock, sessions: SessionKeys | None = None) -> None:
        """``sessions`` are the keys of the dashboard's, where there is one."""
        self._database = database
        self._clock = clock
        self.sessions = sessions or SessionKeys()
        self._read_at = float("-inf")
        self.signer = Signer(is_fresh=self._is_fresh)
        self.object_signer = ObjectSigner(is_fresh=self._is_fresh)

    async def refresh(self) -> None:
        """Read the keys. Raises ``Unavailable``."""
        read_at = self._clock.monotonic()
        keys = await read_keys(self._database)
        self.object_signer.use(*keys)
        self.sessions.use(*keys)
        if self.signer.use(*keys):
            log.info(
                "signing_keys_read", keys=len(keys.known), signs="newest" if keys.signing == 0 else "the one before"
            )
        self._read_at = read_at

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.refresh()
            except TenureError as exc:
                log.warning("signing_keys_not_refreshed", error=exc.message)

    def _is_fresh(self) -> bool:
        return self._clock.monotonic() - self._read_at < FRESH_S
