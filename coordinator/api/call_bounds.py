"""How many calls a coordinator serves at a time, so that callers who open many and read nothing cost bounded memory.

A waiting call costs a few tens of kilobytes; a stream holds, besides, what its reader has not taken: a message of
answers, or two groups of a StreamSubmitJobs. Hence a bound for all calls, which grpc keeps, and one for each kind of
stream, kept here. Called by ``refusals`` for streams alone: other calls pay nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tenure.model.errors import BoundExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBounds:
    """The most calls under way."""

    calls: int = 20_000
    """Of all kinds; waiting ones, too."""
    watches: int = 2_000
    """Streams of answers."""
    submit_streams: int = 200


DEFAULT_CALLS = CallBounds()


class Streams:
    """Counts the streams of one kind."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._under_way = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a stream for as long as it is served.

        Raises:
            BoundExceeded: there are as many as there may be.
        """
        if self._under_way >= self._most:
            raise BoundExceeded(
                f"this coordinator has {self._under_way:,} {self._name} under way, as many as it may",
                hint="try again later, or ask another coordinator",
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
