"""`python -m eventpush` and the command `eventpush`.

This module imports only the standard library. In a container the command is process 1, for which the kernel ignores
SIGTERM until the process handles it, and importing the commands takes seconds on a busy machine.
"""

import os
import signal

_KILLED_BY_SIGTERM = 128 + signal.SIGTERM  # the exit status that shells and container engines report


def main() -> None:
    """Run the command line and exit with its status."""
    if os.getpid() == 1:
        # End as any other process would. A service replaces this with its orderly stop before it takes on work.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_KILLED_BY_SIGTERM))
    from eventpush.cli import cli  # noqa: PLC0415 - slow, so only after SIGTERM is handled

    cli(prog_name="eventpush")


if __name__ == "__main__":
    main()
