"""What a supervisor shows: readable lines for the person, every child's output in a bounded file.

A child's warnings and errors are shown on the console too, with its name before them; a flood of them is cut short.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: Writes one line for the person.
Say = Callable[[str], None]

LOG_MAX_BYTES = 20 * 1024 * 1024  # the file and one older one are kept
_SHOWN_MAX = 5  # lines of one child …
_SHOWN_EVERY_S = 10.0  # … in this time
_LINE_MAX = 300

#: A line that a person should see: structlog's console and JSON forms, log4j's, a traceback, a word of alarm first.
_ALARMING = re.compile(
    r"""\[(?:warning|error|critical)\s*\]|"level":\s*"(?:warning|error|critical)"|^(?:WARN|ERROR|FATAL|Traceback)\b"""
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def say(line: str) -> None:
    """One line on standard output; a console that has gone away is no reason to end."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Output:
    """A child's output: appended to `log_file`, its alarming lines also said. Keeps the last lines for an obituary."""

    def __init__(self, name: str, log_file: Path, say: Say) -> None:
        self.last_line = ""
        self._name = name
        self._log_file = log_file
        self._say = say
        self._file = _opened(log_file)
        self._window_began = 0.0
        self._shown = 0

    def line(self, raw: bytes) -> None:
        """Take one line as it came."""
        self._write(raw)
        text = _COLOUR.sub("", raw.decode(errors="replace")).strip()
        if text:
            self.last_line = text[:_LINE_MAX]
            if _ALARMING.search(text):
                self._show(text[:_LINE_MAX])

    def close(self) -> None:
        """No more output comes."""
        self._file.close()

    def _write(self, raw: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk is shown by those who need it; the log can wait
            if self._file.tell() > LOG_MAX_BYTES:
                self._file.close()
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
                self._file = _opened(self._log_file)
            self._file.write(raw)

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._window_began > _SHOWN_EVERY_S:
            self._window_began, self._shown = now, 0
        self._shown += 1
        if self._shown <= _SHOWN_MAX:
            self._say(f"{self._name}: {text}")
        elif self._shown == _SHOWN_MAX + 1:
            self._say(f"{self._name}: … more in {self._log_file}")


def _opened(log_file: Path) -> BinaryIO:
    return log_file.open("ab", buffering=0)
