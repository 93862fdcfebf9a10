"""Which peers there are, and where their jobs live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tenure.bench.peers import installing

PROGRAMS = Path(__file__).with_name("programs")


class Place(StrEnum):
    """Where a peer's jobs live."""

    POSTGRES = "postgres"
    REDIS = "redis"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer. Its settings are in its program, ``programs/peer_<name>``, where its worker is made."""

    name: str
    install: Callable[[str], Path]
    """Makes it runnable and returns the interpreter for its program."""
    place: Place = Place.POSTGRES
    share: float = 1.0
    """How many of the jobs that tenure drains a slow peer drains, so that a run ends in minutes."""
    programs: Path = PROGRAMS
    """Where its module is, of a Python peer."""

    def command(self, interpreter: Path, part: str) -> list[str]:
        """Return the command line of one part of its program: ``prepare``, ``work`` or ``submit``."""
        suffix = ".mjs" if self.install is installing.node else ".py"
        return [str(interpreter), str(PROGRAMS / f"speak{suffix}"), f"peer_{self.name.replace('-', '_')}", part]


YARDSTICK = "pgqueuer"
"""What every other is divided by."""
PEERS = {
    peer.name: peer
    for peer in (
        Peer(YARDSTICK, installing.python),
        Peer("graphile-worker", installing.node),
        Peer("pg-boss", installing.node),
        Peer("procrastinate", installing.python, share=0.1),
        Peer("celery", installing.python, Place.REDIS, share=0.2),
    )
}
