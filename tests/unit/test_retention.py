"""How long ClickHouse keeps rows: which settings are refused, and what is altered."""

import pytest

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, load
from schemas.tables import DEAD_LETTERS, EVENTS
from sinks.retention import VIEW, statements_for

PLAIN = "CREATE TABLE t (x Int64) ENGINE = MergeTree ORDER BY x"


def kept(days: int) -> dict[str, str]:
    """The definitions of tables that keep rows so long."""
    ttl = f"{PLAIN} TTL toDateTime(received_at) + toIntervalDay({days}) SETTINGS index_granularity = 8192"
    return {EVENTS.store: ttl, DEAD_LETTERS.store: ttl, VIEW: "CREATE MATERIALIZED VIEW …"}


def settings(days: int | None, **more: str) -> Settings:
    return load(({} if days is None else {"EVENTPUSH_CLICKHOUSE_RETENTION_D": str(days)}) | more)


@pytest.mark.parametrize(
    ("days", "more", "why"),
    [
        (6, {}, "EVENTPUSH_CLICKHOUSE_RETENTION_D=6 is shorter than EVENTPUSH_TOPIC_RETENTION_H=168: .* at least 7"),
        (2, {"EVENTPUSH_TOPIC_RETENTION_H": "49"}, "=2 is shorter than EVENTPUSH_TOPIC_RETENTION_H=49: .* at least 3"),
        (7, {"EVENTPUSH_WINDOW_S": "604801"}, "=7 is shorter than EVENTPUSH_WINDOW_S=604801: .* at least 8"),
        (0, {}, "EVENTPUSH_CLICKHOUSE_RETENTION_D='0'"),
    ],
)
def test_rows_outlive_the_records(days: int, more: dict[str, str], why: str) -> None:
    """Shorter than Kafka's retention or the window: refused, with what would be long enough."""
    with pytest.raises(OperatorError, match=why):
        settings(days, **more)
    assert settings(7).clickhouse_retention_d == 7


def test_nothing_is_altered_that_is_as_it_should_be() -> None:
    """Neither without a retention, nor with the one that the tables have."""
    assert statements_for({EVENTS.store: PLAIN, DEAD_LETTERS.store: PLAIN}, settings(None)) == []
    assert statements_for(kept(30), settings(30)) == []


def test_a_change_alters_the_tables_and_the_marks() -> None:
    """The marks come first, of events by arrival; in a cluster everywhere; unset, all of it is removed."""
    drop, create, mark, *alter = statements_for(kept(30), settings(60, EVENTPUSH_CLICKHOUSE_CLUSTER="main"))
    assert drop == f"DROP TABLE IF EXISTS {VIEW} ON CLUSTER `main` SYNC"
    assert create.startswith(f"CREATE MATERIALIZED VIEW IF NOT EXISTS {VIEW} ON CLUSTER `main`")
    assert mark.startswith("INSERT INTO telematics.rollup_marks")
    assert "received_at < now64(6) - INTERVAL 60 DAY" in create
    assert alter == [
        f"ALTER TABLE {table.store} ON CLUSTER `main` MODIFY TTL toDateTime(received_at) + INTERVAL 60 DAY"
        for table in (EVENTS, DEAD_LETTERS)
    ]
    assert statements_for(kept(30), settings(None)) == [
        f"DROP TABLE IF EXISTS {VIEW} SYNC",
        *(f"ALTER TABLE {table.store} REMOVE TTL" for table in (EVENTS, DEAD_LETTERS)),
    ]


def test_an_interrupted_change_is_made_whole() -> None:
    """A table that was not altered yet is; the marks are made again."""
    half = kept(30) | {DEAD_LETTERS.store: PLAIN}
    assert statements_for(half, settings(30))[-1].startswith(f"ALTER TABLE {DEAD_LETTERS.store} MODIFY TTL")
    assert len(statements_for(half, settings(30))) == 4
    del half[VIEW]
    assert statements_for(kept(30) | {VIEW: ""}, settings(30)) == []
