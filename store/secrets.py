"""Secrets that are kept in files, as mounted by Kubernetes or written by an agent: one rule for how they are read.

Invariant: what is wrong with a file is told by its path and never by its content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from tenure.model.errors import ConfigurationError

SUFFIX = "_FILE"
MAX_BYTES = 65_536


def read_secret(path: Path, named_by: str) -> str:
    """Return what a file holds, without the line's end that editors leave.

    Raises:
        ConfigurationError: it cannot be read, is empty, or is no text of reasonable size.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{named_by}: {path} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{named_by}: {path} is longer than {MAX_BYTES} bytes")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{named_by}: {path} is no text in UTF-8") from None  # the cause holds the content
    if not text.strip():
        raise ConfigurationError(f"{named_by}: {path} is empty")
    return text


def from_environment(variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return a secret from its variable, or from the file that the variable with ``_FILE`` behind it names.

    Raises:
        ConfigurationError: both are set, or the file is not as ``read_secret`` wants it.
    """
    value, path = environment.get(variable), environment.get(variable + SUFFIX)
    if path is None:
        return value
    if value is not None:
        raise ConfigurationError(f"{variable} and {variable}{SUFFIX} are both set", hint="set one of the two")
    return read_secret(Path(path), variable + SUFFIX)


class SecretFiles(PydanticBaseSettingsSource):
    """Gives settings that are ``SecretStr`` what is in the file that their variable with ``_FILE`` behind it names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return a field's value, the variable that it came from, and that it is no JSON."""
        variable = f"{self.config.get('env_prefix', '')}{field_name}".upper()
        if SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, variable, False
        if variable + SUFFIX not in os.environ:
            return None, variable, False
        return from_environment(variable), variable, False

    def __call__(self) -> dict[str, Any]:
        """Return the values that were found."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
