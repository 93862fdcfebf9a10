"""Where ``tenure`` begins: ``tenure health`` is answered before anything is imported that other commands need.

A container's health check runs it every few seconds: the other commands' imports alone take five times as long.
"""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line and exit; the entry point."""
    if sys.argv[1:2] == ["health"]:
        from tenure.cli.health import main

        sys.exit(main(sys.argv[2:]))
    from tenure.cli.main import run as run_any

    run_any()
