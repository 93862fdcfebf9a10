"""The network of the chaos runs: cuts cut what they should, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.network import Network, remove_leftovers, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")

LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 7)); print('up', flush=True); time.sleep(600)"
CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], 7), timeout=float(sys.argv[2]))"


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(["a", "b", "c"])
    yield made
    made.close()


def reaches(network: Network, one: str, other: str, patience_s: float = 10.0) -> bool:
    argv = [*network.prefix(one), sys.executable, "-I", "-S", "-c", CONNECT, network.address(other), f"{patience_s}"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


@pytest.fixture
def listening(network: Network) -> Iterator[None]:
    argv = [sys.executable, "-I", "-S", "-c", LISTEN]
    servers = [
        subprocess.Popen([*network.prefix(one), *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for one in ("a", "b", "c")
    ]
    for server in servers:
        assert server.stdout is not None
        server.stdout.readline()
    yield
    for server in servers:
        server.kill()
        server.communicate()


def test_a_cut_separates_two_and_no_others(network: Network, listening: None) -> None:
    assert reaches(network, "a", "b")
    cut = network.cut("a", "b")
    assert not reaches(network, "a", "b", 0.5)
    assert not reaches(network, "b", "a", 0.5)
    assert reaches(network, "a", "c")
    network.heal(cut)
    assert reaches(network, "a", "b")


def test_a_one_way_cut_silences_one_side(network: Network, listening: None) -> None:
    """Without packets one way no connection comes about either way; who drops them is what differs."""
    network.cut_one_way(["a"], ["b"])
    assert not reaches(network, "a", "b", 0.5)
    assert "-s " + network.address("a") in filters(network, "b")
    assert filters(network, "a").strip().splitlines() == ["-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT"]
    network.heal_all()
    assert reaches(network, "a", "b")


def test_cuts_that_overlap_heal_one_by_one(network: Network, listening: None) -> None:
    first = network.cut("a", "b")
    second = network.cut("a", "b", "c")
    network.heal(first)
    assert not reaches(network, "a", "b", 0.5)
    network.heal(second)
    assert reaches(network, "a", "b")
    network.lose(["a"], 1.0)
    assert not reaches(network, "a", "b", 0.5)
    network.heal_all()
    network.heal(first)  # again: nothing happens


def test_what_a_killed_runner_left_is_removed(network: Network) -> None:
    """Of those that live nothing is touched."""
    code = "from tests.chaos.network import Network; import os; Network(['a']); os._exit(9)"
    gone = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    assert gone.wait(60) == 9
    assert any(str(gone.pid) in name for name in left())
    remove_leftovers()
    assert not any(str(gone.pid) in name for name in left())
    assert any(str(os.getpid()) in name for name in left())


def left() -> list[str]:
    return [*os.listdir("/run/netns"), *os.listdir("/sys/class/net")]


def filters(network: Network, participant: str) -> str:
    argv = [*network.prefix(participant), "iptables", "-w", "-S"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
