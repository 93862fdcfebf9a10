"""The client of a command: from its options, or from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tenure.client import Client

TIMEOUT_S = 15.0
Address = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        "-c",
        envvar="TENURE_COORDINATOR",
        metavar="HOST:PORT",
        help="Coordinators to ask, comma-separated.  [default: 127.0.0.1:7070]",
        show_default=False,
    ),
]
"""For every command that asks a coordinator."""


def connect(address: str | None) -> Client:
    """Return a client; use it as a context manager.

    Raises:
        InvalidInput: an address that is not HOST:PORT.
    """
    from tenure.client import Client

    return Client(address, timeout_s=TIMEOUT_S)
