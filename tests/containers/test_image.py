"""The image on its own: what is in it, whom it runs as, and how its containers end."""

import time
from collections.abc import Callable

import pytest

from tests.containers.docker_cli import docker, inspect

pytestmark = pytest.mark.containers

_GRACE_S = 10  # what `docker stop` gives
_BY_SIGTERM = 143
_BY_ITSELF = 1
_NOWHERE = ("--env=EVENTPUSH_KAFKA_BOOTSTRAP=127.0.0.1:1", "--env=EVENTPUSH_CLICKHOUSE_URL=http://127.0.0.1:1")


def in_image(image: str, script: str) -> str:
    """Return what a shell script prints that runs as root in the image, so that it sees everything."""
    return docker("run", "--rm", "--user=0", "--entrypoint=sh", image, "-c", script)


def test_it_starts_as_an_ordinary_user(image: str, figure: Callable[[str], None]) -> None:
    """The user is not root, declares no volume, and the entry point is the command line."""
    version = docker("run", "--rm", "--read-only", "--cap-drop=ALL", image, "--version")
    assert version == f"eventpush {image.rpartition(':')[2]}"
    assert docker("run", "--rm", "--entrypoint=id", image, "-u") == "10001"
    assert docker("image", "inspect", "--format={{json .Config.Volumes}}", image) == "null"
    size = int(docker("image", "inspect", "--format={{.Size}}", image))
    figure(f"image: {size / 1e6:.0f} MB")


def test_no_program_in_it_can_become_root(image: str, figure: Callable[[str], None]) -> None:
    """No file has a setuid or setgid bit, or a capability; no account has a password or a user id 0 but root."""
    find = "find / -xdev -type f"
    assert in_image(image, f"{find} -perm /6000") == ""
    assert in_image(image, "awk -F: '$3 == 0 && $1 != \"root\"' /etc/passwd; awk -F: '$2 ~ /[$]/' /etc/shadow") == ""
    attributes = "import os, sys; print([f for f in sys.stdin.read().splitlines() if os.listxattr(f)])"
    assert in_image(image, f"{find} ! -path '/proc/*' ! -path '/sys/*' | python -c '{attributes}'") == "[]"
    figure("image scan: 0 setuid or setgid files, 0 files with capabilities, 0 accounts with a password")


def test_its_user_can_change_neither_program_nor_configuration(image: str) -> None:
    """What the user may write is its data directory and the usual places for temporary files."""
    usual = " ".join(f"! -path '{path}'" for path in ("/proc/*", "/dev/*", "/tmp*", "/var/tmp", "/run/lock"))
    script = f"find / -xdev ! -type l -writable {usual}"
    writable = docker("run", "--rm", "--entrypoint=sh", image, "-c", f"{script} 2>/dev/null; true")
    assert writable.split() == ["/var/lib/eventpush"]


def test_it_holds_no_installer_and_no_build_secret(image: str) -> None:
    """The environment that runs is without pip; no layer holds pip's configuration or the proxy's certificates."""
    assert in_image(image, "ls /opt/eventpush/bin | grep -c pip; true") == "0"
    assert in_image(image, "ls -A /run/secrets /etc/pip.conf 2>/dev/null; true") == ""


@pytest.mark.parametrize("command", ["ingress", "streams", "sink"])
def test_sigterm_ends_it_at_any_moment_of_its_start(image: str, command: str, figure: Callable[[str], None]) -> None:
    """As process 1 of a plain `docker run`, 0.2 to 3 s after the start, it ends before the engine would kill it.

    Without a Kafka, streams and sink end by themselves after some seconds.
    """
    took = {}
    for delay_s in (0.2, 0.5, 1.0, 2.0, 3.0):
        container = docker("run", "--detach", *_NOWHERE, image, command)
        try:
            time.sleep(delay_s)  # the moment is what is tested
            begin = time.monotonic()
            docker("stop", f"--time={_GRACE_S}", container)
            took[delay_s] = time.monotonic() - begin
            allowed = {0, _BY_SIGTERM} if command == "ingress" else {0, _BY_SIGTERM, _BY_ITSELF}
            assert inspect(container)["State"]["ExitCode"] in allowed, f"SIGTERM after {delay_s} s"
        finally:
            docker("rm", "--force", "--volumes", container)
    shown = ", ".join(f"{delay_s:g} s: {seconds:.1f} s" for delay_s, seconds in took.items())
    figure(f"SIGTERM to `docker run … {command}`, by the time since its start: {shown}")
