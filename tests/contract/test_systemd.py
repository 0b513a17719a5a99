"""The systemd units: systemd accepts them, they are hardened, and they start what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eventpush.cli import SUMMARIES
from runtime.platform import settings
from tests.stack import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
EXPOSURE_MAX_TENTHS = 15  # of systemd's scale from 0 (safe) to 10
COMMAND = "/opt/eventpush/bin/eventpush"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def service(unit: Path) -> dict[str, list[str]]:
    """Each key of a unit's [Service] section, with all its values."""
    section = unit.read_text().split("[Service]\n")[1].split("[Install]\n")[0]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The units with a program that exists, all in one directory."""
    home = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        (home / unit.name).write_text(unit.read_text().replace(COMMAND, "/bin/true"))
    return sorted(home.iterdir())


@needs_systemd
def test_systemd_accepts_the_units(installed: list[Path]) -> None:
    """`systemd-analyze verify` finds nothing to say: no unknown key, no missing unit, no bad value."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *installed], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_units_are_hardened(installed: list[Path], name: str) -> None:
    """`systemd-analyze security` rates each unit at most 1.5 of 10."""
    (unit,) = (path for path in installed if path.name == name)
    command: list[str | Path] = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={EXPOSURE_MAX_TENTHS}",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_with_valid_settings(unit: Path) -> None:
    """The commands exist, the variables are settings, credentials are used, and stopping takes longer than draining."""
    given = service(unit)
    commands = [line.removeprefix(f"{COMMAND} ") for line in given["ExecStart"]]
    assert set(commands) <= set(SUMMARIES)
    variables = dict(pair.split("=", 1) for line in given["Environment"] for pair in line.split())
    file = (ROOT / "deploy" / "systemd" / "eventpush.env").read_text()
    variables |= dict(line.split("=", 1) for line in file.splitlines() if line and not line.startswith("#"))
    loaded = settings.load(variables)
    credentials = {line.split(":")[0] for line in given.get("LoadCredential", ())}
    assert credentials == {value.removeprefix("%d/") for value in variables.values() if value.startswith("%d/")}
    assert given["EnvironmentFile"] == ["/etc/eventpush/eventpush.env"]
    if unit.stem == f"eventpush-{commands[0]}":
        assert int(given["TimeoutStopSec"][0]) > loaded.ingress_drain_s
        assert (given["Restart"], given["User"]) == (["always"], ["eventpush"])
