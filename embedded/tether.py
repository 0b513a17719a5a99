"""`python tether.py PARENT COMMAND…`: become COMMAND, tied to the life of process PARENT where that is possible.

Linux kills the process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG, which holds across exec).
Elsewhere nothing is tied, and the next start finds what was left over (`embedded.leftovers`).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tethered(command: list[str]) -> list[str]:
    """The command line that runs `command` as a child of this process, tied to it; its pid is the command's own."""
    if not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-IS", __file__, str(os.getpid()), *command]


def main() -> None:
    """Tie, make sure that the parent has not gone meanwhile, become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that wanted this one is gone")
    os.execvp(command[0], command)  # noqa: S606 - to become the command is the purpose


if __name__ == "__main__":
    main()
