"""The checks of `eventpush check`: each returns one result, whatever happens."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from eventpush.checking import access, groups, resources
from eventpush.checking.result import CheckResult, CheckState
from eventpush.clickhouse_client import connected
from runtime.kafka.topic_admin import ALTERABLE, admin, ensure_topics
from runtime.platform.errors import OperatorError
from runtime.platform.settings import PREFIX, Settings
from schemas.migration_steps import LATEST, TABLE
from schemas.tables import DATABASE, TABLES
from sinks import migrator

_TIMEOUT_S = 10.0
_SKEW_MAX_S = 1.0  # beyond what the round trip explains


async def run(settings: Settings) -> list[CheckResult]:
    """Run all checks concurrently, each with a timeout of 10 s."""
    checks: Mapping[str, Callable[[Settings], Awaitable[tuple[CheckState, str]]]] = {
        "settings": _settings,
        "kafka": _kafka,
        "topics": _topics,
        "access": access.check,
        "groups": groups.check,
        "clickhouse": _clickhouse,
        "schema": _schema,
        "clock": _clock,
        "disks": resources.check_disks,
        "window": resources.check_window,
        "ingress": lambda s: _ready(f"http://{reachable_host(s.ingress_host)}:{s.ingress_port}/readyz"),
        "streams": lambda s: _ready(f"http://{reachable_host(s.metrics_host)}:{s.streams_metrics_port}/readyz"),
        "sink": lambda s: _ready(f"http://{reachable_host(s.metrics_host)}:{s.sink_metrics_port}/readyz"),
    }
    return _without_repeats(await asyncio.gather(*(_bounded(name, check(settings)) for name, check in checks.items())))


def _without_repeats(findings: Sequence[CheckResult]) -> list[CheckResult]:
    """Replace a detail that an earlier result already has by a reference to it."""
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(finding.detail, finding.check)
    return [
        f if first[f.detail] == f.check else CheckResult(f.check, f.state, f"see {first[f.detail]}") for f in findings
    ]


async def _bounded(name: str, check: Awaitable[tuple[CheckState, str]]) -> CheckResult:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return CheckResult(name, *await check)
    except OperatorError as problem:
        return CheckResult(name, "failed", str(problem))
    except TimeoutError:
        return CheckResult(name, "failed", f"no answer within {_TIMEOUT_S:g} s")


async def _settings(_settings: Settings) -> tuple[CheckState, str]:
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    return "ok", f"{len(given)} set in the environment" + (f": {', '.join(given)}" if given else ", all at defaults")


async def _kafka(settings: Settings) -> tuple[CheckState, str]:
    async with admin(settings) as client:
        cluster = await client.describe_cluster()
    brokers = len(cluster["brokers"])
    state: CheckState = "ok" if brokers >= settings.topic_replication_factor else "warning"
    return state, f"{settings.kafka_bootstrap}: {brokers} broker{'s' * (brokers > 1)}, cluster {cluster['cluster_id']}"


async def _topics(settings: Settings) -> tuple[CheckState, str]:
    findings = await ensure_topics(settings, check_only=True)
    differing = [str(finding) for finding in findings if finding.state == "differs"]
    detail = f"{len(findings)} topics of {settings.topic_partitions} partitions"
    if not differing:
        return "ok", detail
    return "warning", (
        f"{detail}; {'; '.join(differing)}: `eventpush topics` sets {', '.join(sorted(ALTERABLE))}; for the rest run"
        " `kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config NAME=VALUE`"
    )


async def _clickhouse(settings: Settings) -> tuple[CheckState, str]:
    async with connected(settings) as client:
        return "ok", f"{settings.clickhouse_url}: version {client.server_version}, user {settings.clickhouse_user}"


async def _schema(settings: Settings) -> tuple[CheckState, str]:
    async with connected(settings) as client:
        try:
            taken = await migrator.applied(client)
        except ClickHouseError:  # ClickHouse answered: the table of migrations does not exist
            return "failed", "no tables yet: run `eventpush migrate`"
        migrator.missing(taken)
        lacking = await _missing_columns(client)
        foreign = await _foreign_constraints(client)
    version = max(taken, default=0)
    if version < LATEST:
        return "failed", f"version {version}, this eventpush needs {LATEST}: run `eventpush migrate`"
    if lacking:
        return "failed", (
            f"version {version}, but {', '.join(lacking)} missing, so somebody dropped it: delete the rows of {TABLE},"
            " and run `eventpush migrate`; every step may run twice"
        )
    if foreign:
        named = ", ".join(f"{name} on {store}" for store, name in foreign)
        drops = ", ".join(f"`ALTER TABLE {store} DROP CONSTRAINT {name}`" for store, name in foreign)
        return "failed", f"somebody added the constraint {named}, which may refuse rows: run {drops}"
    return "ok", f"version {version}, up to date"


async def _foreign_constraints(client: AsyncClient) -> list[tuple[str, str]]:
    """Return the constraints of the sink's tables, as table and name: no migration adds one."""
    found = await client.query(
        "SELECT concat(database, '.', name), extractAll(create_table_query, '\\\\bCONSTRAINT `?(\\\\w+)')"
        " FROM system.tables WHERE database = {database:String}",
        parameters={"database": DATABASE},
    )
    stores = {table.store for table in TABLES}
    return [(store, name) for store, constraints in found.result_rows if store in stores for name in constraints]


async def _missing_columns(client: AsyncClient) -> list[str]:
    """Return the declared columns that the sink's tables do not have."""
    found = await client.query(
        "SELECT table, name FROM system.columns WHERE database = {database:String}", parameters={"database": DATABASE}
    )
    present = {f"{DATABASE}.{table}.{name}" for table, name in found.result_rows}
    declared = {f"{table.store}.{column.name}" for table in TABLES for column in table.columns}
    return sorted(declared - present)


async def _clock(settings: Settings) -> tuple[CheckState, str]:
    async with connected(settings) as client:
        asked = time.time()
        theirs = float(str(await client.command("SELECT toUnixTimestamp64Milli(now64(3))"))) / 1000
        answered = time.time()
    skew = max(asked - theirs, theirs - answered, 0.0)  # what the round trip does not explain
    return clock_finding(skew)


def clock_finding(skew_s: float) -> tuple[CheckState, str]:
    """Warn of clocks that are apart. Pure."""
    shown = f"{skew_s:.1f} s apart from ClickHouse's"
    if skew_s <= _SKEW_MAX_S:
        return "ok", shown
    return "warning", f"{shown}: synchronise both machines (NTP); arrival times and the window go by these clocks"


async def _ready(url: str) -> tuple[CheckState, str]:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            body = (await answer.text()).strip().replace("\n", " ")[:500]
    except (aiohttp.ClientError, OSError):
        return "warning", f"nothing answers at {url}"
    return "ok" if answer.status == 200 else "failed", f"{url}: {answer.status} {body}"


def reachable_host(host: str) -> str:
    """Return the host at which a process that listens on `host` is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"[{host}]" if ":" in host else host
