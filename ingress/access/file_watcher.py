"""Files that are read again when they change: tokens, secrets, certificates."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from runtime.platform.errors import OperatorError

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0

Stamp = tuple[tuple[int, int, int], ...]


class FileWatcher:
    """
    Calls `load` now, and again when one of `files` has changed.

    `load` raises `OperatorError` for unusable content: at start that is fatal; later it is logged and what
    was read before stays in force. A file that has changed since the last look may still be being written: it is read
    when a look finds it as the one before did.
    """

    def __init__(self, files: list[Path], load: Callable[[], None]) -> None:
        self._files = files
        self._load = load
        self._seen = self._last = self._stamp()
        load()

    def look(self) -> None:
        """Reads again if a file has changed and is at rest."""
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp == self._seen or stamp != before:
            return
        self._seen = stamp
        names = [str(file) for file in self._files]
        try:
            self._load()
        except OperatorError as problem:
            log.error("changed files cannot be used; the old ones stay in force", files=names, why=str(problem))
        else:
            log.info("changed files are in force", files=names)

    def _stamp(self) -> Stamp:
        """Inode, size and time of change: a file replaced by renaming, or written to, differs."""
        stamps = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(stamps)


async def watch(reloadings: list[FileWatcher]) -> None:
    """Looks every second, for ever."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        for reloading in reloadings:
            reloading.look()


def read_secret_file(file: Path, variable: str) -> str:
    """The file's text. Raises `OperatorError`, which shows the variable and the name, never the content."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OperatorError(f"{variable}={file} cannot be read ({why})", "name a readable file") from None
