"""Where a coordinator says that it is to be found."""

from __future__ import annotations

import socket

import pytest

from tenure.coordinator.options import advertised


def test_an_address_that_others_can_reach_is_told_as_it_is() -> None:
    assert advertised("10.1.2.3:7070") == "10.1.2.3:7070"
    assert advertised("[::1]:7070") == "[::1]:7070"


@pytest.mark.parametrize("everywhere", ["0.0.0.0:7070", "[::]:7070", ":7070"])
def test_nobody_is_sent_to_a_wildcard(monkeypatch: pytest.MonkeyPatch, everywhere: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    monkeypatch.setattr(socket, "gethostbyname", {"here": "172.18.0.5"}.__getitem__)
    assert advertised(everywhere) == "172.18.0.5:7070"


def test_the_name_is_told_where_it_leads_to_loopback_or_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    assert advertised("0.0.0.0:7070") == "here:7070"

    def unknown(name: str) -> str:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert advertised("0.0.0.0:7070") == "here:7070"
