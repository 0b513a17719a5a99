"""`make up` on a fresh Debian testing, whose Python is newer than the image's."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.docker_cli import ROOT, docker, run, wait_until
from tests.containers.images import FRESH_IMAGE, build_secrets

pytestmark = pytest.mark.containers

_READY_S = 540.0
_NEEDED = "Makefile pyproject.toml README.md LICENSE requirements*.lock tools docs/benchmarks.json"
_PACKAGES = "runtime schemas ingress streams sinks embedded eventpush"
_HOME = "/root/eventpush"
_PREPARE = f"""
command -v make >/dev/null || {{ apt-get update && apt-get install -y python3 python3-venv make curl; }}
mkdir {_HOME} && cd /checkout && cp -r --parents {_NEEDED} {_PACKAGES} {_HOME}
"""


@pytest.fixture
def machine() -> Iterator[str]:
    """A container with the checkout, make, and this environment's way to the package index."""
    directory = Path(os.environ.get("STAND_INS_DIR", ROOT / ".containers" / "build"))
    build_secrets(directory)
    mounts = [f"--volume={ROOT}:/checkout:ro", f"--volume={directory / 'pip.conf'}:/etc/pip.conf:ro"]
    mounts += [f"--volume={directory / 'ca-certificates.crt'}:/etc/ssl/certs/ca-certificates.crt:ro"]
    container = docker("run", "--detach", "--init", *mounts, FRESH_IMAGE, "sleep", "infinity")
    try:
        docker("exec", container, "bash", "-euc", _PREPARE, timeout_s=300)
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def test_make_up_works_on_a_newer_python(machine: str, figure: Callable[[str], None]) -> None:
    """`make up` becomes ready, the README's event is accepted, and the README's SELECT shows its row."""
    commands = [line.removeprefix("$ ") for line in (ROOT / "README.md").read_text().splitlines()]
    (event,) = (line for line in commands if line.startswith("curl http://127.0.0.1:8080/api/events"))
    (select,) = (line for line in commands if line.startswith("curl -H @.eventpush/clickhouse-key"))
    run("docker", "cp", ROOT / "schemas" / "examples", f"{machine}:{_HOME}/schemas/")
    begin = time.monotonic()
    docker("exec", "--detach", f"--workdir={_HOME}", machine, "bash", "-c", "make up >up.log 2>&1; echo ended >>up.log")

    def log() -> str:
        return docker("exec", f"--workdir={_HOME}", machine, "cat", "up.log")

    def is_ready_or_ended() -> bool:
        probe = "curl --silent --fail http://127.0.0.1:8080/readyz >/dev/null && echo ready; grep ended up.log; true"
        return docker("exec", f"--workdir={_HOME}", machine, "bash", "-c", probe) != ""

    wait_until(is_ready_or_ended, _READY_S, "that `make up` is ready")
    assert "ended" not in log(), log()
    python = docker("exec", f"--workdir={_HOME}", machine, ".venv/bin/python", "--version")
    assert re.fullmatch(r"Python 3\.1[4-9]\.\S+", python)
    figure(f"`make up` on {python} of Debian testing, with its downloads: ready after {time.monotonic() - begin:.0f} s")
    accepted = docker("exec", f"--workdir={_HOME}", machine, "bash", "-euc", event)
    assert '"status":"success"' in accepted
    wait_until(
        lambda: "overspeed\t350612075195931" in docker("exec", f"--workdir={_HOME}", machine, "bash", "-c", select),
        30,
        "the row",
    )
