"""Run a program that does not outlive the process that started it.

Run by path with ``python -I -S leash.py SIGNAL PARENT_PID PROGRAM [ARGUMENT ...]``: asks the kernel to send SIGNAL to
this process when its parent dies (Linux; elsewhere it asks nothing), then becomes PROGRAM. ``processes.spawn`` is
its only caller. It imports next to nothing, as it runs once per child; it is a program rather than a ``preexec_fn``
because Python code between fork and exec may deadlock in a process with threads.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind to the parent's life and exec the program."""
    number, parent, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the leash was on
        raise SystemExit(1)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error}\n")
        raise SystemExit(127) from error


if __name__ == "__main__":
    main()
