"""What all brokers on this machine share: a Java, verified jars, and Java's startup cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from embedded.kafka import jars as jar_cache
from embedded.kafka import java
from embedded.terminal_output import LineWriter


@dataclass(frozen=True)
class Installation:
    """A Java, Kafka's jars in class path order, and their directory."""

    java: java.Java
    jars: tuple[Path, ...]
    jars_dir: Path

    @property
    def class_path(self) -> str:
        """The jars as a Java class path."""
        return ":".join(map(str, self.jars))

    @property
    def aot_cache(self) -> Path:
        """Path of the startup cache (`embedded.kafka.aot`) for exactly this Java and these jars."""
        identity = f"{self.java.launcher} {self.java.full_version} {self.class_path}"
        return self.jars_dir / f"kafka-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.aot"

    @property
    def aot_options(self) -> list[str]:
        """Options that use the cache if it exists; Java silently ignores one that does not match."""
        if not self.aot_cache.exists():
            return []
        return [f"-XX:AOTCache={self.aot_cache}", "-Xlog:disable", "-Xlog:all=error:stderr"]


def install(jars_dir: Path, write_line: LineWriter = lambda _: None) -> Installation:
    """Find Java and download missing jars; raise `OperatorError` (see `java.find`, `jars.fetch`)."""
    directory = jars_dir.absolute()
    return Installation(
        java.find(), tuple(jar_cache.fetch(jar_cache.locked(), directory, _throttled(write_line))), directory
    )


def _throttled(write_line: LineWriter) -> jar_cache.OnProgress:
    """Report every tenth of the download as one line."""
    shown = -1

    def on_progress(done: int, total: int, jars_done: int, jars: int) -> None:
        nonlocal shown
        tenth = done * 10 // total
        if tenth > shown:
            shown = tenth
            write_line(f"downloading Kafka: {jars_done} of {jars} jars, {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return on_progress
