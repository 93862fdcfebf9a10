"""A fence: one ordered 63-bit number, the epoch in the high bits, a Postgres sequence in the low ones.

Every attempt starts with a fence that no earlier attempt had; the epoch rises when a store was lost or
restored, so that a sequence that went back can never repeat a fence (DESIGN.md, section 3, "Stores lost").
"""

from __future__ import annotations

EPOCH_BITS = 16
SEQUENCE_BITS = 47
MAX_EPOCH = (1 << EPOCH_BITS) - 1


def epoch_of(fence: int) -> int:
    """Return the epoch in which a fence was given."""
    return fence >> SEQUENCE_BITS


def sequence_of(fence: int) -> int:
    """Return the sequence number within its epoch."""
    return fence & ((1 << SEQUENCE_BITS) - 1)
