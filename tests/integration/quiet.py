"""A healthy process logs nothing above INFO."""

import re
from pathlib import Path

_LOUD = re.compile(r"\[(?:warning|error|critical)\s*\]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def assert_quiet(log: Path, *, start: int = 0, allowed: str | None = None) -> None:
    """Fail if the log has a line above INFO from byte `start` on.

    `allowed` is a regular expression of the lines that the test's own faults cause.
    """
    lines = _COLOURS.sub("", log.read_bytes()[start:].decode(errors="replace")).splitlines()
    loud = [line for line in lines if _LOUD.search(line) and not (allowed and re.search(allowed, line))]
    assert loud == [], f"{log} has lines above INFO"
