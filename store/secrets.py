"""Secrets from the environment, or from the files that it names; ``v1.secret_file`` says how those are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from tenure.model.errors import ConfigurationError
from tenure.v1.secret_file import read_secret

SUFFIX = "_FILE"


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
    return read_secret(path, variable + SUFFIX)


class SecretFiles(PydanticBaseSettingsSource):
    """Gives settings that are ``SecretStr`` what is in the file that their variable with ``_FILE`` behind it names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return a field's value, the variable that it came from, and that it is no JSON."""
        variable = f"{self.config.get('env_prefix', '')}{field_name}".upper()
        if SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, variable, False
        if variable + SUFFIX not in os.environ or f"{field_name}{SUFFIX}".lower() in self.settings_cls.model_fields:
            return None, variable, False  # what has a setting for its file reads that by itself, again and again
        return from_environment(variable), variable, False

    def __call__(self) -> dict[str, Any]:
        """Return the values that were found."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
