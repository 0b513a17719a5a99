"""The door as an application in another language sees it: ClickHouse's own driver for Node, pinned with its hash."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.clickhouse_fixture import clickhouse_door

__all__ = ["clickhouse_door"]

HERE = Path(__file__).parent / "node"
NODE, NPM = shutil.which("node"), shutil.which("npm")


@pytest.mark.skipif(NODE is None or NPM is None, reason="Node and npm are not installed: its driver is not tried")
def test_clickhouses_driver_for_node_works(clickhouse_door, tmp_path):
    """Ping, commands, inserts of values and streams, parameters, JSON, streams, errors and abort, packed both ways."""
    for name in ("package.json", "package-lock.json", "driver.mjs"):
        shutil.copy(HERE / name, tmp_path)
    install = [str(NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    run = [str(NODE), "driver.mjs", clickhouse_door.url]
    ran = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
