"""`python parent_death.py PARENT COMMAND…`: exec COMMAND so that it dies together with process PARENT.

On Linux the kernel sends SIGKILL when the parent ends, however it ends (prctl(2), PR_SET_PDEATHSIG, kept across exec).
Other systems have no such signal; there the next start stops orphans (`embedded.orphans`).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def with_parent_death_signal(command: list[str]) -> list[str]:
    """Return the command line that runs `command` and kills it when this process ends; the pid stays the command's."""
    if not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-IS", __file__, str(os.getpid()), *command]


def main() -> None:
    """Set the signal, check that the parent is still alive, then exec the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")
    os.execvp(command[0], command)  # noqa: S606 - exec is the purpose


if __name__ == "__main__":
    main()
