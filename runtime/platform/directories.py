"""Directories that a process needs, in EVENTPUSH_DATA_DIR."""

import tempfile
from pathlib import Path

from runtime.platform.errors import OperatorError


def require_writable(directory: Path) -> None:
    """Create `directory`; raise `OperatorError` when nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        remedy = "make it writable, or choose another EVENTPUSH_DATA_DIR"
        raise OperatorError(f"{directory} cannot be written ({error.strerror})", remedy) from None
