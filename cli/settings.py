"""From options and environment to a process' settings; what pydantic refuses is said as settings, not as fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tenure.model.errors import ConfigurationError
from tenure.model.wording import sentence

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

Settings = TypeVar("Settings", bound="BaseSettings")


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the environment speaks for the others."""
    return {name: value for name, value in options.items() if value is not None}


def parsed(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Build the settings.

    Raises:
        ConfigurationError: naming each variable that is missing or refused.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    try:
        return kind(**values)
    except ValidationError as exc:
        problems = [f"{_variable(kind, error['loc'])} {_words(error)}" for error in exc.errors(include_input=False)]
        raise ConfigurationError("; ".join(problems), hint="set it in the environment, or see --help") from exc
    except SettingsError as exc:
        raise ConfigurationError(str(exc)) from exc


def _variable(kind: type[BaseSettings], location: tuple[Any, ...]) -> str:
    if not location:
        return "settings:"
    name = str(location[0])
    prefix = kind.model_config.get("env_prefix", "")
    return name if name.upper().startswith(prefix) else f"{prefix}{name.upper()}"


def _words(error: Any) -> str:
    if error["type"] == "missing":
        return "is not set"
    return f"is refused: {sentence(error['msg'])}"
