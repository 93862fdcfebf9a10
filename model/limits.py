"""Limits: how many jobs that carry a name may run at a time, and how many may start per interval. Pure.

A definition names one limit, or, ending in ``*``, a family of them: ``scan:*`` gives ``scan:acme`` and ``scan:globex``
a limit each, with the same numbers. A name that no definition covers is no limit. Concurrency is counted in slots (keys
on the claims' own leases), starts in tokens of a bucket that Postgres keeps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.routes import LIMIT_RULE, limit_error

_Definition = TypeVar("_Definition")
FAMILY = "*"
MAX_CONCURRENT = 100_000
MAX_RATE = 1_000_000
MAX_INTERVAL_S = 86_400.0
MAX_FILL_S = 7 * 86_400.0
"""Buckets that were not touched for longer are full, and forgotten."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A definition. At least one of ``concurrent`` and ``rate`` is given; 0 lets nothing run."""

    name: str
    concurrent: int | None = None
    """Slots: jobs at a time."""
    rate: int | None = None
    """Starts per ``interval_s``."""
    interval_s: float = 1.0
    burst: int | None = None
    """The most starts at once after a quiet time; default: ``rate``."""

    @property
    def bucket(self) -> int:
        """Tokens that a full bucket holds."""
        return (self.rate or 0) if self.burst is None else self.burst

    def level(self, tokens: float, elapsed_s: float) -> float:
        """Return what a bucket holds after ``elapsed_s`` in which nothing was taken."""
        return min(float(self.bucket), tokens + max(0.0, elapsed_s) * (self.rate or 0) / self.interval_s)

    def wait_s(self, tokens: float) -> float:
        """Return how long it takes until a bucket that holds ``tokens`` has a whole one."""
        if tokens >= 1:
            return 0.0
        return (1 - tokens) * self.interval_s / self.rate if self.rate and self.bucket >= 1 else math.inf


def validate_limit(limit: Limit) -> Limit:
    """Return the definition if it is one.

    Raises:
        InvalidInput: with every violation.
    """
    found: list[FieldViolation] = []

    def require(holds: bool, field: str, rule: str) -> None:
        if not holds:
            found.append(FieldViolation(f"limit.{field}", rule))

    require(_names(limit.name), "name", f"must be {LIMIT_RULE}; a * at its end makes it a family")
    require(limit.concurrent is not None or limit.rate is not None, "concurrent", "give concurrent, rate or both")
    require(
        limit.concurrent is None or 0 <= limit.concurrent <= MAX_CONCURRENT,
        "concurrent",
        f"must be 0 to {MAX_CONCURRENT}",
    )
    require(limit.rate is None or 0 <= limit.rate <= MAX_RATE, "rate", f"must be 0 to {MAX_RATE}")
    require(0 < limit.interval_s <= MAX_INTERVAL_S, "interval", f"must be above 0, at most {MAX_INTERVAL_S:g} s")
    require(limit.burst is None or 1 <= limit.burst <= MAX_RATE, "burst", f"must be 1 to {MAX_RATE}")
    require(limit.burst is None or limit.rate is not None, "burst", "belongs to a rate")
    if limit.rate and limit.burst is not None:
        fills_in_s = limit.burst * limit.interval_s / limit.rate
        require(fills_in_s <= MAX_FILL_S, "burst", f"takes {fills_in_s:.0f} s to gather, at most {MAX_FILL_S:.0f} s")
    if found:
        raise InvalidInput(found)
    return limit


def _names(name: str) -> bool:
    stem = name.removesuffix(FAMILY)
    if stem != name:  # a family may end in what separates it from its members' own names, or have no name at all
        stem = stem.rstrip("._:-")
    return limit_error(stem) is None or name == FAMILY


def covering(name: str, definitions: Mapping[str, _Definition]) -> _Definition | None:
    """Return the definition of a limit: its own, else that of the narrowest family it belongs to, else None."""
    own = definitions.get(name)
    if own is not None:
        return own
    for end in range(len(name), -1, -1):
        family = definitions.get(name[:end] + FAMILY)
        if family is not None:
            return family
    return None


def free_numbers(limit: Limit, taken: Collection[int]) -> Iterator[int]:
    """Yield the numbers of slots to give away, lowest first: no more than keep the limit, whatever numbers are taken.

    After a limit was lowered slots above it may still be held: they count.
    """
    most = limit.concurrent or 0
    left = most - len(taken)
    for number in range(most):
        if left <= 0:
            return
        if number not in taken:
            left -= 1
            yield number
