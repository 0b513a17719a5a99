"""What an HTTP request asks of ClickHouse."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.clickhouse.errors import ClickHouseError, error, from_engine
from embedded.clickhouse.request import ask, credentials


def test_what_is_no_parameter_of_the_interface_is_a_setting():
    """Settings, query parameters and the interface's own parameters are distinguished by their names."""
    asked = ask(
        {
            "query": "SELECT 1",
            "max_threads": "2",
            "param_x": "a",
            "database": "d",
            "compress": "1",
            "quota_key": "q",
        }.items(),
        {},
    )
    assert (asked.query, asked.database, asked.packed_blocks_out) == ("SELECT 1", "d", True)
    assert (asked.settings, asked.parameters) == ({"max_threads": "2"}, {"x": "a"})


def test_headers_stand_in_for_parameters():
    """Database and format come from headers when the URL names none."""
    asked = ask([], {"X-ClickHouse-Database": "d", "X-ClickHouse-Format": "CSV"})
    assert (asked.database, asked.default_format) == ("d", "CSV")
    asked = ask([("database", "e"), ("default_format", "TSV")], {"X-ClickHouse-Database": "d"})
    assert (asked.database, asked.default_format) == ("e", "TSV")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"a b": "1"}, 115),
        ({"x = 1, y": "1"}, 115),
        ({"param_x'": "1"}, 115),
        ({"session_timeout": "soon"}, 374),
        ({"session_timeout": "3601"}, 374),
        ({"max_query_size": "much"}, 36),
    ],
)
def test_wrong_parameters_have_their_codes(fields, code):
    """A name that is no identifier never reaches the engine's SQL."""
    with pytest.raises(ClickHouseError) as caught:
        ask(fields.items(), {})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {"X-ClickHouse-User": "u", "X-ClickHouse-Key": "p:w"}),
        ({}, {"Authorization": "Basic " + base64.b64encode(b"u:p:w").decode()}),
        ({"user": "u", "password": "p:w"}, {}),
    ],
)
def test_a_user_is_named_in_three_ways(fields, headers):
    """Headers, basic authorization and URL all name a user; a password may hold a colon."""
    who = credentials(fields, headers)
    assert (who.user, who.password, who.given) == ("u", "p:w", True)


def test_no_user_is_the_default_user():
    """A request that names no user is the default user's, and is known to have named none."""
    assert credentials({}, {}) == credentials({"query": "SELECT 1"}, {})
    assert not credentials({}, {}).given


@given(st.text(st.characters(codec="latin-1")))
def test_any_authorization_is_understood_or_refused(value):
    """No header makes the parser fail."""
    with suppress(ClickHouseError):
        assert credentials({}, {"Authorization": value}).user


def test_two_ways_at_once_are_refused():
    """A server refuses to choose between two users, and so does this one."""
    with pytest.raises(ClickHouseError) as caught:
        credentials({"user": "u"}, {"X-ClickHouse-User": "v"})
    assert caught.value.code == 516


@pytest.mark.parametrize(
    ("text", "code", "status", "clean"),
    [
        (
            "Streaming insert append failed: Code: 27. DB::Exception: bad. (CANNOT_PARSE) (version 26.9.2.1)",
            27,
            400,
            "Code: 27. DB::Exception: bad. (CANNOT_PARSE)",
        ),
        ("Code: 60. DB::Exception: no (UNKNOWN_TABLE)", 60, 404, "Code: 60. DB::Exception: no (UNKNOWN_TABLE)"),
        (
            "Code: 164. DB::Exception: Code: 164. DB::Exception: ro (READONLY) (version 26.9.2.1). (READONLY)",
            164,
            500,
            "Code: 164. DB::Exception: ro (READONLY). (READONLY)",
        ),
        ("out of luck", 1002, 500, "Code: 1002. DB::Exception: out of luck (UNKNOWN_EXCEPTION)"),
    ],
)
def test_the_engines_words_become_an_error(text, code, status, clean):
    """Code, status and text are those of a server."""
    problem = from_engine(text)
    assert (problem.code, problem.status, problem.text) == (code, status, clean)


@pytest.mark.parametrize(
    ("name", "status"), [("REQUIRED_PASSWORD", 401), ("AUTHENTICATION_FAILED", 403), ("SOCKET_TIMEOUT", 503)]
)
def test_own_errors_have_a_servers_status(name, status):
    """401 asks for a password, 403 refuses one, 503 says to try again."""
    assert error(name, "x").status == status
