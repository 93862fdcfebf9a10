"""The ports of embedded servers."""

from __future__ import annotations

import socket

import pytest

from tenure.cli.embedded import ports


def test_a_free_preferred_port_is_kept() -> None:
    port = ports.choose()
    assert ports.choose(port) == port


def test_a_taken_port_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.choose(port) != port


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(port < 32768 for port in ports.choose_many(20))


def test_many_are_distinct_and_keep_their_places() -> None:
    first = ports.choose_many(5)
    assert len(set(first)) == 5
    assert ports.choose_many(5, first) == first


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port, host="": False)
    with pytest.raises(OSError, match="no free TCP port"):
        ports.choose()
