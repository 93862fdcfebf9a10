"""How fast a namespace may submit: a bucket of tokens, one for each new job. Pure.

A rate fills it, a burst is what it holds. What does not fit takes nothing, so that a batch goes whole or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_SUBMIT_RATE = 1_000_000.0
MIN_SUBMIT_RATE = 0.001
MAX_SUBMIT_BURST = 10_000_000


@dataclass(frozen=True, slots=True)
class SubmitRate:
    """New jobs per second, and how many at once after a quiet time."""

    per_s: float
    burst: int


def burst_of(per_s: float, burst: int | None) -> int:
    """Return a burst, or where none is set what a second brings, at least one."""
    return max(1, math.ceil(per_s)) if burst is None else burst


class Bucket:
    """Tokens at an instant of a clock that only goes forward."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: SubmitRate, at: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = at

    def change(self, rate: SubmitRate, at: float) -> None:
        """Go on with another rate, and with what is there."""
        self._fill(at)
        self.rate = rate
        self._tokens = min(self._tokens, float(rate.burst))

    def take(self, jobs: int, at: float) -> float:
        """Take a token for each of some jobs and return 0; or take none, and return in how many seconds they fit.

        More than the burst never fit: infinity.
        """
        self._fill(at)
        if jobs > self.rate.burst:
            return math.inf
        if (missing := jobs - self._tokens) > 0:
            return missing / self.rate.per_s
        self._tokens -= jobs
        return 0.0

    def give_back(self, jobs: int) -> None:
        """Have what was taken for jobs that were not written after all."""
        self._tokens = min(self._tokens + jobs, float(self.rate.burst))

    def is_empty(self, at: float) -> bool:
        """Say whether not even one job would fit."""
        self._fill(at)
        return self._tokens < 1

    def _fill(self, at: float) -> None:
        self._tokens = min(float(self.rate.burst), self._tokens + max(0.0, at - self._at) * self.rate.per_s)
        self._at = at
