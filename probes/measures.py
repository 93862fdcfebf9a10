"""Counts and durations for ``/metrics`` that cost the one who is measured next to nothing.

As ``prometheus_client`` has them, less what a single thread does not need: no lock, no object for each set of labels.
Invariant: only the thread that serves ``/metrics`` touches them, which is that of the event loop. Label values are few
by who names them: methods, outcomes, states; never a job, a namespace or whatever else users make up, unless whoever
counts bounds it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counts(Collector):
    """A counter. One without labels is there from the start; others are once they were named, or counted."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._name, self._meaning, self._labels = name, meaning, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        registry.register(self)

    def named(self, *values: str) -> None:
        """Show this one as 0, so that the first that is counted is a rise."""
        self._values.setdefault(values, 0.0)

    def add(self, amount: float, *values: str) -> None:
        """Count so many."""
        self._values[values] = self._values.get(values, 0.0) + amount

    def describe(self) -> Iterable[CounterMetricFamily]:
        """See ``prometheus_client``."""
        yield CounterMetricFamily(self._name, self._meaning, labels=self._labels)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """See ``prometheus_client``."""
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, total in self._values.items():
            family.add_metric(values, total)
        yield family


class Durations(Collector):
    """A histogram of seconds."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
        buckets: Sequence[float] = BUCKETS_S,
    ) -> None:
        self._name, self._meaning, self._labels = name, meaning, tuple(labels)
        self._bounds = tuple(buckets)
        self._seen: dict[tuple[str, ...], list[float]] = {}
        """By labels: how many fell into each bucket, and beyond; at the end, the sum."""
        if not labels:
            self._seen[()] = self._none()
        registry.register(self)

    def _none(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 2)

    def observe(self, seconds: float, *values: str) -> None:
        """Take note of something that lasted so long."""
        seen = self._seen.get(values)
        if seen is None:
            seen = self._seen[values] = self._none()
        seen[bisect_left(self._bounds, seconds)] += 1
        seen[-1] += seconds

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """See ``prometheus_client``."""
        yield HistogramMetricFamily(self._name, self._meaning, labels=self._labels)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """See ``prometheus_client``."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, seen in self._seen.items():
            *counts, total_s = seen
            so_far = 0.0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
                so_far += count
                buckets.append((bound, so_far))
            family.add_metric(values, buckets, sum_value=total_s)
        yield family
