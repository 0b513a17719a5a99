"""Kafka's jars: exactly the pinned ones, or one line with the reason. These tests use no network."""

import errno
import hashlib
import os
import re
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from embedded.kafka import jars, java
from embedded.kafka.config import Broker, cluster, log4j_properties, server_properties
from runtime.platform.errors import OperatorError

CONTENT = b"a jar"
JAR = jars.Jar("org.example:thing:1.0", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake Maven context: `answer` is the content of a download, or the exception that it raises."""
    state = SimpleNamespace(answer=CONTENT, asked=[], signed_by=None)

    monkeypatch.setattr(jars, "context", lambda staging, on_bytes: _Maven(state, staging, on_bytes))
    return state


class _Maven:
    """Fake the three calls of jgo's context that are used."""

    def __init__(self, state: SimpleNamespace, staging: Path, on_bytes) -> None:
        self._state, self._staging, self._on_bytes = state, staging, on_bytes

    def project(self, *coordinate: str) -> "_Maven":
        self._state.asked.append(coordinate)
        return self

    def at_version(self, _: str) -> "_Maven":
        return self

    def artifact(self) -> "_Maven":
        return self

    def resolve(self) -> Path:
        if isinstance(self._state.answer, Exception):
            raise self._state.answer
        if self._state.signed_by not in {None, os.environ.get("REQUESTS_CA_BUNDLE")}:
            raise requests.exceptions.SSLError("certificate verify failed")
        path = self._staging / "downloaded.jar"
        path.write_bytes(self._state.answer)
        self._on_bytes(len(self._state.answer))
        return path


def test_lock_names_every_jar_once_with_its_hash() -> None:
    """Each line is a coordinate with a fixed version, a SHA-256 and a size; no jar twice, no address."""
    locked = jars.locked()
    assert len({jar.filename for jar in locked}) == len(locked) > 20
    for jar in locked:
        assert re.fullmatch(r"[\w.-]+:[\w.-]+:\d[\w.-]*", jar.coordinate)
        assert re.fullmatch(r"[0-9a-f]{64}", jar.sha256)
        assert jar.size > 0
    assert "//" not in jars.LOCK_FILE.read_text()


def test_missing_jars_are_downloaded_with_progress(repository: SimpleNamespace, tmp_path: Path) -> None:
    """Missing jars are downloaded into the cache, and each step reports bytes and jars done and in total."""
    reported: list[tuple[int, ...]] = []
    paths = jars.fetch([JAR], tmp_path / "new" / "cache", lambda *progress: reported.append(progress))
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert reported == [(5, 5, 0, 1), (5, 5, 1, 1)]
    assert [path.name for path in paths[0].parent.iterdir()] == ["thing-1.0.jar"]


def test_complete_cache_needs_no_network(repository: SimpleNamespace, tmp_path: Path) -> None:
    """With a complete cache, nothing is downloaded."""
    (tmp_path / JAR.filename).write_bytes(CONTENT)
    assert jars.fetch([JAR], tmp_path) == [tmp_path / JAR.filename]
    assert repository.asked == []


def test_download_with_another_hash_is_refused(repository: SimpleNamespace, tmp_path: Path) -> None:
    """Wrong content is named with both hashes, and nothing of it is kept."""
    repository.answer = b"another jar"
    found = hashlib.sha256(b"another jar").hexdigest()
    with pytest.raises(
        OperatorError, match=f"org.example:thing:1.0 has SHA-256 {found}, expected {JAR.sha256}: "
    ) as caught:
        jars.fetch([JAR], tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_changed_jar_in_the_cache_is_refused(repository: SimpleNamespace, tmp_path: Path) -> None:
    """A cached file is checked at each start, and the remedy is to delete it."""
    (tmp_path / JAR.filename).write_bytes(b"changed")
    with pytest.raises(
        OperatorError, match=rf"thing-1\.0\.jar has SHA-256 \w+, but .* must have {JAR.sha256}: delete that"
    ):
        jars.fetch([JAR], tmp_path)


@pytest.mark.parametrize("error", [requests.ConnectionError("no route"), RuntimeError("not found"), TimeoutError()])
def test_refused_download_is_one_line(repository: SimpleNamespace, tmp_path: Path, error: Exception) -> None:
    """No network, a refusal, a timeout: one line with the jar and the remedy."""
    repository.answer = error
    with pytest.raises(
        OperatorError, match=r"org\.example:thing:1\.0 could not be downloaded \(.*\): check the network"
    ):
        jars.fetch([JAR], tmp_path)


def test_the_systems_certificates_are_believed_too(
    repository: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads work behind a proxy whose CA the machine trusts; the user's own setting has precedence."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile="system.pem", capath=None))
    repository.signed_by = "system.pem"
    jars.fetch([JAR], tmp_path / "one")
    assert "REQUESTS_CA_BUNDLE" not in os.environ
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "mine.pem")
    with pytest.raises(OperatorError, match=r"\(SSLError\): check the network, HTTPS_PROXY and REQUESTS_CA_BUNDLE, or"):
        jars.fetch([JAR], tmp_path / "two")


def test_full_disk_is_one_line(repository: SimpleNamespace, tmp_path: Path) -> None:
    """A full disk names the directory and what to free."""
    repository.answer = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(
        OperatorError, match=rf"{tmp_path} cannot hold Kafka's jars \(No space left on device\): free some"
    ):
        jars.fetch([JAR], tmp_path)


def test_cache_that_cannot_be_made_is_one_line(repository: SimpleNamespace, tmp_path: Path) -> None:
    """A directory that cannot be created is named."""
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=r"file/cache cannot hold Kafka's jars \(Not a directory\)"):
        jars.fetch([JAR], tmp_path / "file" / "cache")


def test_no_java_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An old Java and one that does not run are named, with the remedy."""
    old, broken = tmp_path / "old", tmp_path / "broken"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    broken.write_text("#!/bin/sh\nexit 1\n")
    for launcher in (old, broken):
        launcher.chmod(0o755)
    monkeypatch.setattr(java, "_candidates", lambda: [old, broken])
    with pytest.raises(
        OperatorError, match=r"Java 17 or newer.*old is Java 11\.0\.2; .*broken does not run\): install"
    ):
        java.find()


def test_properties_of_one_broker(tmp_path: Path) -> None:
    """One node is its own controller, replicates once, creates no topics automatically, has small internal topics."""
    text = server_properties(Broker(tmp_path, port=1092, controller_port=1093))
    for line in (
        "controller.quorum.voters=1@127.0.0.1:1093",
        "auto.create.topics.enable=false",
        "transaction.state.log.min.isr=1",
        "offsets.topic.num.partitions=4",
        "group.initial.rebalance.delay.ms=0",
    ):
        assert line in text.splitlines()


def test_properties_of_a_cluster(tmp_path: Path) -> None:
    """Three nodes know each other, replicate to all, and need two in sync to acknowledge a record."""
    nodes = cluster(tmp_path, [(1, 2), (3, 4), (5, 6)])
    assert {node.cluster_id for node in nodes} == {nodes[0].cluster_id}
    for node in nodes:
        lines = server_properties(node).splitlines()
        assert "controller.quorum.voters=1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6" in lines
        assert "transaction.state.log.replication.factor=3" in lines
        assert "transaction.state.log.min.isr=2" in lines
    assert str(nodes[1].logs_dir / "server.log") in log4j_properties(nodes[1])
