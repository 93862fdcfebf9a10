"""Schedules: what is refused and where, which ticks fire, which are left out and why."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.model.errors import InvalidInput
from tenure.model.schedule_choices import Misfire, Overlap
from tenure.model.schedules import (
    MAX_TICKS,
    PUNCTUAL_S,
    Decision,
    ScheduleSpec,
    backfill_ticks,
    decide,
    jitter,
    job_at,
    latest_tick,
    ticks_after,
    ticks_from,
    validate_schedule,
)

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def spec(**values: Any) -> ScheduleSpec:
    given = {"name": "nightly", "job": {"kind": "k"}, **values}
    if "cron" not in given and "interval_s" not in given:
        given["interval_s"] = 60
    return validate_schedule(given)


def refused(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refusal:
        validate_schedule({"name": "nightly", "cron": "@daily", "job": {"kind": "k"}, **values})
    return {violation.field: violation.description for violation in refusal.value.violations}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cron": "61 * * * *"}, "schedule.cron"),
        ({"cron": None}, "schedule.cron"),
        ({"interval_s": 60}, "schedule.cron"),
        ({"cron": None, "interval_s": 0.5}, "schedule.interval_s"),
        ({"cron": None, "interval_s": 60, "gap": "skip"}, "schedule.gap"),
        ({"cron": None, "interval_s": 60, "fold": "both"}, "schedule.fold"),
        ({"time_zone": "Mars/Olympus"}, "schedule.time_zone"),
        ({"gap": "leap"}, "schedule.gap"),
        ({"overlap": "sometimes"}, "schedule.overlap"),
        ({"misfire": "two"}, "schedule.misfire"),
        ({"window_s": -1}, "schedule.window_s"),
        ({"jitter_s": float("inf")}, "schedule.jitter_s"),
        ({"starts_at": datetime(2026, 1, 1)}, "schedule.starts_at"),
        ({"ends_at": datetime(1969, 1, 1, tzinfo=UTC)}, "schedule.ends_at"),
        ({"starts_at": NOW, "ends_at": NOW}, "schedule.ends_at"),
        ({"name": "No Name"}, "schedule.name"),
        ({"namespace": "/"}, "schedule.namespace"),
        ({"job": None}, "schedule.job"),
        ({"job": {"kind": ""}}, "schedule.job.kind"),
        ({"job": {"kind": "k", "payload": "{"}}, "schedule.job.payload"),
        ({"job": {"kind": "k", "idempotency_key": "x"}}, "schedule.job.idempotency_key"),
        ({"job": {"kind": "k", "activate_at": NOW}}, "schedule.job.activate_at"),
        ({"job": {"kind": "k", "start_by": NOW}}, "schedule.job.start_by"),
        ({"job": {"kind": "k", "depends_on": ["x"]}}, "schedule.job.depends_on"),
        ({"job": {"kind": "k", "ref": "x"}}, "schedule.job.ref"),
        ({"job": {"kind": "k", "namespace": "other"}}, "schedule.job.namespace"),
        ({"color": "red"}, "schedule.color"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], field: str) -> None:
    assert field in refused(**values)


def test_everything_wrong_is_named_at_once() -> None:
    found = refused(cron="x", time_zone="y", job={"kind": "", "ref": "r"})
    assert {"schedule.cron", "schedule.time_zone", "schedule.job.kind", "schedule.job.ref"} <= found.keys()


def test_its_jobs_are_of_its_namespace() -> None:
    assert spec(namespace="acme").job.namespace == "acme"


def test_a_stored_spec_is_read_back_as_it_was() -> None:
    wanted = spec(
        cron="30 2 * * *", time_zone="Europe/Berlin", starts_at=NOW, jitter_s=3, job={"kind": "k", "ttl_s": 4}
    )
    assert ScheduleSpec.model_validate_json(wanted.model_dump_json()) == wanted


def test_intervals_count_from_the_start_else_from_1970() -> None:
    start = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    assert list(islice(ticks_after(spec(interval_s=10, starts_at=start), start), 2)) == [
        start + 10 * SECOND,
        start + 20 * SECOND,
    ]
    assert next(ticks_from(spec(interval_s=10, starts_at=start), start - 100 * SECOND)) == start
    assert next(ticks_after(spec(interval_s=900), NOW + SECOND)) == NOW + timedelta(minutes=15)


def test_an_interval_does_not_drift() -> None:
    third = spec(interval_s=1.1)
    ticks = list(islice(ticks_after(third, NOW), 1_000))
    assert ticks[-1] - ticks[0] == 999 * timedelta(seconds=1.1)
    assert next(ticks_after(third, ticks[500])) == ticks[501]


def test_the_start_may_be_a_tick_the_end_may_not() -> None:
    bounded = spec(cron="0 * * * *", starts_at=NOW, ends_at=NOW + timedelta(hours=2))
    assert list(ticks_after(bounded, NOW - timedelta(days=9))) == [NOW, NOW + timedelta(hours=1)]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["*/7 * * * *", "@daily", "*/9 * 3 * * *", "0 0 29 2 *"]), st.integers(0, 90_000))
def test_the_latest_tick_is_the_last_of_them(cron: str, back_s: int) -> None:
    first = NOW - timedelta(seconds=back_s)
    ticks = list(takewhile(lambda tick: tick < NOW, ticks_from(spec(cron=cron), first)))
    assert latest_tick(spec(cron=cron), first, NOW) == (ticks[-1] if ticks else None)


def test_the_jitter_of_a_tick_is_the_same_for_everybody() -> None:
    ids = [uuid.UUID(int=n) for n in range(50)]
    delays = [jitter(id, NOW, 30.0) for id in ids]
    assert delays == [jitter(id, NOW.astimezone(UTC), 30.0) for id in ids]
    assert all(timedelta(0) <= delay < timedelta(seconds=30) for delay in delays)
    assert len(set(delays)) == len(ids)
    assert jitter(ids[0], NOW, 0) == timedelta(0)


def test_the_job_of_a_tick() -> None:
    id = uuid.UUID(int=7)
    plain = job_at(spec(job={"kind": "k", "delay_s": 5}), id, NOW, "key")
    assert (plain.idempotency_key, plain.activate_at, plain.delay_s) == ("key", None, 5)
    spread = job_at(spec(jitter_s=60, job={"kind": "k", "delay_s": 5}), id, NOW, "key")
    assert (spread.activate_at, spread.delay_s) == (NOW + jitter(id, NOW, 60) + 5 * SECOND, None)


def decided(wanted: ScheduleSpec, next_at: datetime | None, now: datetime = NOW, **stored: Any) -> Decision:
    return decide(wanted, next_at=next_at, now=now, **{"queued": None, "has_unfinished": False, **stored})


def test_before_its_time_nothing_happens() -> None:
    assert decided(spec(), NOW + SECOND) == Decision((), NOW + SECOND)
    assert decided(spec(), None) == Decision((), None)


def test_a_tick_fires_at_its_instant() -> None:
    assert decided(spec(), NOW) == Decision((NOW,), NOW + timedelta(minutes=1))


def test_after_its_last_tick_there_is_no_next() -> None:
    assert decided(spec(ends_at=NOW + SECOND), NOW) == Decision((NOW,), None)


@pytest.mark.parametrize("misfire", Misfire)
def test_what_is_a_little_late_fires_all_the_same(misfire: Misfire) -> None:
    late = NOW + timedelta(seconds=PUNCTUAL_S)
    decision = decided(spec(interval_s=10, misfire=misfire), NOW, late)
    assert decision.fire == tuple(NOW + n * 10 * SECOND for n in range(4))
    assert decision.skipped == 0


HOURS = [NOW - timedelta(hours=n) for n in range(6, 0, -1)]


@pytest.mark.parametrize(
    ("misfire", "window_s", "fired", "skipped"),
    [
        (Misfire.NONE, 86_400, [], 6),
        (Misfire.ONE, 86_400, HOURS[-1:], 5),
        (Misfire.ONE, 60, [], 6),
        (Misfire.ALL, 86_400, HOURS, 0),
        (Misfire.ALL, 3 * 3_600 + 1_800, HOURS[-3:], 3),
        (Misfire.ALL, 0, [], 6),
    ],
)
def test_missed_ticks(misfire: Misfire, window_s: float, fired: list[datetime], skipped: int) -> None:
    now = NOW - timedelta(minutes=10)
    decision = decided(spec(interval_s=3_600, misfire=misfire, window_s=window_s), HOURS[0], now)
    assert decision.fire == tuple(fired)
    assert decision.next_at == NOW
    assert decision.skipped == skipped
    assert bool(decision.skip_reason) == bool(skipped)


def test_one_that_is_on_time_stands_for_those_that_were_missed() -> None:
    decision = decided(spec(interval_s=3_600), HOURS[0], NOW)
    assert decision.fire == (NOW,)
    assert decision.skipped == 6


def test_a_long_backlog_is_taken_in_bounded_rounds_without_a_loss() -> None:
    wanted = spec(interval_s=1, misfire="all", window_s=86_400)
    next_at: datetime | None = NOW - 2_500 * SECOND
    fired: list[datetime] = []
    while next_at is not None and next_at <= NOW:
        decision = decided(wanted, next_at)
        assert len(decision.fire) <= MAX_TICKS
        fired += decision.fire
        next_at = decision.next_at
    assert fired == [NOW - n * SECOND for n in range(2_500, -1, -1)]


def test_years_of_missed_seconds_are_passed_over_at_once() -> None:
    decision = decided(spec(interval_s=1, misfire="one"), NOW - timedelta(days=900))
    assert decision.fire[-1] == NOW
    assert decision.skipped == MAX_TICKS
    assert "or more" in decision.skip_reason


T1, T2, T3 = NOW, NOW + 10 * SECOND, NOW + 20 * SECOND


@pytest.mark.parametrize(
    ("overlap", "queued", "unfinished", "fired", "then_queued", "skipped", "cancels"),
    [
        (Overlap.ALLOW, None, False, [T1, T2, T3], None, 0, False),
        (Overlap.ALLOW, None, True, [T1, T2, T3], None, 0, False),
        (Overlap.SKIP, None, False, [T1], None, 2, False),
        (Overlap.SKIP, None, True, [], None, 3, False),
        (Overlap.QUEUE, None, False, [T1], T2, 1, False),
        (Overlap.QUEUE, None, True, [], T1, 2, False),
        (Overlap.QUEUE, T1 - SECOND, True, [], T1 - SECOND, 3, False),
        (Overlap.QUEUE, T1 - SECOND, False, [T1 - SECOND], T1, 2, False),
        (Overlap.CANCEL_PREVIOUS, None, False, [T3], None, 2, False),
        (Overlap.CANCEL_PREVIOUS, None, True, [T3], None, 2, True),
    ],
)
def test_overlaps(
    overlap: Overlap,
    queued: datetime | None,
    unfinished: bool,
    fired: list[datetime],
    then_queued: datetime | None,
    skipped: int,
    cancels: bool,
) -> None:
    wanted = spec(interval_s=10, overlap=overlap)
    decision = decided(wanted, T1, T3, queued=queued, has_unfinished=unfinished)
    assert decision.fire == tuple(fired)
    assert (decision.queued, decision.skipped, decision.cancels_previous) == (then_queued, skipped, cancels)
    assert decision.next_at == T3 + 10 * SECOND


def test_a_queued_tick_fires_between_ticks_once_the_previous_has_ended() -> None:
    wanted = spec(interval_s=10, overlap="queue")
    assert decided(wanted, T2, T1 + SECOND, queued=T1, has_unfinished=True) == Decision((), T2, T1)
    assert decided(wanted, T2, T1 + SECOND, queued=T1) == Decision((T1,), T2)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(Overlap),
    st.sampled_from(Misfire),
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=12),
)
def test_every_tick_is_decided_upon_exactly_once(
    overlap: Overlap, misfire: Misfire, interval_s: int, looks: list[tuple[int, bool]]
) -> None:
    wanted = spec(interval_s=interval_s, overlap=overlap, misfire=misfire, window_s=200)
    next_at, queued, now = next(ticks_from(wanted, NOW)), None, NOW
    fired: list[datetime] = []
    skipped = 0
    for wait_s, unfinished in looks:
        now += timedelta(seconds=wait_s)
        decision = decided(wanted, next_at, now, queued=queued, has_unfinished=unfinished)
        fired += decision.fire
        skipped += decision.skipped
        assert decision.next_at is not None and decision.next_at > now
        next_at, queued = decision.next_at, decision.queued
    ticks = list(takewhile(lambda tick: tick <= now, ticks_from(wanted, NOW)))
    assert fired == sorted(set(fired))
    assert set(fired) <= set(ticks)
    assert len(ticks) == len(fired) + skipped + (queued is not None)


def test_a_backfill_takes_the_ticks_of_its_range() -> None:
    hourly = spec(interval_s=3_600)
    assert backfill_ticks(hourly, HOURS[0], HOURS[2]) == HOURS[:2]
    assert backfill_ticks(hourly, HOURS[0] + SECOND, HOURS[0] + 2 * SECOND) == []


def test_a_backfill_is_bounded() -> None:
    each = spec(interval_s=1)
    assert len(backfill_ticks(each, NOW, NOW + MAX_TICKS * SECOND)) == MAX_TICKS
    with pytest.raises(InvalidInput) as refusal:
        backfill_ticks(each, NOW, NOW + (MAX_TICKS + 1) * SECOND)
    assert refusal.value.violations[0].field == "until"
    assert "first could end" in str(refusal.value.hint)
