"""``python -m tenure.cli`` is ``tenure``."""

from __future__ import annotations

from tenure.cli.entry import run

if __name__ == "__main__":
    run()
