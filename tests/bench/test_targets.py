"""A target is met by the median of its runs, or by the p99 of samples; what was not measured is not told."""

from __future__ import annotations

from tenure.bench.failover import worker_killed
from tenure.bench.plan import Plan
from tenure.bench.rates import draining, singly
from tenure.bench.results import Results
from tenure.bench.targets import Judged, judge

PLAN = Plan()


def _judged(results: Results) -> Judged:
    [judged] = judge(results, PLAN)
    return judged


def test_what_was_not_measured_is_not_told() -> None:
    assert judge(Results(), PLAN) == []


def test_at_least_is_met_by_the_median() -> None:
    for runs, met in (([2_000.0, 3_000.0, 4_000.0], True), ([2_000.0, 2_999.0, 4_000.0], False)):
        results = Results()
        for value in runs:
            results.case("submit", singly(50)).add({"jobs_per_s": value})
        judged = _judged(results)
        assert (judged.target.number, judged.met, judged.lowest, judged.highest) == (2, met, 2_000.0, 4_000.0)


def test_at_most_and_the_99th_percentile_of_samples() -> None:
    for worst, met in ((2.0 + 1.0, True), (3.01, False)):
        results = Results()
        results.case("failover", worker_killed(2.0)).sample("kill_to_restart_s", [0.5, worst])
        judged = _judged(results)
        assert (judged.target.number, judged.met, judged.measured, judged.count) == (5, met, worst, 2)


def test_two_workers_must_do_more_than_one() -> None:
    for ratio, met in ((1.0, False), (1.01, True)):
        results = Results()
        results.case("drain", draining(PLAN, 2)).add({"of_the_fewest": ratio})
        judged = _judged(results)
        assert (judged.target.number, judged.met, judged.to_json()["sign"]) == (1, met, ">")
