"""The pool of connections to Postgres in ``/metrics``: read when somebody scrapes, kept by the pool itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tenure.coordinator.metrics import REGISTRY
from tenure.store.postgres.database import PoolFigures


class PoolShown(Collector):
    """Shows the pool that ``ask`` tells of; without one, zeros."""

    def __init__(self) -> None:
        self.ask: Callable[[], PoolFigures] = lambda: PoolFigures(0, 0, 0, 0, 0, 0.0)

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """See ``prometheus_client``."""
        return self.collect()

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """See ``prometheus_client``."""
        told = self.ask()
        connections = GaugeMetricFamily(
            "tenure_postgres_connections", "Connections of this coordinator's pool, by state.", labels=["state"]
        )
        connections.add_metric(["in_use"], told.open - told.idle)
        connections.add_metric(["idle"], told.idle)
        yield connections
        yield GaugeMetricFamily(
            "tenure_postgres_connections_max", "As many as it may have: TENURE_POSTGRES_POOL_MAX.", told.most
        )
        yield GaugeMetricFamily("tenure_postgres_pool_waiting", "Calls that wait for a connection now.", told.waiting)
        yield CounterMetricFamily("tenure_postgres_pool_waits", "Calls that had to wait for a connection.", told.waited)
        yield CounterMetricFamily(
            "tenure_postgres_pool_wait_seconds", "How long they have waited, together.", told.waited_s
        )


POOL = PoolShown()
REGISTRY.register(POOL)
