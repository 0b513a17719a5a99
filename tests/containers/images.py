"""Build the image as users do; `python -m tests.containers.images`.

Where no registry can be reached, build stand-ins for the official images first, under their names. That happens only in
the engine of `engine.sh`, which is thrown away; in any other engine an image that cannot be pulled is an error.
"""

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from embedded.kafka import jars
from tests.containers.docker_cli import IMAGE, ROOT, docker, run
from tests.stack import CLICKHOUSE_IMAGE, JARS_DIR, KAFKA_IMAGE

PYTHON_IMAGE = next(
    line.split("=", 1)[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if "PYTHON_IMAGE=" in line
)
#: A machine as people have it, with a newer Python than the image's.
FRESH_IMAGE = "debian:testing-slim"
_ENGINE = Path(__file__).with_name("engine.sh")
_STAND_INS = Path(__file__).with_name("stand_ins")
_BUILD_S = 580
#: What of pip's configuration says where packages come from and how they are fetched.
_PIP_OPTIONS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries"}


def main() -> None:
    """Prepare every image that the drills use, and say how long each took."""
    scratch = os.environ.get("STAND_INS_DIR")
    secrets = build_secrets(Path(scratch or ROOT / ".containers" / "build"))
    if scratch is not None:
        _stand_in(PYTHON_IMAGE, lambda: _import_python(Path(scratch)))
        _stand_in(
            FRESH_IMAGE, lambda: _import_debian(FRESH_IMAGE, "testing", Path(scratch), "ca-certificates,make,curl")
        )
        _stand_in(KAFKA_IMAGE, lambda: _build_stand_in(KAFKA_IMAGE, "kafka", Path(scratch), secrets))
        _stand_in(CLICKHOUSE_IMAGE, lambda: _build_stand_in(CLICKHOUSE_IMAGE, "clickhouse", Path(scratch), secrets))
    _timed(IMAGE, lambda: docker("build", *secrets, "--tag", IMAGE, ".", timeout_s=_BUILD_S))


def build_secrets(directory: Path) -> list[str]:
    """Return the options of `docker build` with pip's configuration and certificates of this environment."""
    directory.mkdir(parents=True, exist_ok=True)
    options = []
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        if (option := name.rsplit(".", 1)[1]) in _PIP_OPTIONS:
            options.append(f"{option.removeprefix('default-')} = {value.strip(chr(39))}\n")
    (directory / "pip.conf").write_text("[global]\n" + "".join(options))
    (directory / "pip.conf").chmod(0o600)  # an index's address may hold a password
    secrets = [f"--secret=id=pip_conf,src={directory / 'pip.conf'}"]
    if certificates := ssl.get_default_verify_paths().cafile:
        shutil.copy(certificates, directory / "ca-certificates.crt")
        secrets.append(f"--secret=id=ca_certificates,src={directory / 'ca-certificates.crt'}")
    return secrets


def _timed(what: str, build: Callable[[], object]) -> None:
    begin = time.monotonic()
    build()
    sys.stdout.write(f"built {what} in {time.monotonic() - begin:.0f} s\n")
    sys.stdout.flush()


def _stand_in(image: str, build: Callable[[], object]) -> None:
    """Build a stand-in for an image that cannot be pulled."""
    pull = subprocess.run(["docker", "pull", "--quiet", image], capture_output=True, timeout=_BUILD_S, check=False)
    if pull.returncode != 0:
        _timed(f"a stand-in for {image}", build)


def _import_python(scratch: Path) -> None:
    """Import Debian 13 with its Python; `python` and `pip` are on PATH, as in the official image."""
    on_path = '--customize-hook=chroot "$1" python3 -m venv /usr/local'
    _import_debian(PYTHON_IMAGE, "trixie", scratch, "ca-certificates", on_path)


def _import_debian(image: str, suite: str, scratch: Path, packages: str, *options: str) -> None:
    if docker("image", "ls", "--quiet", image):
        return
    tar = scratch / f"{suite}.tar"
    run(_ENGINE, "bootstrap", f"--include=python3,python3-venv,{packages}", *options, suite, tar, timeout_s=_BUILD_S)
    docker("import", "--change", 'CMD ["bash"]', tar, image, timeout_s=_BUILD_S)
    tar.unlink()


def _build_stand_in(image: str, target: str, scratch: Path, secrets: list[str]) -> None:
    jars_dir = scratch / "jars"  # the engine sees the checkout only, and the cache of jars may be elsewhere
    jars_dir.mkdir(exist_ok=True)
    for jar in jars.fetch(jars.locked() + jars.locked(_STAND_INS / "jars.lock"), JARS_DIR.absolute()):
        shutil.copy(jar, jars_dir)
    options = ["--file", _STAND_INS / "Dockerfile", "--target", target, "--build-context", f"jars={jars_dir}"]
    docker("build", *secrets, *options, "--tag", image, ".", timeout_s=_BUILD_S)


if __name__ == "__main__":
    main()
