"""Cron in time zones: against croniter where both mean the same, by table where the clock is put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tenure.model.cron import MAX_CRON_CHARS, Cron, cron_error, is_fixed_time, zone_error
from tenure.model.schedule_choices import Fold, Gap

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # croniter reads 5-5 as 5 to the end.
    span = st.integers(low + 1, high).flatmap(lambda end: st.integers(low, end - 1).map(lambda start: f"{start}-{end}"))
    step = st.integers(1, high).map(lambda size: f"*/{size}")
    return st.one_of(st.just("*"), number.map(str), span, step, st.lists(number, min_size=2, max_size=4).map(_listed))


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


# One of the two day fields is a star: what both together mean is where implementations of cron differ.
_DAYS = st.one_of(
    st.just(("*", "*")),
    st.tuples(st.one_of(st.integers(1, 28).map(str), st.just("L")), st.just("*")),
    st.tuples(st.just("*"), st.one_of(st.integers(0, 6).map(str), st.sampled_from(["MON-FRI", "SAT,SUN", "fri"]))),
)
EXPRESSIONS = st.builds(
    lambda minute, hour, days, month: f"{minute} {hour} {days[0]} {month} {days[1]}",
    _field(0, 59),
    _field(0, 23),
    _DAYS,
    st.one_of(st.just("*"), st.integers(1, 12).map(str), st.sampled_from(["JAN,JUL", "mar-oct"])),
)
INSTANTS = st.datetimes(datetime(2001, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


def _is_plain(zone: ZoneInfo, instant: datetime) -> bool:
    """Whether no change of the clock is near, whose rules differ between implementations by documentation."""
    offsets = {(instant + timedelta(hours=h)).astimezone(zone).utcoffset() for h in (-30, -20, -10, 0, 10, 20, 30)}
    return len(offsets) == 1


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(EXPRESSIONS, st.sampled_from(ZONES), INSTANTS)
def test_it_agrees_with_croniter(expression: str, zone: str, start: datetime) -> None:
    info = ZoneInfo(zone)
    ours = [at for at in islice(Cron(expression, zone).after(start), 8) if at.year < 2040]
    other = croniter(expression, start.astimezone(info))
    theirs: list[datetime] = []
    for at in ours:
        while not theirs or theirs[-1] < at:
            theirs.append(other.get_next(datetime).astimezone(UTC))
    ours_plain = [at for at in ours if _is_plain(info, at)]
    assert ours_plain == [at for at in theirs if at <= ours[-1] and _is_plain(info, at)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["0 9 * * MON-FRI", "30 4 L * *", "0 */8 * * *", "0 0 29 2 *"])
def test_it_agrees_with_croniter_over_years(expression: str, zone: str) -> None:
    info = ZoneInfo(zone)
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2029, 1, 1, tzinfo=UTC)
    ours = _until(Cron(expression, zone).after(start), end)
    other = croniter(expression, start.astimezone(info))
    theirs = _until((other.get_next(datetime).astimezone(UTC) for _ in iter(int, 1)), end)
    assert [at for at in ours if _is_plain(info, at)] == [at for at in theirs if _is_plain(info, at)]
    assert ours


def _until(instants: object, end: datetime) -> list[datetime]:
    found = []
    for at in instants:  # type: ignore[attr-defined]
        if at >= end:
            break
        found.append(at)
    return found


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), INSTANTS, st.sampled_from([None, *Gap]), st.sampled_from([None, *Fold]))
def test_instants_come_in_order_and_from_anywhere_the_same(
    expression: str, zone: str, start: datetime, gap: Gap | None, fold: Fold | None
) -> None:
    cron = Cron(expression, zone, gap, fold)
    found = list(islice(cron.after(start), 60))
    assert all(a < b for a, b in pairwise([start, *found]))
    for index, at in enumerate(found[:-1]):
        assert next(cron.after(at)) == found[index + 1]
        assert next(cron.after(found[index + 1] - timedelta(microseconds=1))) == found[index + 1]


def _shown(expression: str, zone: str, start: str, count: int, gap: Gap | None = None, fold: Fold | None = None) -> str:
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    ticks = islice(Cron(expression, zone, gap, fold).after(begin), count)
    return " ".join(at.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z") for at in ticks)


BERLIN_FORWARD = "2026-03-28T22:00"  # 02:00 +0100 becomes 03:00 +0200 on the 29th
BERLIN_BACK = "2026-10-24T22:30"  # 03:00 +0200 becomes 02:00 +0100 on the 25th


@pytest.mark.parametrize(
    ("expression", "gap", "expected"),
    [
        ("30 2 * * *", None, "29 03:00+0200 30 02:30+0200"),
        ("30 2 * * *", Gap.SKIP, "30 02:30+0200 31 02:30+0200"),
        ("0,15,45 2 * * *", None, "29 03:00+0200 30 02:00+0200"),
        ("0 2,3 * * *", None, "29 03:00+0200 30 02:00+0200"),
        ("30 1,2,3 * * *", None, "29 01:30+0100 29 03:00+0200"),
        ("*/30 * * * *", None, "28 23:30+0100 29 00:00+0100"),
        ("30 * * * *", None, "28 23:30+0100 29 00:30+0100"),
    ],
)
def test_a_gap(expression: str, gap: Gap | None, expected: str) -> None:
    assert _shown(expression, "Europe/Berlin", BERLIN_FORWARD, 2, gap) == expected


def test_what_recurs_goes_by_time_that_passes() -> None:
    forward = _shown("30 * * * *", "Europe/Berlin", "2026-03-29T00:00", 3)
    assert forward == "29 01:30+0100 29 03:30+0200 29 04:30+0200"
    after = _shown("30 * * * *", "Europe/Berlin", "2026-03-29T00:00", 3, Gap.AFTER)
    assert after == "29 01:30+0100 29 03:00+0200 29 03:30+0200"
    back = _shown("30 * * * *", "Europe/Berlin", "2026-10-25T00:00", 3)
    assert back == "25 02:30+0200 25 02:30+0100 25 03:30+0100"
    first = _shown("30 * * * *", "Europe/Berlin", "2026-10-25T00:00", 3, None, Fold.FIRST)
    assert first == "25 02:30+0200 25 03:30+0100 25 04:30+0100"


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        (None, "25 02:30+0200 26 02:30+0100"),
        (Fold.FIRST, "25 02:30+0200 26 02:30+0100"),
        (Fold.BOTH, "25 02:30+0200 25 02:30+0100"),
    ],
)
def test_a_fold(fold: Fold | None, expected: str) -> None:
    assert _shown("30 2 * * *", "Europe/Berlin", BERLIN_BACK, 2, None, fold) == expected


def test_a_start_within_the_second_pass_of_a_fold_does_not_repeat_the_first() -> None:
    assert _shown("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", 1) == "26 02:30+0100"


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", "04 02:30+1100 05 02:15+1100"),  # half an hour
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T00:00", "24 01:00+0300 25 00:00+0300"),  # a gap at midnight
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00", "31 00:00+1400 31 12:00+1400"),  # a day that never was
        ("0 6 * * *", "Asia/Kathmandu", "2026-01-01T00:00", "01 06:00+0545 02 06:00+0545"),
    ],
)
def test_strange_clocks(expression: str, zone: str, start: str, expected: str) -> None:
    assert _shown(expression, zone, start, 2) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * * *", "2026-01-01T00:00:01 2026-01-01T00:00:02"),
        ("*/20 0 * * * *", "2026-01-01T00:00:20 2026-01-01T00:00:40"),
        ("@hourly", "2026-01-01T01:00:00 2026-01-01T02:00:00"),
        ("@daily", "2026-01-02T00:00:00 2026-01-03T00:00:00"),
        ("@weekly", "2026-01-04T00:00:00 2026-01-11T00:00:00"),
        ("@monthly", "2026-02-01T00:00:00 2026-03-01T00:00:00"),
        ("@yearly", "2027-01-01T00:00:00 2028-01-01T00:00:00"),
        ("0 0 L * *", "2026-01-31T00:00:00 2026-02-28T00:00:00"),
        ("0 0 LW * *", "2026-01-30T00:00:00 2026-02-27T00:00:00"),
        ("0 0 * * FRI#2", "2026-01-09T00:00:00 2026-02-13T00:00:00"),
        ("0 0 * * 5L", "2026-01-30T00:00:00 2026-02-27T00:00:00"),
        ("0 0 1,15 * MON", "2026-01-05T00:00:00 2026-01-12T00:00:00"),
        ("0 0 29 FEB *", "2028-02-29T00:00:00 2032-02-29T00:00:00"),
    ],
)
def test_what_can_be_written(expression: str, expected: str) -> None:
    assert cron_error(expression) is None
    found = islice(Cron(expression, "UTC").after(datetime(2026, 1, 1, tzinfo=UTC)), 2)
    assert " ".join(at.isoformat().removesuffix("+00:00") for at in found) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "minute: '60'"),
        ("* 24 * * *", "hour: '24'"),
        ("* * 0 * *", "day of month: '0'"),
        ("* * * 13 *", "month: '13'"),
        ("* * * * 8", "day of week: '8'"),
        ("* * * * MON#6", "day of week: 'MON#6'"),
        ("61 * * * * *", "second: '61'"),
        ("1,x,3 * * * *", "minute: 'x'"),
        ("9-5 * * * *", "minute: '9-5'"),
        ("*/0 * * * *", "minute: '*/0'"),
        ("1, * * * *", "minute: ''"),
        ("* * * * ²L", "day of week: '²L'"),
        ("0 0 30 2 *", "never happens"),
        ("@reboot", "is none of @yearly"),
        ("9" * (MAX_CRON_CHARS + 1), "characters long"),
        ("\x00 * * * *", "minute: '\\x00'"),
    ],
)
def test_what_cannot_is_named(expression: str, words: str) -> None:
    assert words in str(cron_error(expression))


@given(st.text(alphabet="0123456789*/-,#LW @MONFRI\x00²", max_size=40))
def test_nonsense_is_refused_or_understood(expression: str) -> None:
    if cron_error(expression) is None:
        assert next(Cron(expression, "Europe/Berlin").after(datetime(2026, 1, 1, tzinfo=UTC))).year >= 2026


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "America", "localtime", "Factory", "\x00", "x" * 65]
)
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    assert zone_error(zone)


def test_what_counts_as_a_time_of_day() -> None:
    assert is_fixed_time("30 2 * * *") and is_fixed_time("0 30 2 * * MON")
    assert not is_fixed_time("*/5 2 * * *") and not is_fixed_time("0 * * * *") and not is_fixed_time("* 0 2 * * *")


def test_the_calendar_ends() -> None:
    assert list(Cron("@yearly", "Europe/Berlin").after(datetime(9_988, 6, 1, tzinfo=UTC)))[-1].year <= 9_990
