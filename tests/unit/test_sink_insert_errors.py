"""Waiting is the rule, refusing the exception."""

import aiohttp
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from sinks.insert_errors import REFUSED, refuses_rows


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_a_complaint_about_a_value_refuses_the_rows(code: int) -> None:
    """These codes speak of the data: trying again would be in vain."""
    assert refuses_rows(DatabaseError("Code: …", code=code))


@pytest.mark.parametrize("code", [159, 164, 202, 203, 209, 210, 241, 242, 252, 285, 319, 425, 999])
def test_a_server_that_is_unable_is_waited_for(code: int) -> None:
    """Timeouts, read-only replicas, too many parts, memory, network, keeper: the same insert is tried again."""
    assert not refuses_rows(OperationalError("Code: …", code=code))


@pytest.mark.parametrize("code", [None, 16, 53, 60, 81, 497, 516, 1002, 99999])
def test_what_is_wrong_with_the_table_or_unknown_is_waited_for(code: int | None) -> None:
    """A missing table, a denied grant or an unknown code must not send good rows to the dead letters."""
    assert not refuses_rows(DatabaseError("Code: …", code=code))


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), aiohttp.ServerDisconnectedError()])
def test_a_broken_connection_is_waited_for(error: Exception) -> None:
    """Whether the insert arrived is unknown: its token makes trying again safe."""
    assert not refuses_rows(error)
