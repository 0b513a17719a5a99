"""Peers in Go and Java: built from `bench/peers/go` and `bench/peers/kafka_streams`, where their toolchains are."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from embedded.kafka import jars
from embedded.kafka.installation import install
from runtime.platform.errors import OperatorError

_SOURCES = Path(__file__).parent / "peers"
_JARS_DIR = Path(".eventpush/jars")  # shared with `make up`
_BUILD_DIR = Path(".eventpush/peers")
_BUILD_TIMEOUT_S = 500  # the first one downloads modules
_JAVA_RELEASE = "17"  # what Kafka's brokers need at least


class NoToolchainError(Exception):
    """A peer cannot be built here; the message says why, on one line."""


class NativePeer(NamedTuple):
    """A peer of the stream worker: `command` and the bootstrap address run it.

    It prints its progress as `bench.peers.progress` does, and writes to the topics `peer.<name>.…`.
    """

    name: str
    label: str
    command: Sequence[str]
    left_out: frozenset[str]  # fields of an event that it does not fill as the stream worker does
    needs_warmth: bool = False  # compiled while it runs


def go_stream() -> NativePeer:
    """Build the stream stage in Go."""
    return NativePeer("go", "Go with franz-go", go_program("stream"), frozenset())


def kafka_streams() -> NativePeer:
    """Build the stream stage in Kafka Streams."""
    left_out = frozenset({"event_id", "time_zone", "device_time_local"})
    label = "Kafka Streams in memory, warm"
    return NativePeer("kafka_streams", label, _java_program(), left_out, needs_warmth=True)


def built(builders: Iterable[Callable[[], NativePeer]]) -> list[NativePeer]:
    """Build these peers; for one that cannot be built, say so on standard error and leave it out."""
    peers = []
    for build in builders:
        try:
            peers.append(build())
        except NoToolchainError as problem:
            click.echo(f"not measured: {problem}", err=True)
    return peers


def go_program(name: str) -> list[str]:
    """Build a Go program and return its command. Raise `NoToolchainError`."""
    label = f"the peer in Go, {name}"
    go = shutil.which("go")
    if go is None:
        raise NoToolchainError(f"{label}: there is no `go` on PATH")
    program = (_BUILD_DIR / f"go-{name}").absolute()
    _run(label, [go, "build", "-o", str(program), f"./{name}"], _SOURCES / "go")
    return [str(program)]


def _java_program() -> list[str]:
    label = "the peer in Kafka Streams"
    javac = _javac()
    if javac is None:
        raise NoToolchainError(f"{label}: there is no `javac` in JAVA_HOME or on PATH")
    try:
        installation = install(_JARS_DIR, click.echo)
        more = jars.fetch(jars.locked(_SOURCES / "kafka_streams" / "jars.lock"), _JARS_DIR.absolute())
    except OperatorError as problem:
        raise NoToolchainError(f"{label}: {problem}") from None
    classes = (_BUILD_DIR / "kafka-streams").absolute()
    class_path = ":".join([str(classes), installation.class_path, *map(str, more)])
    arguments = [javac, "--release", _JAVA_RELEASE, "-d", str(classes), "-cp", class_path, "StreamPeer.java"]
    _run(label, arguments, _SOURCES / "kafka_streams")
    return [str(installation.java.launcher), *installation.java.quiet_options, "-cp", class_path, "StreamPeer"]


def _javac() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("javac", path=f"{home}/bin" if home else None) or shutil.which("javac")


def _run(label: str, arguments: Sequence[str], directory: Path) -> None:
    """Run a compiler."""
    _BUILD_DIR.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        arguments, cwd=directory, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
    )
    if done.returncode:
        output = done.stderr.strip().splitlines() or ["no output"]
        raise NoToolchainError(f"{label}: {Path(arguments[0]).name} failed: {output[-1].strip()}")
