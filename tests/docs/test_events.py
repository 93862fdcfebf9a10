"""docs/EVENTS.md is what the code logs, and who speaks of an attempt says of which."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.generate_events import Event, calls

ROOT = Path(__file__).resolve().parents[2]
EVERY = list(calls())


def test_the_list_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_events.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("event", EVERY, ids=lambda one: f"{one.file}:{one.name}")
def test_events_are_names_and_speak_of_attempts_in_the_same_words(event: Event) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", event.name)
    if "fence" in event.fields:
        assert "job" in event.fields
    if event.file.startswith("worker/") and "job" in event.fields:
        assert {"job", "attempt", "fence"} <= set(event.fields)


def test_nothing_is_logged_that_names_a_secret() -> None:
    secret = {"dsn", "password", "token", "secret", "authorization", "payload", "result"}
    for event in EVERY:
        assert not secret & set(event.fields), event
