"""How long a claim may be believed: the trust window (DESIGN.md, section 3, "Trust").

A claim is trusted until the monotonic instant at which the last *answered* KeepAlive was *sent*, plus the
TTL that the server granted, minus a margin. The server refreshed the lease after that instant, so it cannot
expire before; counting from the arrival of the answer would add the answer's delay to the window.
"""

from __future__ import annotations

from typing import NamedTuple

DRIFT_SHARE = 0.05
"""Share of the TTL given to clocks that run at different rates."""
KILL_SHARE = 0.10
MAX_KILL_S = 1.0
"""Time to stop a handler: cancel, then kill, must both be over when the lease can expire."""
WAKE_S = 0.1
"""Time for a timer of ours to fire late."""
RENEWALS_PER_TTL = 3
SIGNS_PER_TTL = 4
"""A worker renews its session so often within the shortest TTL of its claims: see ``was_alive``."""


def margin_s(ttl_s: float) -> float:
    """Return the seconds to stop before the lease can expire: drift + kill + late timers.

    At TTL 2 s: 0.1 + 0.2 + 0.1 = 0.4, so trust ends 1.6 s after a KeepAlive was sent and one missed KeepAlive
    (the next is sent at 1.33 s) is survived.
    """
    return ttl_s * DRIFT_SHARE + min(ttl_s * KILL_SHARE, MAX_KILL_S) + WAKE_S


def renew_every_s(ttl_s: float) -> float:
    """Return the seconds between two KeepAlives of one lease."""
    return ttl_s / RENEWALS_PER_TTL


def was_alive(*, session_age_s: float, ttl_s: float) -> bool:
    """Say whether a worker still renewed its session when a claim of its must have expired, had it died.

    A worker renews a claim every third of its TTL and its session at least every quarter. Had it died, neither was
    renewed for two thirds of the TTL when the claim expired. So a claim that vanished before, with a fresh session
    beside it, was taken away: deleted, or its lease revoked, by an operator or by a fault of etcd. The age comes in
    whole seconds, rounded up: at TTL 2 s a session of a living worker is 1 s old, that of a dead one 2 s.
    """
    return session_age_s * RENEWALS_PER_TTL < ttl_s * (RENEWALS_PER_TTL - 1)


class Trust(NamedTuple):
    """The trust in one lease, by the worker's monotonic clock in seconds."""

    sent_at: float
    """When the last answered KeepAlive (or the grant) was sent."""
    ttl_s: float
    """What the server granted in its answer."""

    @property
    def until(self) -> float:
        """The instant at which the handler must have been told to stop."""
        return self.sent_at + self.ttl_s - margin_s(self.ttl_s)

    @property
    def expires_at(self) -> float:
        """The earliest instant at which the server may let the lease expire."""
        return self.sent_at + self.ttl_s

    def holds(self, now: float) -> bool:
        """Say whether the claim may still be acted upon."""
        return now < self.until
