"""What a client shows: a token from its arguments, the environment or a file, and what it makes of a refusal."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from tests.client.service import Service

from tenure.client import AsyncClient, PermissionDenied, Unauthenticated
from tenure.model.errors import ConfigurationError
from tenure.v1.bearer import Bearer


def shown(bearer: Bearer) -> str:
    return "".join(value for _, value in bearer.metadata())


def test_a_token_is_given_or_in_the_environment_or_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_TOKEN", raising=False)
    monkeypatch.delenv("TENURE_TOKEN_FILE", raising=False)
    assert Bearer.given().metadata() == ()
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    monkeypatch.setenv("TENURE_TOKEN_FILE", str(file))
    assert shown(Bearer.given()) == "Bearer of-the-file"
    monkeypatch.setenv("TENURE_TOKEN", "of-the-environment")
    assert shown(Bearer.given()) == "Bearer of-the-environment"
    assert shown(Bearer.given("given")) == "Bearer given"


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    bearer = Bearer(file=file)
    assert shown(bearer) == "Bearer first"
    new = tmp_path / "new"
    new.write_text("second")
    os.replace(new, file)
    assert shown(bearer) == "Bearer second"
    file.unlink()
    assert shown(bearer) == "Bearer second", "it is being replaced"


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"two words\nlines", b"\xff\xfe", "tökén".encode(), b"x" * 70_000]
)
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="TENURE_TOKEN_FILE") as caught:
        Bearer(file=file)
    assert "words" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "error"),
    [(grpc.StatusCode.UNAUTHENTICATED, Unauthenticated), (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied)],
)
async def test_a_refusal_is_an_error_of_its_own(
    service: Service, status: grpc.StatusCode, error: type[Exception]
) -> None:
    service.failures = [status]
    async with AsyncClient(service.address, token="t") as client:
        with pytest.raises(error, match=f"refused by {service.address}: on demand") as caught:
            await client.get("01890a5d-ac96-774b-bcce-b302099a8057")
    assert "TENURE_TOKEN" in str(getattr(caught.value, "hint", ""))
