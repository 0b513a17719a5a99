"""Docker and Compose by their command lines, as users have them."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE_FILE["services"]
IMAGE: str = SERVICES["topics"]["image"]
#: The drills' containers, networks and volumes are not those of a pipeline that runs already.
PROJECT = "eventpush-drills"


def run(*command: object, timeout_s: float = 120, environ: dict[str, str] | None = None) -> str:
    """Return the standard output of a command in the checkout; it must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | {"COMPOSE_PROJECT_NAME": PROJECT} | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def docker(*arguments: object, timeout_s: float = 120) -> str:
    """Return what `docker` prints, without the last line's end."""
    return run("docker", *arguments, timeout_s=timeout_s).strip()


def compose(*arguments: object, timeout_s: float = 300, environ: dict[str, str] | None = None) -> str:
    """Return what `docker compose` prints for the drills' project."""
    return run("docker", "compose", *arguments, timeout_s=timeout_s, environ=environ).strip()


def containers_of(service: str) -> list[str]:
    """Return the ids of a service's containers."""
    return compose("ps", "--all", "--quiet", service).split()


def inspect(container: str) -> dict[str, Any]:
    """Return all that the engine knows about a container."""
    (state,) = json.loads(docker("container", "inspect", container))
    return dict(state)


def is_healthy(container: str) -> bool:
    """Return whether the container runs and its last health check succeeded."""
    state = inspect(container)["State"]
    return bool(state["Running"]) and state["Health"]["Status"] == "healthy"


def processes_of(container: str) -> list[dict[str, str]]:
    """Return the fields of /proc/PID/status of every process in a container."""
    script = "for status in /proc/[0-9]*/status; do cat $status 2>/dev/null; echo; done"
    blocks = docker("exec", container, "sh", "-c", script).split("\n\n")
    processes = [dict(line.split(":\t", 1) for line in block.splitlines() if ":\t" in line) for block in blocks]
    return [process for process in processes if process and process["Name"] not in {"sh", "cat"}]


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> str:
    """Return the text at a URL."""
    request = urllib.request.Request(url, body, headers or {})  # noqa: S310 - http, written in the tests
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return str(answer.read().decode())


def is_ready(url: str) -> bool:
    """Return whether a URL answers 200."""
    try:
        fetch(url)
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], deadline_s: float, what: str = "the condition") -> float:
    """Wait for a condition; return the seconds that it took."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > deadline_s:
            pytest.fail(f"{what} does not hold within {deadline_s:g} s")
        time.sleep(0.2)
    return time.monotonic() - begin
