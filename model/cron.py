"""Cron expressions in a time zone: which instants they name, also where the clock is put forward or back.

Built on cronsim, which is asked for times of the wall clock alone; what they mean as instants is decided here, by rule.
The clock of a zone is followed in stretches of one UTC offset, so that instants come in order and none comes twice:

- a *gap* (02:00 becomes 03:00): wall times in it do not exist. ``skip`` leaves them out, ``after`` gives one instant,
  the end of the gap, however many fell into it.
- a *fold* (03:00 becomes 02:00): wall times in it come twice. ``first`` takes the first, ``both`` takes both.

The defaults are those of Debian's cron: a fixed time of day happens once a day (``after``, ``first``); what recurs
within the hour or by the hour goes by the time that really passes (``skip``, ``both``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from tenure.model.schedule_choices import Fold, Gap

MAX_CRON_CHARS = 256
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31, L for the last one, LW for the last from Monday to Friday"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 (0 and 7 are Sunday) or SUN-SAT, 5L for the last Friday, MON#1 for the first Monday"),
)
_SECOND = timedelta(seconds=1)
_LONGEST_FOLD = timedelta(hours=26)
_PROBE = timedelta(hours=6)
_PROBE_BY_RULE = timedelta(days=7)
_BY_RULE_FROM = 2_100
"""From here on zones only follow their yearly rules, whose changes lie weeks apart."""
_LAST_YEAR = 9_990
"""Beyond it the calendar of Python ends, and with it every schedule."""


def zone_error(name: str) -> str | None:
    """Say what is wrong with the name of a time zone, or None."""
    if name in ("localtime", "posixrules", "Factory") or len(name) > 64:
        return "is no IANA time zone"  # the first are whatever a machine is set to
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"{name!r} is no IANA time zone such as UTC or Europe/Berlin"
    return None


def cron_error(expression: str) -> str | None:
    """Say what is wrong with a cron expression and where, or None."""
    if len(expression) > MAX_CRON_CHARS:
        return f"is {len(expression)} characters long, at most {MAX_CRON_CHARS} are allowed"
    if expression.startswith("@"):
        return None if expression in MACROS else f"{expression!r} is none of {', '.join(MACROS)}"
    parts = expression.split()
    if len(parts) not in (5, 6):
        wanted = "5 (minute, hour, day of month, month, day of week) or 6 (a second before them)"
        return f"has {len(parts)} fields, not {wanted}"
    for index, part in enumerate(parts, start=6 - len(parts)):
        for term in part.split(","):
            if not _is_term(index, term):
                name, allowed = _FIELDS[index]
                return f"{name}: {term!r} is not understood; allowed are {allowed}, *, ranges (a-b) and steps (/n)"
    try:
        next(CronSim(expression, datetime(2000, 1, 1)))
    except (CronSimError, StopIteration):
        return "never happens: there is no such day in these months"
    return None


def _is_term(index: int, term: str) -> bool:
    if not term:
        return False
    fields = ["*"] * 6
    fields[index] = term
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a zone's UTC offset: at this instant, from one offset to another."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def clock_before(self) -> datetime:
        """What the wall clock would have shown without the change (naive)."""
        return _naive(self.at) + self.before

    @property
    def clock_after(self) -> datetime:
        """What it shows instead (naive)."""
        return _naive(self.at) + self.after


class Cron:
    """One expression in one zone, under rules for gap and fold. Both names must be valid."""

    def __init__(self, expression: str, zone: str, gap: Gap | None = None, fold: Fold | None = None) -> None:
        self._expression = MACROS.get(expression, expression)
        self._zone = ZoneInfo(zone)
        fixed = is_fixed_time(self._expression)
        self.gap = gap or (Gap.AFTER if fixed else Gap.SKIP)
        self.fold = fold or (Fold.FIRST if fixed else Fold.BOTH)

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants strictly after ``instant``, in UTC and in order; ends where the calendar does."""
        try:
            yield from self._after(instant.astimezone(UTC))
        except OverflowError:
            return

    def _after(self, lower: datetime) -> Iterator[datetime]:
        offset = _offset(self._zone, lower)
        walls = self._walls_after(self._shown_until(lower, _naive(lower) + offset))
        wall = next(walls, None)
        while wall is not None and wall.year < _LAST_YEAR:
            tick = (wall - offset).replace(tzinfo=UTC)
            change = _first_change(self._zone.key, lower, tick)
            if change is None:
                yield tick
                lower, wall = tick, next(walls, None)
                continue
            lower, offset = change.at, change.after
            if change.after > change.before:
                fell_in = wall < change.clock_after and self.gap is Gap.AFTER
                if fell_in:
                    yield change.at
                begin = change.clock_after if fell_in else change.clock_after - _SECOND
            else:
                begin = (change.clock_before if self.fold is Fold.FIRST else change.clock_after) - _SECOND
            walls = self._walls_after(begin)
            wall = next(walls, None)

    def _walls_after(self, wall: datetime) -> Iterator[datetime]:
        return CronSim(self._expression, wall)

    def _shown_until(self, instant: datetime, wall: datetime) -> datetime:
        """Return the wall time to go on from: in the second pass of a fold, under ``first``, the end of that pass."""
        if self.fold is Fold.FIRST:
            change = _first_change(self._zone.key, instant - _LONGEST_FOLD, instant)
            if change is not None and wall < change.clock_before:
                return change.clock_before - _SECOND
        return wall


def is_fixed_time(expression: str) -> bool:
    """Say whether an expression names times of day, rather than something that recurs by the hour or more often."""
    parts = expression.split()
    return not any(part.startswith("*") for part in parts[: len(parts) - 3])


def _naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _first_change(zone: str, after: datetime, until: datetime) -> Change | None:
    """Return the first change of the offset after one instant and not after another."""
    for year in range(after.year, until.year + 1):
        for change in _changes(zone, year):
            if after < change.at <= until:
                return change
    return None


@functools.lru_cache(maxsize=4_096)
def _changes(zone: str, year: int) -> tuple[Change, ...]:
    """Return a year's changes. ``zoneinfo`` does not list them: the offset is probed, then halved in upon."""
    info = ZoneInfo(zone)
    found = []
    at, end = datetime(year, 1, 1, tzinfo=UTC) - _SECOND, datetime(year + 1, 1, 1, tzinfo=UTC) - _SECOND
    step = _PROBE if year < _BY_RULE_FROM else _PROBE_BY_RULE
    before = _offset(info, at)
    while at < end:
        upper = min(at + step, end)
        after = _offset(info, upper)
        if after != before:
            lower = at
            while upper - lower > _SECOND:
                middle = lower + timedelta(seconds=(upper - lower) // _SECOND // 2)
                lower, upper = (lower, middle) if _offset(info, middle) != before else (middle, upper)
            found.append(Change(upper, before, _offset(info, upper)))
            at, before = upper, _offset(info, upper)
        else:
            at = upper
    return tuple(found)
