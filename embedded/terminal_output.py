"""Terminal output of the supervisor: short lines for the operator, each child's full output in a bounded log file.

Warnings and errors of a child also go to the terminal, prefixed with its name and limited in rate.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: Writes one line for the operator.
LineWriter = Callable[[str], None]

LOG_MAX_BYTES = 20 * 1024 * 1024  # of the current file; one rotated file is kept beside it
_SHOWN_MAX = 5  # lines per child …
_SHOWN_WINDOW_S = 10.0  # … in this interval
_LINE_MAX_CHARS = 300

#: Lines worth showing: structlog's console and JSON formats, log4j's, tracebacks.
_ALERTS = re.compile(
    r"""\[(?:warning|error|critical)\s*\]|"level":\s*"(?:warning|error|critical)"|^(?:WARN|ERROR|FATAL|Traceback)\b"""
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def print_line(line: str) -> None:
    """Print one line to standard output; a closed terminal is not an error."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class ChildOutput:
    """A child's output: appended to `log_file`, with warnings and errors copied to the terminal.

    `last_line` is the child's most recent line, used in its exit summary.
    """

    def __init__(self, name: str, log_file: Path, write_line: LineWriter) -> None:
        self.last_line = ""
        self._name = name
        self._log_file = log_file
        self._write_line = write_line
        self._file = _open_log(log_file)
        self._window_began = 0.0
        self._shown = 0

    def line(self, raw: bytes) -> None:
        """Log one line of output, and show it if it is a warning or an error."""
        self._log(raw)
        text = _COLOUR.sub("", raw.decode(errors="replace")).strip()
        if text:
            self.last_line = text[:_LINE_MAX_CHARS]
            if _ALERTS.search(text):
                self._show(text[:_LINE_MAX_CHARS])

    def close(self) -> None:
        """Close the log file."""
        self._file.close()

    def _log(self, raw: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk is reported by the services; losing log lines is acceptable
            if self._file.tell() > LOG_MAX_BYTES:
                self._file.close()
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
                self._file = _open_log(self._log_file)
            self._file.write(raw)

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._window_began > _SHOWN_WINDOW_S:
            self._window_began, self._shown = now, 0
        self._shown += 1
        if self._shown <= _SHOWN_MAX:
            self._write_line(f"{self._name}: {text}")
        elif self._shown == _SHOWN_MAX + 1:
            self._write_line(f"{self._name}: … more in {self._log_file}")


def _open_log(log_file: Path) -> BinaryIO:
    return log_file.open("ab", buffering=0)
