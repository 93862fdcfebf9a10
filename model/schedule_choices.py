"""What a schedule chooses, so that nothing happens by accident. Plain names: the command line reads them cheaply."""

from __future__ import annotations

from enum import StrEnum


class Gap(StrEnum):
    """What becomes of wall times that the clock leaps over."""

    SKIP = "skip"
    AFTER = "after"


class Fold(StrEnum):
    """What becomes of wall times that come twice."""

    FIRST = "first"
    BOTH = "both"


class Overlap(StrEnum):
    """What a tick does while a job of an earlier one has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel_previous"


class Misfire(StrEnum):
    """What becomes of ticks that nobody was there to see: of those within the window."""

    NONE = "none"
    ONE = "one"
    ALL = "all"
