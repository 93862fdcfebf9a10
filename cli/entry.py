"""Where ``tenure`` begins: ``tenure health`` is answered before anything is imported that other commands need.

A container's health check runs it every few seconds: the other commands' imports alone take five times as long.
"""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run the command line and exit; the entry point."""
    if sys.argv[1:2] == ["health"]:
        from tenure.cli.health import main

        sys.exit(main(sys.argv[2:]))
    if sys.argv[1:2] != ["worker"]:  # whose handlers inherit its environment
        # Else gRPC writes a line of its own to stderr for every handshake that fails, and one of a coordinator even as
        # an error for every name that is asked for and not its own: anybody could fill the log.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE" if sys.argv[1:2] == ["coordinator"] else "ERROR")
    from tenure.cli.main import run as run_any

    run_any()
