"""A coordinator that others reach has TLS and asks who calls, or was told to go without, or does not start."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from tenure.coordinator.coordinator import main
from tenure.coordinator.exposure import require_closed
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.errors import ConfigurationError
from tenure.model.listen import is_loopback

NEAR = ("127.0.0.1:7070", "127.8.9.1:0", "[::1]:7070", "localhost:7070", "::1:7070")
FAR = ("0.0.0.0:7070", "[::]:7070", ":7070", "10.0.0.7:7070", "[fd00::1]:7070", "here.example:7070")
TLS = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
AUTH = {"auth": "required"}


def settings(**given: Any) -> CoordinatorSettings:
    return CoordinatorSettings(postgres_dsn="postgresql://h/d", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", [*NEAR, "unix:/run/tenure.sock", "unix-abstract:tenure", "[::ffff:127.0.0.1]:1"])
def test_this_machine_alone(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", [*FAR, "127.example:1", "127.1.example:1", "localhost.example:1", "[::ffff:10.0.0.7]:1"]
)
def test_reached_from_elsewhere(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("grpc", "http", "tls", "auth", "allow"),
    list(itertools.product((NEAR[0], FAR[0]), (NEAR[2], FAR[1]), (False, True), (False, True), (False, True))),
)
def test_the_table(grpc: str, http: str, tls: bool, auth: bool, allow: bool) -> None:
    given = settings(
        grpc_listen=grpc, http_listen=http, allow_insecure=allow, **(TLS if tls else {}), **(AUTH if auth else {})
    )
    is_near = not {grpc, http} & {*FAR}
    if is_near or (tls and auth) or allow:
        with capture_logs() as logs:
            require_closed(given)
        in_the_open = not is_near and not (tls and auth)
        assert [one["event"] for one in logs] == (["serving_in_the_open"] if in_the_open else [])
        return
    with pytest.raises(ConfigurationError) as refused:
        require_closed(given)
    assert refused.value.exit_code == 78
    said = refused.value.message
    assert ("TENURE_GRPC_LISTEN 0.0.0.0:7070" in said) is (grpc in FAR)
    assert ("TENURE_HTTP_LISTEN [::]:7070" in said) is (http in FAR)
    assert ("TLS (" in said) is not tls and ("credentials (" in said) is not auth
    for way_out in (
        "loopback",
        "TENURE_TLS_CERT, TENURE_TLS_KEY and TENURE_AUTH=required",
        "TENURE_ALLOW_INSECURE=true",
    ):
        assert way_out in str(refused.value.hint)


def test_nothing_listens_before_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="TENURE_GRPC_LISTEN"):
        main(settings(grpc_listen="0.0.0.0:0"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls_cert": "c"}, "tls_cert and tls_key belong together"),
        ({"tls_key": "k"}, "tls_cert and tls_key belong together"),
        ({"tls_client_key": "k"}, "tls_client_cert and tls_client_key belong together"),
        ({"tls_client_ca": "ca"}, "tls_client_ca needs tls_cert"),
        ({**TLS, "tls_client_required": True}, "tls_client_required needs tls_client_ca"),
        ({"tls_client_cert": "c", "tls_client_key": "k"}, "over TLS only"),
        ({"auth": "perhaps"}, "'none' or 'required'"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)
