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
        # Else gRPC writes a line of its own to stderr for every handshake that fails: anybody could fill the log.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from tenure.cli.main import run as run_any

    run_any()
