"""The small pure parts: frames, the watchdog's table, how errors and statuses are described."""

from __future__ import annotations

import json
import math
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.model.errors import InvalidInput, OwnershipLost, TenureError, Unavailable
from tenure.worker.context import Context
from tenure.worker.execute import frames, outcome
from tenure.worker.execute.call import NO_LABELS, Assignment
from tenure.worker.execute.child import error_from
from tenure.worker.execute.forkserver import describe_status
from tenure.worker.execute.forkserver_main import children_of, parent_of, processes, stat_fields
from tenure.worker.execute.watchdog import GRACE_S, Watchdog, boottime, shared_instant

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.text(), _json, max_size=4), max_size=6), st.integers(1, 7))
def test_frames_survive_any_cutting(values: list[dict[str, object]], step: int) -> None:
    stream = b"".join(frames.encode(value) for value in values)
    decoder = frames.Decoder()
    found = [frame for at in range(0, len(stream), step) for frame in decoder.feed(stream[at : at + step])]
    assert found == values


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x01{", b"\0\0\0\2\xff\xff"]
)
def test_broken_frames(data: bytes) -> None:
    with pytest.raises(frames.BrokenFrame):
        frames.Decoder().feed(data)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        with pytest.raises(frames.BrokenFrame):
            frames.read(ours)


def test_a_frame_cut_short_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"\0\0\0\x09{")
        theirs.close()
        assert frames.read(ours) is None


def test_watchdog() -> None:
    dog = Watchdog()
    dog.guard(1, 10.0)
    dog.guard(2, 20.0)
    dog.guard(3, None)
    dog.extend(3, 1.0)
    dog.extend(9, 1.0)
    assert dog.next_deadline() == 10.0
    assert dog.expired(9.999) == []
    dog.extend(1, 30.0)
    assert dog.expired(20.0) == [2]
    assert dog.expired(20.0) == []
    dog.extend(1, 5.0)
    assert dog.expired(6.0) == [1]
    dog.guard(4, 7.0)
    dog.release(4)
    assert dog.next_deadline() is None


def test_instants_are_shared_between_clocks() -> None:
    assert shared_instant(math.inf, 5.0) is None
    assert shared_instant(-math.inf, 5.0) == -math.inf, "a claim that is gone is no claim without end"
    instant = shared_instant(1_005.0, 1_000.0)
    assert instant is not None
    assert 1.0 < instant - GRACE_S - boottime() <= 5.0


def test_errors_cross_the_pipe_by_name() -> None:
    assert type(error_from("OwnershipLost", "m")) is OwnershipLost
    assert type(error_from("Unavailable", "m")) is Unavailable
    assert type(error_from("InvalidInput", "m")) is InvalidInput
    assert type(error_from("__import__", "m")) is TenureError


def test_statuses_in_words() -> None:
    assert [describe_status(one) for one in (0, 3, -9, -64, None)] == [
        "exit code 0",
        "exit code 3",
        "killed by SIGKILL",
        "killed by SIGRTMAX",
        "unknown status",
    ]


def test_proc_is_read() -> None:
    assert parent_of(os.getpid()) == os.getppid()
    assert os.getpid() in processes()
    assert os.getpid() in children_of(os.getppid()) or children_of(os.getppid()) == []
    assert stat_fields(2**30) == []


def test_nothing_of_this_imports_grpc() -> None:
    code = (
        "import sys\n"
        "import tenure.worker.execute.engines, tenure.worker.execute.forkserver_main, tenure.worker.harness\n"
        "import tenure.worker.kinds.builtin\n"
        "sys.exit(any(name == 'grpc' or name.startswith('grpc.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_shown() -> None:
    from tenure.worker.handler import define

    ended = outcome.raised(Unspeakable(), define("k", lambda: None), None)
    assert ended.error is not None
    assert "cannot be shown" in ended.error.message


@pytest.mark.parametrize("labels", [NO_LABELS, {"zone": "a"}])
def test_labels_can_be_written_as_json_and_sent_to_another_process(labels: Mapping[str, str]) -> None:
    assignment = Assignment("job", 1, 7, "default", "k", "default", "null", labels=labels)
    found = Context(assignment, cast("Any", None), cast("Any", None)).labels
    assert pickle.dumps(found)
    assert json.loads(json.dumps(found)) == dict(labels)
