"""Commands: what they are given, what is kept of their output, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.worker_execute.processes import wait_until_gone

from tenure.model.states import Outcome
from tenure.worker.handler import Handler, command_handler
from tenure.worker.harness import Harness
from tenure.worker.kinds.builtin import builtin


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Harness(stop_grace_s=0.5) as one:
        yield one


def python(code: str, **options: Any) -> Handler:
    """Declare a command that runs some Python."""
    return command_handler("python", [sys.executable, "-S", "-c", code], **options)


def _written(path: Path) -> bool:
    return path.exists() and bool(path.read_text())


def any_command() -> Handler:
    handler = builtin(allow_command=True).get("command")
    assert handler is not None
    return handler


async def test_payload_in_result_out(harness: Harness) -> None:
    echo = python("import json, sys; print(json.dumps({'got': json.load(sys.stdin)}))")
    run = await harness.run(echo, {"n": [1, 2]})
    assert run.result == {"got": {"n": [1, 2]}}


async def test_output_that_is_no_json(harness: Harness) -> None:
    run = await harness.run(python("import sys; print('plain'); print('note', file=sys.stderr); print(float('nan'))"))
    assert run.result == {"exit_code": 0, "stdout": "plain\nnan\n", "stderr": "note\n"}


async def test_environment_is_named_not_inherited(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_TOKEN", "secret")
    monkeypatch.setenv("EXTRA", "wanted")
    show = python(
        "import json, os; print(json.dumps(dict(os.environ)))", env={"OWN": "1"}, inherit_env=("PATH", "EXTRA")
    )
    run = await harness.run(show, job_id="abc", attempt=3)
    seen = {name: value for name, value in run.result.items() if name not in ("LC_CTYPE", "PATH")}
    assert seen.pop("TENURE_FENCE").isdigit()
    assert seen == {"OWN": "1", "EXTRA": "wanted", "TENURE_JOB_ID": "abc", "TENURE_ATTEMPT": "3"}


async def test_exit_codes_signals_and_missing_programs(harness: Harness) -> None:
    failed = await harness.run(python("import sys; print('why', file=sys.stderr); sys.exit(3)"))
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("CommandFailed", "exit code 3: why")
    assert failed.ended.retryable
    killed = await harness.run(python("import os; os.kill(os.getpid(), 9)"))
    assert killed.error is not None
    assert killed.error.message == "killed by SIGKILL"
    absent = [
        command_handler("absent", ["tenure-test-absent"]),
        command_handler("absent", ["/etc/passwd"]),
        command_handler("absent", ["true"], cwd="/tenure-test-absent"),
    ]
    for handler in absent:
        run = await harness.run(handler)
        assert run.error is not None
        assert run.error.type == "CommandNotExecuted"


async def test_no_shell_and_working_directory(harness: Harness, tmp_path: Path) -> None:
    run = await harness.run(any_command(), {"argv": ["echo", "$HOME; `id`"], "cwd": str(tmp_path)})
    assert run.result == {"exit_code": 0, "stdout": "$HOME; `id`\n", "stderr": ""}
    run = await harness.run(any_command(), {"argv": ["pwd"], "cwd": str(tmp_path)})
    assert run.result["stdout"].strip() == str(tmp_path)
    run = await harness.run(any_command(), {"argv": ["cat"], "stdin": '{"a": 1}', "env": {"X": "y"}})
    assert run.result["stdout"] == '{"a": 1}', "the built-in kind always gives its output, JSON or not"


@pytest.mark.parametrize(
    "text",
    ["$(touch x)", "`touch x`", "; touch x", "| touch x", "&& touch x", "\ntouch x\n", "> x", "${IFS}touch${IFS}x"],
)
async def test_nothing_in_a_payload_is_run_by_a_shell(harness: Harness, tmp_path: Path, text: str) -> None:
    payload = {"argv": ["printf", "%s", text], "env": {"A": text}, "stdin": text, "cwd": str(tmp_path)}
    run = await harness.run(any_command(), payload)
    assert run.result == {"exit_code": 0, "stdout": text, "stderr": ""}
    run = await harness.run(any_command(), {"argv": [text], "cwd": str(tmp_path)})
    assert run.error is not None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"argv": []}, "argv"),
        ({"argv": ["a\0"]}, "argv"),
        ({"argv": ["a"], "env": {"A=B": "c"}}, "env"),
        ({"argv": ["a"], "env": {"A": "\0"}}, "env.A"),
        ({"argv": ["a"], "cwd": "\0"}, "cwd"),
        ({"argv": ["a"], "shell": True}, "shell"),
        ({"argv": "ls -l"}, "argv"),
        ({"argv": ["a"], "timeout_s": -1}, "timeout_s"),
    ],
)
async def test_malformed_payloads_start_nothing(payload: object, says: str) -> None:
    run = await Harness().run(any_command(), payload)
    assert run.error is not None
    assert (run.error.type, run.ended.retryable) == ("InvalidPayload", False)
    assert says in run.error.message


def test_the_command_kind_is_opt_in() -> None:
    assert "command" not in builtin()
    assert builtin().kinds() == ["http", "noop", "sleep"]


async def test_a_gigabyte_of_output_costs_a_tail(harness: Harness) -> None:
    flood = python(
        "import sys\n"
        "block = b'y' * 1048576\n"
        "for _ in range(512):\n"
        "    sys.stdout.buffer.write(block)\n"
        "    sys.stderr.buffer.write(block)\n"
        "sys.stdout.buffer.write(b'the end')\n"
    )
    process = psutil.Process()
    before = process.memory_info().rss
    run = await harness.run(flood)
    assert process.memory_info().rss - before < 64 * 1024 * 1024
    assert run.result["stdout"].endswith("the end")
    assert len(json.dumps(run.result)) <= 65_536


async def test_output_byte_by_byte_and_odd_bytes(harness: Harness) -> None:
    code = "import os\nfor i in range(20000): os.write(1, b'z')\nos.write(1, b'\\xff\\x00')"
    run = await harness.run(python(code, output_bytes=100))
    assert run.result["stdout"] == "z" * 98 + "\ufffd\ufffd"


async def test_input_that_is_not_read(harness: Harness) -> None:
    run = await harness.run(python("print(1)"), "x" * 200_000)
    assert run.result == 1
    run = await harness.run(python("import sys, time; time.sleep(0.2); print(len(sys.stdin.read()))"), "x" * 200_000)
    assert run.result == 200_002


async def test_timeouts(harness: Harness) -> None:
    by_job = await harness.run(command_handler("sleep", ["sleep", "60"]), timeout_s=0.3)
    by_handler = await harness.run(command_handler("sleep", ["sleep", "60"], timeout_s=0.3))
    by_payload = await harness.run(any_command(), {"argv": ["sleep", "60"], "timeout_s": 0.3})
    assert {run.outcome for run in (by_job, by_handler, by_payload)} == {Outcome.TIMED_OUT}


async def test_stopping_ends_the_whole_tree(harness: Harness, tmp_path: Path) -> None:
    script = (
        "trap '' TERM; sleep 300 & echo $! > near; setsid sh -c 'echo $$ > far; exec sleep 300' &\n"
        "while [ ! -s far ]; do sleep 0.02; done; echo $$ > leader; wait; sleep 300"
    )
    tree = command_handler("tree", ["sh", "-c", script], cwd=str(tmp_path))
    run = await harness.run(tree, cancel_after=lambda: _written(tmp_path / "leader"))
    assert run.outcome is Outcome.CANCELED
    for name in ("near", "far", "leader"):
        wait_until_gone(int((tmp_path / name).read_text()))


async def test_a_daemon_that_holds_the_pipe_does_not_hold_the_attempt(harness: Harness) -> None:
    run = await harness.run(command_handler("daemon", ["sh", "-c", "setsid sleep 300 & echo $!"]))
    assert run.outcome is Outcome.COMPLETED
    wait_until_gone(int(run.result))


async def test_descriptors_and_processes_are_given_back(harness: Harness) -> None:
    process = psutil.Process()
    echo = command_handler("echo", ["cat"])
    await harness.run(echo, 1)
    before = process.num_fds()
    for _ in range(5):
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(harness.run(echo, number))
            tasks.create_task(harness.run(command_handler("absent", ["tenure-test-absent"])))
            tasks.create_task(harness.run(command_handler("sleep", ["sleep", "60"]), cancel_after=0.01))
    assert process.num_fds() <= before + 2
    (server,) = [one for one in process.children() if any("forkserver_main" in word for word in one.cmdline())]
    assert [child for child in server.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE] == []


async def test_graceful_stop(tmp_path: Path) -> None:
    note = tmp_path / "note"
    graceful = f"trap 'echo \"saved\"; exit 0' TERM; echo up > {note}; while :; do sleep 0.05; done"
    command = command_handler("graceful", ["sh", "-c", graceful])
    run = await Harness(stop_grace_s=30).run(command, cancel_after=lambda: _written(note))
    assert run.outcome is Outcome.COMPLETED
    assert run.result["stdout"] == "saved\n"


ATTEMPTS = 20


async def test_a_command_that_cannot_be_started_fails_and_leaves_no_descriptor(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short of descriptors, each further attempt must not take three more."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    echo = python("print(1)")
    await harness.run(echo)
    before = psutil.Process().num_fds()
    monkeypatch.setattr(socket, "socketpair", none_left)
    for _ in range(ATTEMPTS):
        run = await harness.run(echo)
        assert run.error is not None
        assert (run.outcome, run.error.type, run.ended.retryable) == (Outcome.FAILED, "ProcessNotStarted", True)
    # Others of this process come and go; a leak would be three for each attempt.
    assert psutil.Process().num_fds() < before + ATTEMPTS
