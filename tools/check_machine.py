"""Check before `make` creates its environment: the Python, its venv module, the free space. Only the standard library.

Runs on whatever Python there is, so it avoids newer syntax. Prints one line and exits with status 1 if something is
missing.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys

OLDEST, NEWEST = (3, 11), (3, 14)
#: 1.2 GB of packages, 0.4 GB of downloads, 0.1 GB of Kafka; the first events need some more.
SPACE_MIN_BYTES = 2 * 1024**3


def problem(version: tuple[int, int], python: str, *, has_venv: bool, free_bytes: int) -> str | None:
    """Return what is missing and the remedy, or None."""
    name = "{}.{}".format(*version)
    if not OLDEST <= version <= NEWEST:
        newer = "newer than the pinned packages support" if version > NEWEST else "too old"
        return (
            f"eventpush needs Python 3.11 to 3.14; {python} is {name}, {newer}: install one of these beside it "
            "(for example `uv python install 3.14`, or your system's package python3.12), and run "
            "make PYTHON=/path/to/python3.12"
        )
    if not has_venv:
        return f"{python} has no venv module: on Debian and Ubuntu run `apt install python{name}-venv`, then make again"
    if free_bytes < SPACE_MIN_BYTES:
        return (
            f"only {free_bytes / 1024**3:.1f} GB are free here and the installation needs 2 GB: free some space, or "
            "clone eventpush to a larger disk"
        )
    return None


def main() -> None:
    """Check this Python and the current directory."""
    found = all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))
    sys.exit(problem(sys.version_info[:2], sys.executable, has_venv=found, free_bytes=shutil.disk_usage(".").free))


if __name__ == "__main__":
    main()
