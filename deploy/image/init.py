#!/opt/tenure/bin/python3 -IS
"""Process 1 of the container: runs one program, passes signals on to it, reaps orphans, ends with its exit code.

The kernel gives process 1 every orphan, and ignores each signal for which it has no handler. tenure's own children
are reaped by their parents; this is for what handlers of a user leave behind, and for the commands that handle no
SIGTERM (``tenure db migrate``). Written here rather than taken from a package: the build needs no network and no
compiler. It imports little, as it stays in memory.
"""

import os
import signal
import sys


def main(command: list[str]) -> int:
    """Run ``command`` until it ends; return its exit code, 128 and the signal's number if a signal ended it."""
    passed_on = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    # Blocked before the fork and fetched by sigwait: none is lost, and none interrupts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    program = os.fork()
    if program == 0:
        _become(command, before)
    while True:
        number = signal.sigwait(passed_on)
        if number == signal.SIGCHLD:
            status = _reap(program)
            if status is not None:
                return status
        else:
            os.kill(program, number)


def _become(command: list[str], mask: set[signal.Signals]) -> None:
    os.setpgid(0, 0)
    if os.isatty(0):
        os.tcsetpgrp(0, os.getpid())  # so that Ctrl-C reaches the program alone, and once
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"init: {command[0]}: {error.strerror}\n")
        os._exit(127)


def _reap(program: int) -> int | None:
    """Reap all that have ended; return the exit code of ``program`` if it is among them."""
    status = None
    while True:
        try:
            pid, state = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            code = os.waitstatus_to_exitcode(state)
            status = code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
