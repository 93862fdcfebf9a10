"""Process 1 of the image: exit codes and signals, here; orphans, where it is process 1 (test_image.py)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

INIT = Path(__file__).resolve().parents[2] / "deploy" / "image" / "init.py"
PATIENCE_S = 60


def begin(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-IS", str(INIT), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 78", 78), ("kill -9 $$", 137)])
def test_it_ends_with_the_code_of_its_program(command: str, code: int) -> None:
    assert begin("sh", "-c", command).wait(PATIENCE_S) == code


def test_a_program_that_is_not_there_is_named() -> None:
    ended = begin("no-such-program")
    assert "init: no-such-program: No such file" in ended.communicate(timeout=PATIENCE_S)[1]
    assert ended.returncode == 127


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once(number: signal.Signals) -> None:
    program = """
import signal, sys
told = []
signal.pthread_sigmask(signal.SIG_BLOCK, [int(sys.argv[1])])
print("ready", flush=True)
print("got", signal.sigwait([int(sys.argv[1])]).value, int(sys.argv[1]) in signal.sigpending(), flush=True)
"""
    running = begin(sys.executable, "-c", program, str(int(number)))
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(number)
    assert running.communicate(timeout=PATIENCE_S)[0] == f"got {int(number)} False\n"
    assert running.returncode == 0


def test_a_program_without_a_handler_ends_by_the_signal() -> None:
    running = begin("sh", "-c", "echo ready; exec sleep 600")
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.terminate()
    assert running.wait(PATIENCE_S) == 128 + signal.SIGTERM
