"""Addresses to listen on are ``HOST:PORT``, or refused with the name of their setting."""

from __future__ import annotations

import pytest
from pydantic_settings import BaseSettings

from tenure.cli.settings import parsed
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.errors import ConfigurationError
from tenure.model.listen import listened
from tenure.worker.settings import WorkerSettings


@pytest.mark.parametrize(
    "address", ["127.0.0.1:7071", "0.0.0.0:0", ":7071", "a.example:65535", "[::]:7071", "::1:7071", "[fd00::1]:7071"]
)
def test_addresses(address: str) -> None:
    assert listened(address) == address


@pytest.mark.parametrize(
    "address", ["", "31998", "abc", "h:", "h:x", "h:-1", "h:65536", "h:\u0663", "http://h:1", "::1", "[h]:1", "a b:1"]
)
def test_what_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        listened(address)


@pytest.mark.parametrize(
    ("kind", "field", "variable"),
    [
        (CoordinatorSettings, "grpc_listen", "TENURE_GRPC_LISTEN"),
        (CoordinatorSettings, "http_listen", "TENURE_HTTP_LISTEN"),
        (WorkerSettings, "worker_http_listen", "TENURE_WORKER_HTTP_LISTEN"),
    ],
)
@pytest.mark.parametrize("as_option", [False, True])
def test_the_setting_is_named(
    kind: type[BaseSettings], field: str, variable: str, as_option: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENURE_POSTGRES_DSN", "postgresql://h/d")
    if not as_option:
        monkeypatch.setenv(variable, "31998")
    with pytest.raises(ConfigurationError, match=f"^{variable} is refused: .*'31998' is not HOST:PORT"):
        parsed(kind, {field: "31998"} if as_option else {})


def test_a_worker_need_not_listen() -> None:
    assert WorkerSettings(worker_http_listen="").worker_http_listen == ""
