"""Kafka's jars: exactly those in `jars.lock`, fetched by Maven coordinates and verified against their SHA-256.

`jgo` decides which Maven repositories to use (its defaults, or the user's jgo configuration). A jar enters the cache
directory only when it is complete and verified, by a rename. With a complete cache the network is not used.
"""

import errno
import hashlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.platform.errors import OperatorError

LOCK_FILE = Path(__file__).with_name("jars.lock")

#: Called during a download with: bytes done, bytes in total, jars done, jars in total.
OnProgress = Callable[[int, int, int, int], None]

_DOWNLOAD_TIMEOUT_S = 30  # without a byte
_CERTIFICATES = "REQUESTS_CA_BUNDLE"  # read by requests, which jgo downloads with


@dataclass(frozen=True)
class Jar:
    """One line of the lock: `group:artifact:version  sha256  bytes`."""

    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """`artifact-version.jar`, as in a Maven repository."""
        _group, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked(lock_file: Path = LOCK_FILE) -> list[Jar]:
    """Return the jars of the lock file, in class path order."""
    lines = (line.split() for line in lock_file.read_text().splitlines() if line and not line.startswith("#"))
    return [Jar(coordinate, sha256, int(size)) for coordinate, sha256, size in lines]


def fetch(jars: list[Jar], cache_dir: Path, on_progress: OnProgress = lambda *_: None) -> list[Path]:
    """Return the paths of all jars in `cache_dir`, downloading missing ones; every jar has the hash of the lock.

    Raise `OperatorError` for a wrong hash, a refused download, a full disk or a directory that is not writable.
    """
    missing = [jar for jar in jars if not (cache_dir / jar.filename).exists()]
    with _as_operator_error(cache_dir):
        for jar in jars:
            if jar not in missing:
                _check_cached(jar, cache_dir / jar.filename)
        if missing:
            cache_dir.mkdir(parents=True, exist_ok=True)
            _download(missing, cache_dir, on_progress)
    return [cache_dir / jar.filename for jar in jars]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_cached(jar: Jar, path: Path) -> None:
    if (found := sha256_of(path)) != jar.sha256:
        raise OperatorError(
            f"{path} has SHA-256 {found}, but {jar.coordinate} must have {jar.sha256}",
            "delete that file and start again; it will be downloaded again",
        )


def _download(jars: list[Jar], cache_dir: Path, on_progress: OnProgress) -> None:
    total = sum(jar.size for jar in jars)
    done = 0
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache_dir) as staging:
        for number, jar in enumerate(jars):
            before = done

            def on_bytes(count: int, number: int = number) -> None:
                nonlocal done
                done += count
                on_progress(done, total, number, len(jars))

            path = _resolve(context(Path(staging), on_bytes), jar)
            if (found := sha256_of(path)) != jar.sha256:
                raise OperatorError(
                    f"the download of {jar.coordinate} has SHA-256 {found}, expected {jar.sha256}",
                    "nothing was kept; check what the Maven repository, mirror or proxy returns",
                )
            path.replace(cache_dir / jar.filename)
            done = before + jar.size
            on_progress(done, total, number + 1, len(jars))


def context(repo_cache: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Any:
    """Return a jgo Maven context that downloads into `repo_cache` from the repositories in the user's configuration."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an optional dependency
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415
    except ImportError:
        raise OperatorError(
            "jgo is not installed, but it downloads Kafka's jars",
            "install eventpush with its extra `embedded`",
        ) from None

    @contextmanager
    def progress(_filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield on_bytes

    return MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=repo_cache,
        remote_repos=GlobalSettings.load().repositories or None,
        timeout=_DOWNLOAD_TIMEOUT_S,
    )


def _resolve(maven: Any, jar: Jar) -> Path:
    from requests.exceptions import SSLError  # noqa: PLC0415 - comes with jgo

    group, artifact, version = jar.coordinate.split(":")
    wanted = maven.project(group, artifact).at_version(version).artifact()
    try:
        try:
            path: Path = wanted.resolve()
        except SSLError:
            with _system_certificates():
                path = wanted.resolve()
    except OSError as error:  # requests' exceptions are OSErrors too
        if error.errno is not None:
            raise
        raise _refused(jar, type(error).__name__) from None
    except RuntimeError:
        raise _refused(jar, "no repository has it, or the request was refused") from None
    return path


@contextmanager
def _system_certificates() -> Iterator[None]:
    """Trust the machine's certificates, as pip does: a proxy may sign with its own CA."""
    paths = ssl.get_default_verify_paths()
    bundle = paths.cafile or paths.capath
    if bundle and _CERTIFICATES not in os.environ:
        os.environ[_CERTIFICATES] = bundle
        try:
            yield
        finally:
            del os.environ[_CERTIFICATES]
    else:
        yield


def _refused(jar: Jar, reason: str) -> OperatorError:
    return OperatorError(
        f"{jar.coordinate} could not be downloaded ({reason})",
        f"check the network, HTTPS_PROXY and {_CERTIFICATES}, "
        "or name a Maven mirror under [repositories] in jgo's configuration file",
    )


@contextmanager
def _as_operator_error(directory: Path) -> Iterator[None]:
    """Turn an `OSError` about `directory` into an `OperatorError`."""
    try:
        yield
    except OSError as error:
        remedy = "free some space (Kafka's jars take 39 MB)" if error.errno == errno.ENOSPC else "make it writable"
        raise OperatorError(
            f"{directory} cannot hold Kafka's jars ({error.strerror})",
            f"{remedy}, or choose another EVENTPUSH_JARS_DIR",
        ) from None
