"""What operators have set for dispatch: limits, pauses and the weights of namespaces. Pure; read by the leader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenure.model.dispatch import Lane
from tenure.model.limits import Limit, covering
from tenure.model.routes import covers


class Subject(StrEnum):
    """What can be paused."""

    POOL = "pool"
    """A route prefix: everything below it."""
    KIND = "kind"
    NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing of this starts. What executes goes on."""

    subject: Subject
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """One reading of all that was set."""

    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Definitions by name (see ``model.limits``)."""
    pauses: Mapping[tuple[Subject, str], Pause] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Namespace to its weight; 1 where nothing was set."""

    def pause_of(self, lane: Lane) -> Pause | None:
        """Return the pause that keeps a lane's jobs from starting, if any."""
        if not self.pauses:
            return None
        found = self.pauses.get((Subject.KIND, lane.kind)) or self.pauses.get((Subject.NAMESPACE, lane.namespace))
        return found if found is not None else self.pause_of_route(lane.pool)

    def pause_of_route(self, route: str) -> Pause | None:
        """Return the pause of a route prefix under which a route or pool lies, if any."""
        return next((self.pauses[Subject.POOL, pool] for pool in self.paused_pools if covers(pool, route)), None)

    @property
    def paused_pools(self) -> list[str]:
        """The route prefixes that are paused."""
        return [name for subject, name in self.pauses if subject is Subject.POOL]

    def limit_of(self, name: str) -> Limit | None:
        """Return the definition that covers a limit's name."""
        return covering(name, self.limits)

    def weight_of(self, namespace: str) -> float:
        """Return a namespace's weight."""
        return self.weights.get(namespace, 1.0)
