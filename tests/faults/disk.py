"""A disk that can be filled: a small file system in memory, mounted where a process keeps its data. Needs root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def problem() -> str | None:
    """Why no file system can be mounted here; None when one can."""
    if not sys.platform.startswith("linux"):
        return "a small file system is mounted as Linux does it"
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    return None


class SmallDisk:
    """A file system of a few megabytes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ballast = directory / "ballast"

    @property
    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self._directory).free

    def fill(self, leave: int) -> None:
        """Take all the room but `leave` bytes."""
        taken = max(0, self.free - leave)
        with self._ballast.open("ab") as ballast:
            os.posix_fallocate(ballast.fileno(), ballast.tell(), taken)

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount it; whoever uses it must have ended before this does."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", directory], check=True)
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
