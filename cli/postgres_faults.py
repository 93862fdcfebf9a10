"""Which known faults of Postgres a version has, and until when it is maintained. Pure; read by ``tenure doctor``.

Only faults that lose data or let one user of the database take over the server; the words are Postgres's own releases'.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

OLDEST = 14
"""The oldest that tenure runs on."""
NEWEST = 18
"""The newest that was tried."""
MAINTAINED_UNTIL = {
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}


@dataclass(frozen=True, slots=True)
class PostgresFault:
    """One fault. ``fixed_in`` has the first release without it per major version; one that is missing never had it."""

    words: str
    fixed_in: dict[int, int]


FAULTS = (
    PostgresFault("an index built or rebuilt CONCURRENTLY can miss rows", {14: 4}),
    PostgresFault(
        "any user of the database can run code of its own in the server (CVE-2023-5869)", {14: 10, 15: 5, 16: 1}
    ),
)


def faults_of(server_version: int) -> list[str]:
    """Return the faults of a version (as ``server_version_num`` says it), each with the release that mends it."""
    major, minor = divmod(server_version, 10_000)
    return [
        f"{fault.words} (fixed in {major}.{fault.fixed_in[major]})"
        for fault in FAULTS
        if minor < fault.fixed_in.get(major, 0)
    ]


def maintained_until(server_version: int) -> date | None:
    """Return the last day on which faults of a major version are mended; None if it is not known."""
    return MAINTAINED_UNTIL.get(server_version // 10_000)
