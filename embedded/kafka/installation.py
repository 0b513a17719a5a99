"""What every broker of this machine shares: a Java, the checked jars, and a cache that makes Java start quickly."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedded.kafka import jars as jar_cache
from embedded.kafka import java

#: Told of what takes a while: one readable line each.
OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Installation:
    """A Java, Kafka's jars in the order of the class path, and the directory that they are in."""

    java: java.Java
    jars: tuple[Path, ...]
    jars_dir: Path

    @property
    def class_path(self) -> str:
        """The jars as Java wants them."""
        return ":".join(map(str, self.jars))

    @property
    def aot_cache(self) -> Path:
        """Where `embedded.kafka.aot` puts the cache for exactly this Java and these jars."""
        identity = f"{self.java.launcher} {self.java.full_version} {self.class_path}"
        return self.jars_dir / f"kafka-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.aot"

    @property
    def aot_options(self) -> list[str]:
        """The options that use the cache, when there is one; Java goes on, silently, without one that does not fit."""
        if not self.aot_cache.exists():
            return []
        return [f"-XX:AOTCache={self.aot_cache}", "-Xlog:disable", "-Xlog:all=error:stderr"]


def install(jars_dir: Path, on_line: OnLine = lambda _: None) -> Installation:
    """Finds Java and fetches the jars that are missing; raises `OperatorError` (see `java.find`, `jars.fetch`)."""
    directory = jars_dir.absolute()
    return Installation(
        java.find(), tuple(jar_cache.fetch(jar_cache.locked(), directory, _throttled(on_line))), directory
    )


def _throttled(on_line: OnLine) -> jar_cache.OnProgress:
    """One line for every tenth of the download."""
    shown = -1

    def on_progress(done: int, total: int, jars_done: int, jars: int) -> None:
        nonlocal shown
        tenth = done * 10 // total
        if tenth > shown:
            shown = tenth
            on_line(f"downloading Kafka: {jars_done} of {jars} jars, {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return on_progress
