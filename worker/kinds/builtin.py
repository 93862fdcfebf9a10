"""The registry of built-in kinds.

Called by the worker's main. Invariant: ``command``, which runs what a payload names, is there only when it was
asked for.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tenure.worker.handler import CommandSpec, Handler, Mode, Registry, define
from tenure.worker.kinds.egress import EgressPolicy, Resolver, resolve
from tenure.worker.kinds.http import HttpKind


class SleepPayload(BaseModel):
    """How long to sleep."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seconds: float = Field(ge=0, le=30 * 86_400)


class CommandPayload(BaseModel):
    """A program to run, without a shell."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    argv: tuple[str, ...] = Field(min_length=1, max_length=4_096)
    env: dict[str, str] = Field(default_factory=dict, max_length=256)
    stdin: str = ""
    cwd: str | None = None
    timeout_s: float | None = Field(default=None, gt=0, le=30 * 86_400)


def builtin(
    *, allow_command: bool = False, egress: EgressPolicy | None = None, resolver: Resolver = resolve
) -> Registry:
    """Return the built-in kinds; ``egress`` says where ``http`` may connect to (default: https, public addresses)."""
    http = HttpKind(egress or EgressPolicy(), resolver)
    kinds = [define("noop", _noop), define("sleep", _sleep), define("http", http.run)]
    return Registry([*kinds, _command()] if allow_command else kinds)


async def _noop() -> None:
    """Do nothing, successfully."""


async def _sleep(payload: SleepPayload) -> None:
    await asyncio.sleep(payload.seconds)


def _command() -> Handler:
    return Handler(kind="command", mode=Mode.COMMAND, payload=TypeAdapter(CommandPayload), plan=_plan)


def _plan(payload: CommandPayload) -> tuple[CommandSpec, str]:
    for name, text in (
        *((f"env.{key}", key + value) for key, value in payload.env.items()),
        ("cwd", payload.cwd or ""),
    ):
        if "\0" in text:
            raise ValueError(f"{name} contains a NUL character")
    if any("\0" in part for part in payload.argv):
        raise ValueError("argv contains a NUL character")
    if any("=" in key or not key for key in payload.env):
        raise ValueError("env has an empty name, or one with '='")
    spec = CommandSpec(
        argv=payload.argv, env=payload.env, cwd=payload.cwd, timeout_s=payload.timeout_s, result_is_output=True
    )
    return spec, payload.stdin
