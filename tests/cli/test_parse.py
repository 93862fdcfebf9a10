"""How options are read, and how text is made safe to print."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tenure.cli import parse
from tenure.cli.etcd_faults import FAULTS, faults_of, parsed
from tenure.cli.output import ago, jsonable, line, span
from tenure.client import Claim
from tenure.model.errors import InvalidInput
from tenure.model.text import visible


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.duration_s(text, "--delay") == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1h 30m", "h", "1h-2m"])
def test_bad_durations_name_the_option(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse.duration_s(text, "--delay")
    assert caught.value.violations[0].field == "--delay"


def test_labels() -> None:
    assert parse.labels(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for bad in ("a", "=1"):
        with pytest.raises(InvalidInput):
            parse.labels([bad])


def test_payload_from_argument_file_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text('{"a": 1}')
    assert parse.payload(None) is None
    assert parse.payload("[1]") == [1]
    assert parse.payload(f"@{tmp_path}/p.json") == {"a": 1}
    monkeypatch.setattr("sys.stdin", io.StringIO('"x"'))
    assert parse.payload("-") == "x"
    for bad in ("{a: 1}", f"@{tmp_path}/none"):
        with pytest.raises(InvalidInput):
            parse.payload(bad)


def test_times() -> None:
    assert parse.instant("2026-11-21T09:00:00Z", "--at") == datetime(2026, 11, 21, 9, tzinfo=UTC)
    local = parse.instant("2026-11-21T09:00:00", "--at")
    assert local is not None
    assert local.tzinfo is not None
    with pytest.raises(InvalidInput):
        parse.instant("tomorrow", "--at")


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert visible("\x1b]0;owned\x07") == "\\x1b]0;owned\\x07"
    assert visible("a\u202eb\u009b31m") == "a\\u202eb\\x9b31m"
    assert visible("zwei\nZeilen ü") == "zwei\nZeilen ü"
    assert line("a\nb\rc") == "a\\nb\\rc"


def test_records_as_json() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert json.dumps(jsonable({"claim": Claim("w", 1, 2), "at": at, "t": (1,)})) == (
        '{"claim": {"worker": "w", "lease": 1, "revision": 2}, "at": "2026-01-02T00:00:00Z", "t": [1]}'
    )


def test_times_for_people() -> None:
    now = datetime.now(UTC)
    assert ago(now - timedelta(seconds=42)) == "42s ago"
    assert ago(None) == ""
    assert [span(s) for s in (0.04, 99, 100, 6_000, 360_000)] == ["0.0s", "99s", "1m40s", "1h40m", "4d"]


def test_known_faults_of_etcd() -> None:
    assert parsed("3.5.1") == (3, 5, 1)
    assert parsed("unknown") is None
    assert len(faults_of((3, 5, 1))) == len(FAULTS)
    assert any(fault.is_severe for fault in faults_of((3, 5, 2)))
    assert not any(fault.issue == "13766" for fault in faults_of((3, 5, 3)))
    assert not any(fault.issue == "13766" for fault in faults_of((3, 4, 23))), "a line that never had it"
    assert not faults_of((3, 5, 23))
    assert not faults_of((3, 6, 5))
