"""A program that tenure runs as a command: works for a while under the fence in its environment.

Run as ``python -S -m tests.chaos.program``; the payload is on stdin, the result is its output. It ignores SIGTERM, as
programs do: only being killed ends it before its time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from tests.chaos.effects import TICK_S, Work


def main() -> None:
    """Work, then print the result."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    until = time.monotonic() + json.load(sys.stdin)["seconds"]
    work = Work(os.environ["TENURE_JOB_ID"], int(os.environ["TENURE_FENCE"]))
    work.begin()
    while time.monotonic() < until:
        time.sleep(TICK_S)
        work.tick()
    print(json.dumps(work.end()))


if __name__ == "__main__":
    main()
