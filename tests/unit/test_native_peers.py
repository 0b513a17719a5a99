"""The benchmark's peers in Go and Java: built where their toolchains are, and never less than the stream worker."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import native_peers
from bench.native_peers import NativePeer, NoToolchainError
from bench.same_work import DifferentWorkError, Outcome, compare
from bench.sampling import Sample, from_log
from embedded.kafka import jars
from tests.stack import JARS_DIR

_GO = Path("bench/peers/go")
_KAFKA_STREAMS = Path("bench/peers/kafka_streams")


@pytest.fixture
def no_toolchains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory is all there is on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


@pytest.mark.usefixtures("no_toolchains")
def test_without_toolchains_each_peer_is_left_out_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The benchmark goes on without the peers, and says what is missing."""
    assert native_peers.built((native_peers.go_stream, native_peers.kafka_streams)) == []
    assert capsys.readouterr().err.splitlines() == [
        "not measured: the peer in Go, stream: there is no `go` on PATH",
        "not measured: the peer in Kafka Streams: there is no `javac` in JAVA_HOME or on PATH",
    ]


def test_a_failed_build_is_named_on_one_line(
    no_toolchains: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The compiler's last line is the reason."""
    go = no_toolchains / "go"
    go.write_text("#!/bin/sh\necho 'go: downloading' >&2\necho 'no C compiler' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setattr(native_peers, "_BUILD_DIR", tmp_path / "peers")
    with pytest.raises(NoToolchainError, match=r"^the peer in Go, ingress: go failed: no C compiler$"):
        native_peers.go_program("ingress")


def test_kafka_streams_is_of_the_brokers_version() -> None:
    """The peer's jars fit the client's jars of the embedded Kafka, which it shares."""
    versions = {
        jar.coordinate.split(":")[2]
        for jar in [*jars.locked(), *jars.locked(_KAFKA_STREAMS / "jars.lock")]
        if jar.coordinate.startswith(("org.apache.kafka:kafka-clients:", "org.apache.kafka:kafka-streams:"))
    }
    assert len(versions) == 1


def test_go_sources_are_formatted() -> None:
    """`gofmt` has nothing to change."""
    if shutil.which("gofmt") is None:
        pytest.skip("there is no gofmt on PATH")
    done = subprocess.run(["gofmt", "-l", "."], cwd=_GO, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_go_sources_compile_without_a_finding() -> None:
    """`go vet` is clean. Modules are not downloaded for this: without them it is skipped."""
    if shutil.which("go") is None:
        pytest.skip("there is no go on PATH")
    done = subprocess.run(
        ["go", "vet", "./..."],
        cwd=_GO,
        env=os.environ | {"GOPROXY": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "GOPROXY=off" in done.stderr:
        pytest.skip("the modules have not been downloaded")
    assert (done.returncode, done.stderr) == (0, "")


def test_java_source_compiles_without_a_warning(tmp_path: Path) -> None:
    """`javac` has nothing to say. Jars are not downloaded for this: without them it is skipped."""
    wanted = [
        JARS_DIR.absolute() / jar.filename for jar in [*jars.locked(), *jars.locked(_KAFKA_STREAMS / "jars.lock")]
    ]
    if shutil.which("javac") is None or not all(jar.exists() for jar in wanted):
        pytest.skip("there is no javac on PATH, or the jars have not been downloaded")
    arguments = ["-Xlint:all", "-Werror", "--release", "17", "-d", str(tmp_path), "-cp", ":".join(map(str, wanted))]
    done = subprocess.run(
        ["javac", *arguments, "StreamPeer.java"], cwd=_KAFKA_STREAMS, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_of_progress_counts_once_it_is_complete(tmp_path: Path) -> None:
    """A peer may write a line in pieces."""
    log = tmp_path / "peer.log"
    log.write_text('{"events":1000,"cpu_s":1.5,"wall_s":2.5,"rss_bytes":4096}\n{"events":2000,"cpu_s":')
    assert from_log(log)() == Sample(1000, 1.5, 2.5, 4096)


_PEER = NativePeer("peer", "Peer", ["peer"], frozenset({"time_zone"}))
_LETTER = {"payload": [("missing", "IMEI")]}


def _event(**values: Any) -> dict[str, Any]:
    return {"event": "sos", "imei": "350612075195931", "time_zone": "Asia/Kolkata"} | values


def _outcome(*events: dict[str, Any], letters: dict[str, list[tuple[str, str]]] = _LETTER) -> Outcome:
    by_position = {(0, offset): event for offset, event in enumerate(events)}
    by_type = {position: (event["event"], event) for position, event in by_position.items()}
    return Outcome(by_position, by_type, letters)


def test_a_peer_that_does_the_same_work_passes() -> None:
    """A field that it leaves out may differ."""
    compare(_outcome(_event()), _outcome(_event(time_zone="UTC")), _PEER)


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        (_outcome(), "0 events instead of 1"),
        (_outcome(_event(), _event()), "2 events instead of 1"),
        (_outcome(_event(imei="0")), "imei is '0' instead of '350612075195931'"),
        (_outcome(_event(), letters={}), "0 dead letters instead of 1"),
        (_outcome(_event(), letters={"payload": [("empty", "IMEI")]}), r"\[\('empty', 'IMEI'\)\] instead of"),
        (Outcome({(0, 0): _event()}, {}, _LETTER), "0 events on the types' topics instead of 1"),
        (Outcome({(0, 0): _event()}, {(0, 0): ("overspeed", _event())}, _LETTER), "differs on its type's topic"),
    ],
)
def test_a_peer_that_does_other_work_is_refused(theirs: Outcome, problem: str) -> None:
    """The first difference is named."""
    with pytest.raises(DifferentWorkError, match=problem):
        compare(_outcome(_event()), theirs, _PEER)
