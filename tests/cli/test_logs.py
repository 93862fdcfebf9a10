"""Logs: whatever a client sends, one event is one record, and no control character reaches a terminal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HOSTILE = 'x\n{"event": "fake"}\r\x1b[2J\x1b]0;t\x07\u202egnp [bold]%s%d\x00\x9b31m'
PROGRAM = """
import logging
import sys
import structlog
from tenure.cli.logs import configure

configure("INFO", sys.argv[1])
text = sys.argv[2].encode().decode("unicode_escape")
log, library = structlog.get_logger(), logging.getLogger("library")


def fail(canary):
    raise ValueError(text)


log.warning("job_failed", error=text, kind=text, labels={text: [text]})
log.warning(text)
library.error("told %s", text)
library.error(text)
try:
    fail("canary-in-a-variable")
except ValueError:
    log.exception("call_failed", reason=text)
    library.exception("failed")
"""
RECORDS = 6


def logged(log_format: str) -> str:
    hostile = HOSTILE.encode("unicode_escape").decode()
    command = [sys.executable, "-c", PROGRAM, log_format, hostile]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stderr.decode()


def test_one_event_is_one_json_record_always() -> None:
    records = [json.loads(line) for line in logged("json").splitlines()]
    assert len(records) == RECORDS
    assert [record["event"] for record in records].count(HOSTILE) == 2
    assert records[0]["error"] == records[0]["kind"] == HOSTILE
    assert all(record["level"] in ("warning", "error") for record in records)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_control_character_reaches_a_terminal(log_format: str) -> None:
    said = logged(log_format)
    assert {char for char in said if not char.isprintable()} == {"\n"}
    assert not any(line.startswith("{") and "fake" in line and "level" not in line for line in said.splitlines())


def test_a_traceback_shows_no_variables_and_forges_no_record() -> None:
    said = logged("text")
    assert "canary" not in said.replace('fail("canary-in-a-variable")', "")
    stamped = [line for line in said.splitlines() if not line.startswith("    ")]
    assert len([line for line in stamped if line]) == RECORDS
