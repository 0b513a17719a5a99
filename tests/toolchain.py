"""Commands that are not Python's: compilers and clients."""

import os
import shutil

import pytest


def require(command: str, what: str) -> None:
    """Skip the test, and say what is missing; in CI, which installs everything, fail it."""
    if shutil.which(command) is None:
        missing = f"needs {what}: no {command} on the path"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
