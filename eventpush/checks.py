"""What `eventpush check` looks at: each check gives one finding, whatever happens."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import aiohttp
import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError

from eventpush.clickhouse import connected
from runtime.errors import Problem
from runtime.settings import PREFIX, Settings
from runtime.topics_admin import admin, ensure_topics
from schemas.migrations import LATEST
from sinks import migrations

_TIMEOUT_S = 10.0
_SKEW_S = 1.0  # more than a round trip explains

State = Literal["ok", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True):
    """What a check found; only `failed` makes the command's exit status 1."""

    check: str
    state: State
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.check:<12} {self.detail}"


async def run(settings: Settings) -> list[Finding]:
    """Run all checks concurrently, each bounded to 10 s."""
    checks: Mapping[str, Callable[[Settings], Awaitable[tuple[State, str]]]] = {
        "settings": _settings,
        "kafka": _kafka,
        "topics": _topics,
        "clickhouse": _clickhouse,
        "schema": _schema,
        "clock": _clock,
        "ingress": lambda s: _ready(f"http://{reachable_host(s.ingress_host)}:{s.ingress_port}/readyz"),
        "streams": lambda s: _ready(f"http://{reachable_host(s.metrics_host)}:{s.streams_metrics_port}/readyz"),
        "sink": lambda s: _ready(f"http://{reachable_host(s.metrics_host)}:{s.sink_metrics_port}/readyz"),
    }
    return _said_once(await asyncio.gather(*(_bounded(name, check(settings)) for name, check in checks.items())))


def _said_once(findings: Sequence[Finding]) -> list[Finding]:
    """Replace a detail that an earlier finding has already given by a reference to it."""
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(finding.detail, finding.check)
    return [f if first[f.detail] == f.check else Finding(f.check, f.state, f"see {first[f.detail]}") for f in findings]


async def _bounded(name: str, check: Awaitable[tuple[State, str]]) -> Finding:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return Finding(name, *await check)
    except Problem as problem:
        return Finding(name, "failed", str(problem))
    except TimeoutError:
        return Finding(name, "failed", f"no answer within {_TIMEOUT_S:g} s")


async def _settings(_settings: Settings) -> tuple[State, str]:
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    return "ok", f"{len(given)} set in the environment" + (f": {', '.join(given)}" if given else ", all at defaults")


async def _kafka(settings: Settings) -> tuple[State, str]:
    async with admin(settings) as client:
        cluster = await client.describe_cluster()
    brokers = len(cluster["brokers"])
    state: State = "ok" if brokers >= settings.topic_replication_factor else "warning"
    return state, f"{settings.kafka_bootstrap}: {brokers} broker{'s' * (brokers > 1)}, cluster {cluster['cluster_id']}"


async def _topics(settings: Settings) -> tuple[State, str]:
    findings = await ensure_topics(settings, check_only=True)
    differing = [str(finding) for finding in findings if finding.state == "differs"]
    said = f"{len(findings)} topics of {settings.topic_partitions} partitions"
    return ("warning", f"{said}; {'; '.join(differing)}") if differing else ("ok", said)


async def _clickhouse(settings: Settings) -> tuple[State, str]:
    async with connected(settings) as client:
        return "ok", f"{settings.clickhouse_url}: version {client.server_version}, user {settings.clickhouse_user}"


async def _schema(settings: Settings) -> tuple[State, str]:
    async with connected(settings) as client:
        try:
            taken = await migrations.applied(client)
        except ClickHouseError:  # ClickHouse answered, but there is no such table
            return "failed", "there are no tables yet: run `eventpush migrate`"
        migrations.check(taken)
    version = max(taken, default=0)
    if version < LATEST:
        return "failed", f"version {version}, this eventpush needs {LATEST}: run `eventpush migrate`"
    return "ok", f"version {version}, up to date"


async def _clock(settings: Settings) -> tuple[State, str]:
    async with connected(settings) as client:
        asked = time.time()
        theirs = float(str(await client.command("SELECT toUnixTimestamp64Milli(now64(3))"))) / 1000
        answered = time.time()
    skew = max(asked - theirs, theirs - answered, 0.0)  # what the round trip does not explain
    return "ok" if skew <= _SKEW_S else "warning", f"{skew:.1f} s apart from ClickHouse's"


async def _ready(url: str) -> tuple[State, str]:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            body = (await answer.text()).strip().replace("\n", " ")[:500]
    except (aiohttp.ClientError, OSError):
        return "warning", f"nothing answers at {url}"
    return "ok" if answer.status == 200 else "failed", f"{url}: {answer.status} {body}"


def reachable_host(host: str) -> str:
    """Where a process that listens on `host` can be reached from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"[{host}]" if ":" in host else host
