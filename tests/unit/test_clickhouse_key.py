"""The password of the embedded ClickHouse: who can read it, and which commands use it."""

from pathlib import Path

import pytest

from runtime.platform import clickhouse_key
from runtime.platform.errors import OperatorError
from runtime.platform.settings import load


def test_a_password_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """The first start makes it, later ones keep it, and only its owner can read it."""
    made = clickhouse_key.ensure(tmp_path, "default", "")
    assert len(made) >= 32
    assert clickhouse_key.ensure(tmp_path, "default", "") == clickhouse_key.read(tmp_path) == made
    assert clickhouse_key.path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_password_that_is_set_replaces_the_made_one(tmp_path: Path) -> None:
    """The variable decides."""
    clickhouse_key.ensure(tmp_path, "default", "")
    assert clickhouse_key.ensure(tmp_path, "eve", "pässword") == "pässword"
    assert clickhouse_key.path(tmp_path).read_text() == "X-ClickHouse-User: eve\nX-ClickHouse-Key: pässword\n"


def test_a_password_with_a_line_end_is_refused(tmp_path: Path) -> None:
    """It could not be sent as a header."""
    with pytest.raises(OperatorError, match="control character"):
        clickhouse_key.ensure(tmp_path, "default", "a\nb")


def test_commands_use_the_made_password_for_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in the same directory finds it; another machine's ClickHouse never gets it; a set one comes first."""
    made = clickhouse_key.ensure(tmp_path, "default", "")
    monkeypatch.setenv("EVENTPUSH_DATA_DIR", str(tmp_path))
    assert load().clickhouse_password.get_secret_value() == made
    monkeypatch.setenv("EVENTPUSH_CLICKHOUSE_URL", "http://clickhouse.example:8123")
    assert load().clickhouse_password.get_secret_value() == ""
    monkeypatch.setenv("EVENTPUSH_CLICKHOUSE_URL", "http://localhost:8123")
    monkeypatch.setenv("EVENTPUSH_CLICKHOUSE_PASSWORD", "mine")
    assert load().clickhouse_password.get_secret_value() == "mine"
