"""What `eventpush up` decides before it starts anything, and what `reset` removes."""

import asyncio
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from embedded import orphans, preflight, stack
from runtime.kafka.raw_gate import GrowingError
from runtime.kafka.topic_admin import Finding
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, load
from tests.stack import free_kafka_port


def test_children_get_exactly_these_settings(tmp_path: Path) -> None:
    """The environment of a child, read again, gives the same settings, secrets included."""
    settings = Settings(data_dir=tmp_path, window_s=90_000, clickhouse_password=SecretStr("p w"), ingress_strict=True)
    assert load(stack.environment(settings)) == settings


def test_addresses_come_from_the_settings() -> None:
    """Kafka's controller is on the port after Kafka's; every address names the variable that changes it."""
    found = stack.addresses_of(Settings(kafka_bootstrap="127.0.0.1:19092", ingress_port=18080))
    assert (found["kafka"].port, found["controller"].port, found["ingress"].port) == (19092, 19093, 18080)
    assert found["sink_metrics"].setting == "EVENTPUSH_SINK_METRICS_PORT"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kafka_bootstrap": "a:1,b:2"}, "EVENTPUSH_KAFKA_BOOTSTRAP=a:1,b:2 is not one address"),
        ({"kafka_bootstrap": "nowhere"}, "EVENTPUSH_KAFKA_BOOTSTRAP=nowhere is not one address"),
        ({"clickhouse_url": "https://ch:8443"}, "EVENTPUSH_CLICKHOUSE_URL=https://ch:8443 is not one address"),
        ({"kafka_security_protocol": "SASL_SSL"}, "EVENTPUSH_KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
    ],
)
def test_settings_for_other_machines_are_refused(values: dict[str, str], message: str) -> None:
    """`up` starts its own Kafka and ClickHouse: settings that name others are refused in one line."""
    with pytest.raises(OperatorError, match=re.escape(message)):
        stack.addresses_of(Settings(**values))


async def test_up_waits_for_a_growth_that_needs_its_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth cannot go on without Kafka: it is said once, and the topics are looked at until it is over."""
    answers: list[list[Finding] | GrowingError] = [GrowingError(), GrowingError(), []]

    async def ensure(_: Settings) -> list[Finding]:
        answer = answers.pop(0)
        if isinstance(answer, GrowingError):
            raise answer
        return answer

    monkeypatch.setattr(stack, "ensure_topics", ensure)
    monkeypatch.setattr(stack, "_GROWING_PAUSE_S", 0.0)
    lines: list[str] = []
    assert await stack._topics_at_rest(Settings(), lines.append) == []
    assert len(lines) == 1
    assert "`eventpush topics grow`" in lines[0]


def test_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    """A port in use is found before anything starts; the message names it and the setting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        others = {
            "kafka_bootstrap": f"127.0.0.1:{free_kafka_port()}",
            "clickhouse_url": f"http://127.0.0.1:{preflight.free_ports(1)[0]}",
        }
        settings = Settings(data_dir=tmp_path, ingress_port=port, **others)
        expected = rf"the ingress cannot listen on 127\.0\.0\.1:{port} \(the port is in use\): .*EVENTPUSH_INGRESS_PORT"
        with pytest.raises(OperatorError, match=expected):
            stack.up(settings, lambda _: None)


def test_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A data directory that cannot be created is named with the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=r"file/data cannot be written \(Not a directory\): .*EVENTPUSH_DATA_DIR"):
        stack.up(Settings(data_dir=tmp_path / "file" / "data"), lambda _: None)


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """The message names the free and the required space."""
    with pytest.raises(OperatorError, match=r"on a file system with \d+ MB free; \d+ MB are needed: free some space"):
        preflight.require_space(tmp_path, 2**62)


def test_full_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is still about space when not even a process id can be written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OperatorError, match="with 0 MB free"):
        stack.up(Settings(data_dir=tmp_path / "data"), lambda _: None)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_lock_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A lock owned by another user (here: a directory, which root cannot open either) is named with the remedy."""
    (tmp_path / "run" / "up.lock").mkdir(parents=True)
    with pytest.raises(OperatorError, match=r"up\.lock cannot be written \(Is a directory\): make it yours"):
        stack.up(Settings(data_dir=tmp_path), lambda _: None)


def test_reset_removes_what_up_made(tmp_path: Path) -> None:
    """The whole directory is removed; a second reset does nothing."""
    home = tmp_path / "data"
    (home / "kafka").mkdir(parents=True)
    (home / stack._ABOUT).touch()
    stack.reset(home)
    assert not home.exists()
    stack.reset(home)


def test_reset_leaves_other_directories_alone(tmp_path: Path) -> None:
    """A directory not made by `up` is refused, whatever the setting says."""
    with pytest.raises(OperatorError, match="was not made by `eventpush up`"):
        stack.reset(tmp_path)
    assert tmp_path.exists()


def test_reset_is_refused_while_up_runs(tmp_path: Path) -> None:
    """While `up` runs there, nothing is removed."""
    (tmp_path / stack._ABOUT).touch()
    with orphans.exclusive_lock(tmp_path / "run", tmp_path), pytest.raises(OperatorError, match="already running"):
        stack.reset(tmp_path)
    assert (tmp_path / stack._ABOUT).exists()


@pytest.mark.parametrize(
    ("answer", "expected"), [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 503 No\r\n\r\n", False)]
)
async def test_readiness_is_status_200(answer: bytes, expected: bool) -> None:
    """Only 200 counts as ready."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        assert await stack.http_ok("127.0.0.1", server.sockets[0].getsockname()[1], "/readyz") is expected


async def test_a_refused_connection_is_not_ready() -> None:
    """A refused connection means not ready."""
    assert await stack.http_ok("127.0.0.1", preflight.free_ports(1)[0], "/readyz") is False
