"""What a fresh machine may lack is one line with the remedy, before anything is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import ROOT
from tools.check_machine import SPACE_MIN_BYTES, problem

ENOUGH = SPACE_MIN_BYTES


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_supported_versions(minor: int) -> None:
    """Python 3.11 to 3.14 with venv and 2 GB of space is enough."""
    assert problem((3, minor), "python3", has_venv=True, free_bytes=ENOUGH) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (((3, 15), True, ENOUGH), "/usr/bin/python3 is 3.15, newer than the pinned packages support"),
        (((3, 10), True, ENOUGH), "/usr/bin/python3 is 3.10, too old"),
        (((3, 13), False, ENOUGH), "apt install python3.13-venv"),
        (((3, 14), True, ENOUGH - 1), "only 2.0 GB are free here and the installation needs 2 GB"),
    ],
)
def test_what_is_missing_is_one_line(given: tuple[tuple[int, int], bool, int], said: str) -> None:
    """A version outside the range, a missing venv, a full disk: one line that says what to do."""
    version, has_venv, free_bytes = given
    message = problem(version, "/usr/bin/python3", has_venv=has_venv, free_bytes=free_bytes)
    assert message is not None
    assert said in message
    assert "\n" not in message


def test_the_range_is_that_of_the_package() -> None:
    """pyproject.toml, the Makefile and CI name the same versions."""
    assert 'requires-python = ">=3.11,<3.15"' in (ROOT / "pyproject.toml").read_text()
    for file in (".github/workflows/ci.yml", ".gitlab-ci.yml"):
        assert '["3.11", "3.12", "3.13", "3.14"]' in (ROOT / file).read_text()


def make(tmp_path: Path, python: str, *, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    """Ask make for an environment in a directory of the test's own."""
    command = ["make", "--file", str(ROOT / "Makefile"), f"VENV={tmp_path / 'venv'}", f"{tmp_path / 'venv'}/bin/python"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MAKE"))}
    return subprocess.run(
        [*command, *([f"PYTHON={python}"] if python else [])], env=environ | {"PATH": path}, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_make_stops_with_the_line(tmp_path: Path) -> None:
    """`make` with an unusable Python prints the line and creates nothing."""
    fake = tmp_path / "python3"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.exit('no venv here')\"\n")
    fake.chmod(0o755)
    done = make(tmp_path, str(fake))
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "no venv here"
    assert not (tmp_path / "venv").exists()


def test_make_without_any_python(tmp_path: Path) -> None:
    """Without a Python on PATH, `make` says which to install."""
    (tmp_path / "make").symlink_to(shutil.which("make") or "")
    done = make(tmp_path, "", path=str(tmp_path))
    assert done.returncode != 0
    assert "eventpush needs Python 3.11 to 3.14, and there is no python3 on PATH" in done.stderr
