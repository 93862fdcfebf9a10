"""Logs say a thing a hundred times and then how often more, and no secret ever."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid

import pytest
import structlog

from tenure.cli.log_filters import BURST, HIDDEN, WINDOW_S, RateLimit, Redaction, secrets_of
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.tokens import new_token
from tenure.worker.settings import WorkerSettings

TOKEN = new_token(uuid.uuid4()).text()
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWl0"
OUTAGE = """
import logging
import sys
import structlog
from tenure.cli.logs import configure

configure("INFO", sys.argv[1], ["canary-exact"])
log, library = structlog.get_logger(), logging.getLogger("library")
for number in range(5_000):
    log.warning("reports_not_answered", reports=number, error="Postgres: connection refused")
    library.error("cannot reach %s", number)
    log.error("audit_not_written", entry=number)
    structlog.get_logger("tenure.handler").bind(job_id="j").info("of a handler", number=number)
    log.warning("about_an_attempt", job_id="j", number=number)
log.warning("something_else")
import time
time.sleep(float(sys.argv[2]))
"""


def logged(program: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=True, timeout=100)
    return done.stderr.decode().splitlines()


def test_an_outage_does_not_fill_the_log() -> None:
    lines = [json.loads(line) for line in logged(OUTAGE, "json", str(WINDOW_S + 1))]
    told = [line for line in lines if "more_like_this" in line]
    events = [line["event"] for line in lines if "more_like_this" not in line]
    for event, level in (
        ("reports_not_answered", "warning"),
        ("about_an_attempt", "warning"),
        ("cannot reach", "error"),
    ):
        written = sum(1 for one in events if one.startswith(event))
        left_out = sum(line["more_like_this"] for line in told if line["event"].startswith(event))
        assert written + left_out == 5_000, event
        assert written <= 10 * BURST
        assert {line["level"] for line in told if line["event"].startswith(event)} == {level}
    assert events.count("audit_not_written") == 5_000, "the log has these in the place of Postgres"
    assert events.count("of a handler") == 5_000, "known by the logger, not by a field that others may have, too"
    assert "something_else" in events


def test_a_new_window_lets_lines_pass_again_and_says_what_was_left_out() -> None:
    told: list[tuple[str, str, int]] = []
    over = threading.Event()

    def summarize(event: str, level: str, lines: int) -> None:
        told.append((event, level, lines))
        over.set()

    rate_limit = RateLimit(summarize, burst=3, window_s=0.2)
    passed = [rate_limit.passes("e", "warning") for _ in range(10)]
    assert passed == [True] * 3 + [False] * 7
    assert rate_limit.passes("another", "warning") and rate_limit.passes("e", "error")
    assert over.wait(20), "told without another line"
    assert told == [("e", "warning", 7)]
    assert rate_limit.passes("e", "warning")


def test_texts_without_end_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.cli.log_filters.MOST_EVENTS", 5)
    rate_limit = RateLimit(lambda *_: None, burst=1, window_s=100.0)
    assert all(rate_limit.passes(f"text {number}", "info") for number in range(50))
    assert len(rate_limit._seen) == 5


def test_what_is_dropped_is_dropped_by_structlog() -> None:
    rate_limit = RateLimit(lambda *_: None, burst=1, window_s=100.0)
    rate_limit(None, "info", {"event": "e", "level": "info"})
    with pytest.raises(structlog.DropEvent):
        rate_limit(None, "info", {"event": "e", "level": "info"})
    assert rate_limit(None, "info", {"event": "e", "level": "info", "more_like_this": 3})


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ('{"error": "postgresql://tenure:canary@db:5432/tenure refused"}', "canary"),
        ("host=db user=tenure password=canary dbname=tenure", "canary"),
        ("host=db password='canary two' dbname=tenure", "canary"),
        ("http://user:canary@proxy:3128/", "canary"),
        ("authorization: Bearer canary-canary-canary", "canary"),
        (f"token {TOKEN} is not known", TOKEN[37:]),
        (f"issued {JWT}", JWT),
        ("https://s3/bucket/key?X-Amz-Signature=canary123&x=1", "canary"),
    ],
    ids=["url", "dsn", "quoted-dsn", "proxy", "header", "token", "jwt", "presigned"],
)
def test_what_looks_like_a_secret_is_not_written(line: str, secret: str) -> None:
    written = Redaction()(None, "", line)
    assert secret not in written and HIDDEN in written
    assert written.split()[0][:4] == line.split()[0][:4], "the rest of the line is as it was"


def test_what_is_no_secret_is_left_alone() -> None:
    line = '{"event": "waiting", "error": "fe_sendauth: no password supplied", "at": "http://c:7071/a", "by": "a@b.c"}'
    assert Redaction()(None, "", line) == line


def test_secrets_of_the_settings_are_not_written_in_whatever_form() -> None:
    dsn = "postgresql://tenure:p%22ss-canary@db/tenure"
    settings = CoordinatorSettings(postgres_dsn=dsn, etcd_password="etcd-canary", coordinator_id="c1")  # type: ignore[arg-type]
    redaction = Redaction(secrets_of(settings))
    for text in ("p%22ss-canary", 'p"ss-canary', "etcd-canary"):
        for form in (text, json.dumps({"error": text}), repr(text)):
            assert "canary" not in redaction(None, "", form)
    worker = WorkerSettings(token=TOKEN)  # type: ignore[arg-type]
    assert TOKEN in secrets_of(worker)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_comes_out_of_a_process_that_logs_it(log_format: str) -> None:
    program = """
import logging, sys, structlog
from tenure.cli.logs import configure
configure("INFO", sys.argv[1], ["canary-exact"])
text = sys.argv[2] + ' canary-exact "canary-exact" password=canary-pw postgresql://u:canary-url@h/d'
structlog.get_logger().warning("refused", error=text, nested={"a": [text]}, text=text)
logging.getLogger("library").error("told %s", text)
try:
    raise ValueError(text)
except ValueError:
    structlog.get_logger().exception("call_failed")
    logging.getLogger("library").exception("failed")
"""
    said = "\n".join(logged(program, log_format, f"{TOKEN} Bearer {JWT}"))
    assert "canary" not in said.replace('canary-exact "canary-exact" password=canary-pw', "")
    assert TOKEN[37:] not in said and JWT not in said
    assert "call_failed" in said and "refused" in said


@pytest.mark.parametrize("word", ["a" * 1_000_000, "-eyJ" * 250_000, "password" * 125_000, "a://" * 250_000])
def test_a_line_without_spaces_holds_up_nobody(word: str) -> None:
    """In time that grew with the square of its length this would not end before the test's time is up."""
    assert Redaction(["canary-exact"])(None, "", f"dump {word}") == f"dump {word}"


@pytest.mark.parametrize(
    "secret",
    [TOKEN, JWT, "password=geheim123", "Bearer canary-canary-canary"],
    ids=["token", "jwt", "password", "bearer"],
)
def test_a_secret_at_the_beginning_of_a_line_within_json_is_not_written(secret: str) -> None:
    for end in ("\n", "\r\n", "\t"):
        written = Redaction()(None, "", json.dumps({"exception": f"Traceback{end}{secret}{end}more"}))
        assert secret[-12:] not in written and HIDDEN in written
        assert json.loads(written)["exception"].startswith("Traceback")


def test_an_object_that_cannot_say_what_it_is_breaks_nothing_that_logs_it() -> None:
    code = """
import logging
from tenure.cli.logs import configure

class Odd:
    def __str__(self):
        raise RuntimeError("not today")

configure("INFO", "json", [])
logging.getLogger("library").warning(Odd())
print("went on")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "went on\n"), ran.stderr
