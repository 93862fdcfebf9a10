"""Counts and durations as Prometheus reads them, and what a measurement costs."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tenure.probes.measures import Counts, Durations


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_counts(registry: CollectorRegistry) -> None:
    plain = Counts("things", "All of them.", registry=registry)
    by_kind = Counts("kinds", "By kind.", ["kind"], registry=registry)
    assert registry.get_sample_value("things_total") == 0, "shown from the start"
    plain.add(2)
    plain.add(3)
    by_kind.named("a")
    by_kind.add(4, "b")
    by_kind.named("b")
    assert registry.get_sample_value("things_total") == 5
    assert registry.get_sample_value("kinds_total", {"kind": "a"}) == 0
    assert registry.get_sample_value("kinds_total", {"kind": "b"}) == 4


def test_durations_fall_into_the_buckets_that_prometheus_means(registry: CollectorRegistry) -> None:
    took = Durations("took_seconds", "How long.", ["what"], registry=registry, buckets=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        took.observe(seconds, "it")
    buckets = {
        le: registry.get_sample_value("took_seconds_bucket", {"what": "it", "le": le}) for le in ("0.1", "1.0", "+Inf")
    }
    assert buckets == {"0.1": 2, "1.0": 3, "+Inf": 4}, "each holds what is at most so long"
    assert registry.get_sample_value("took_seconds_count", {"what": "it"}) == 4
    assert registry.get_sample_value("took_seconds_sum", {"what": "it"}) == pytest.approx(7.65)


def test_a_histogram_without_labels_is_shown_before_anything_was_observed(registry: CollectorRegistry) -> None:
    Durations("took_seconds", "How long.", registry=registry)
    assert registry.get_sample_value("took_seconds_count") == 0


def test_what_is_served_is_what_prometheus_parses(registry: CollectorRegistry) -> None:
    Counts("things", "All of them.", ["a", "b"], registry=registry).add(1, "x", 'quoted "y"\n')
    Durations("took_seconds", "How long.", registry=registry).observe(0.2)
    families = {one.name: one for one in text_string_to_metric_families(generate_latest(registry).decode())}
    assert families["things"].type == "counter"
    assert families["things"].samples[0].labels == {"a": "x", "b": 'quoted "y"\n'}
    assert families["took_seconds"].type == "histogram"


def test_one_name_is_registered_once(registry: CollectorRegistry) -> None:
    Counts("things", "All of them.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counts("things", "Others.", registry=registry)
