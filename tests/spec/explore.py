"""The exhaustive explorer: breadth first over every state that the steps reach, to the shortest violation.

Owns: the search and the trace. Generic over states; called with the steps of ``protocol`` or ``trust``. Prints
nothing; ``Result.story`` is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
S_co = TypeVar("S_co", bound=Hashable, covariant=True)


class Taken(Protocol[S_co]):
    """A step, as the explorer sees it."""

    @property
    def label(self) -> str:
        """What happens."""

    @property
    def state(self) -> S_co:
        """The state after it."""

    @property
    def broken(self) -> str | None:
        """The invariant that it violates."""


@dataclass(frozen=True, slots=True)
class Result(Generic[S]):
    """What an exploration found."""

    states: int
    broken: str | None = None
    """The violated invariant; None if all hold everywhere."""
    trace: tuple[str, ...] = ()
    """The shortest way to the violation."""
    last: S | None = None

    def story(self) -> str:
        """Return the trace as numbered lines."""
        if self.broken is None:
            return f"no violation in {self.states:,} states"
        lines = [f"{self.broken} is violated after {len(self.trace)} steps ({self.states:,} states):"]
        lines.extend(f"{number:3}. {label}" for number, label in enumerate(self.trace, 1))
        return "\n".join([*lines, f"     {self.last}"])


class TooManyStates(Exception):
    """The bound was reached: the exploration says nothing."""


def explore(
    initial: S,
    steps: Callable[[S], Iterable[Taken[S]]],
    check: Callable[[S], str | None],
    *,
    afterwards: Callable[[S], str | None] | None = None,
    limit: int = 1_000_000,
) -> Result[S]:
    """Explore everything reachable; stop at the first violation of a step or of ``check``.

    ``afterwards`` is checked of every state, in the same order, once everything else is known to hold.

    Raises:
        TooManyStates: more than ``limit`` states.
    """
    came: dict[S, tuple[S, str] | None] = {initial: None}
    frontier = [initial]
    while frontier:
        following: list[S] = []
        for state in frontier:
            broken = check(state)
            if broken is not None:
                return Result(len(came), broken, _trace(came, state), state)
            for step in steps(state):
                if step.broken is not None:
                    return Result(len(came), step.broken, (*_trace(came, state), step.label), step.state)
                if step.state not in came:
                    came[step.state] = (state, step.label)
                    following.append(step.state)
        if len(came) > limit:
            raise TooManyStates(f"{len(came):,} states")
        frontier = following
    for state in came if afterwards is not None else ():
        if afterwards is not None and (broken := afterwards(state)) is not None:
            return Result(len(came), broken, _trace(came, state), state)
    return Result(len(came))


def _trace(came: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    labels: list[str] = []
    while (before := came[state]) is not None:
        state, label = before
        labels.append(label)
    return tuple(reversed(labels))
