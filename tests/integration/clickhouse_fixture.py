"""The embedded ClickHouse for the tests of a module; import `embedded_clickhouse` where a test needs it."""

from collections.abc import Iterator

import pytest

from tests.stack import ClickHouse


@pytest.fixture(scope="module")
def embedded_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """One server for the tests of a module.

    It has no password, so that a test shows what a request alone does. Passwords: `test_clickhouse_lifecycle.py`.
    """
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.end_if_running()
