"""Files that are reloaded when they change: tokens, secrets, certificates."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from runtime.platform.errors import OperatorError

log = structlog.get_logger(__name__)

_POLL_INTERVAL_S = 1.0

Stamp = tuple[tuple[int, int, int], ...]


class FileWatcher:
    """A watcher that calls `load` now, and again when one of `files` has changed.

    `load` raises `OperatorError` for unusable content. At start that is fatal; later it is logged, and what was loaded
    before stays in force. A file that changed since the last poll may still be being written: it is loaded once two
    polls find it the same.
    """

    def __init__(self, files: list[Path], load: Callable[[], None]) -> None:
        self._files = files
        self._load = load
        self._seen = self._last = self._stamp()
        load()

    def poll(self) -> None:
        """Reload if a file has changed and is at rest."""
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp == self._seen or stamp != before:
            return
        self._seen = stamp
        names = [str(file) for file in self._files]
        try:
            self._load()
        except OperatorError as problem:
            log.error("changed files are unusable; the old content stays in force", files=names, error=str(problem))
        else:
            log.info("changed files reloaded", files=names)

    def _stamp(self) -> Stamp:
        """Return inode, size and modification time: they differ after a rename and after a write."""
        stamps = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(stamps)


async def watch(watchers: list[FileWatcher]) -> None:
    """Poll every second, forever."""
    while True:
        await asyncio.sleep(_POLL_INTERVAL_S)
        for watcher in watchers:
            watcher.poll()
