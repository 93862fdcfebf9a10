"""``tenure pools drain`` says that it is done only when nothing that was on its way can start any more."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner, Result

from tenure.cli import pools
from tenure.cli.main import app
from tenure.client import Pause


class Script:
    """A client and a clock: how many jobs execute at each look, None where somebody resumed the pool."""

    def __init__(self, *executing: int | None) -> None:
        self._executing = list(executing)
        self.looks = 0
        self.now = 0.0

    def pause(self, **subject: str) -> int:
        return 0

    def pauses(self) -> list[Pause]:
        executing = self._executing[min(self.looks, len(self._executing) - 1)]
        self.looks += 1
        if executing is None:
            return []
        return [Pause(subject="pool", name="p", reason="", paused_at=None, executing=executing)]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def drain(monkeypatch: pytest.MonkeyPatch, script: Script, *options: str) -> Result:
    monkeypatch.setattr(pools, "connect", lambda coordinator: nullcontext(script))
    monkeypatch.setattr(pools, "time", script)
    return CliRunner().invoke(app, ["pools", "drain", "p", *options])


@pytest.mark.parametrize(("executing", "idle_from_s"), [((0,), 0.0), ((0, 0, 1, 0), 1.5), ((2, 0, 0, 0, 1, 1, 0), 3.0)])
def test_what_starts_after_a_look_at_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, executing: tuple[int, ...], idle_from_s: float
) -> None:
    script = Script(*executing)
    done = drain(monkeypatch, script)
    assert done.exit_code == 0, done.output
    assert "drained" in done.stdout
    assert script.now == idle_from_s + pools.SETTLE_S


@pytest.mark.parametrize(("executing", "words"), [((3,), "3 jobs"), ((0,), "less than 3 s")])
def test_a_drain_that_is_not_done_in_time_says_so(
    monkeypatch: pytest.MonkeyPatch, executing: tuple[int, ...], words: str
) -> None:
    done = drain(monkeypatch, Script(*executing), "--timeout", "1s")
    assert done.exit_code == 7
    assert words in done.stderr
    assert not done.stdout


def test_a_drain_tells_what_it_did_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    done = drain(monkeypatch, Script(0), "--output", "json")
    assert json.loads(done.stdout) == {"pool": "p", "drained": True}


def test_a_pool_that_is_resumed_meanwhile_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    done = drain(monkeypatch, Script(1, 0, None))
    assert done.exit_code == 4
    assert "resumed" in done.stderr
