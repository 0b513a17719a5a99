"""What each sender sent, joined from ClickHouse and the metrics of the ingress."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from eventpush.console.clickhouse import ClickHouse
from eventpush.console.metric_samples import Scrape
from eventpush.console.stages import StageReading

_REFUSALS = "eventpush_ingress_refusals_total"
#: Of the last day. A sender without a name has sent without a token or signature.
_QUERY = """
SELECT name AS sender, sum(events) AS accepted, sum(letters) AS dead_letters, sum(warned) AS warned,
    max(seen) AS last_seen_us
FROM (
    SELECT ifNull(sender, '') AS name, count() AS events, 0 AS letters, countIf(notEmpty(warnings)) AS warned,
        toUnixTimestamp64Micro(max(received_at)) AS seen
    FROM telematics.events WHERE received_at >= now() - INTERVAL 1 DAY GROUP BY name
    UNION ALL
    SELECT ifNull(sender, '') AS name, count() AS events, count() AS letters, 0 AS warned,
        toUnixTimestamp64Micro(max(received_at)) AS seen
    FROM telematics.dead_letters
    WHERE received_at >= now() - INTERVAL 1 DAY AND stage = 'streams' GROUP BY name
)
GROUP BY name ORDER BY accepted DESC LIMIT 500
"""


class SenderCounts(msgspec.Struct, frozen=True):
    """A sender's figures in ClickHouse; `accepted` includes the dead letters."""

    sender: str
    accepted: int
    dead_letters: int
    warned: int
    last_seen_us: int


@dataclass(frozen=True)
class Sender:
    """A sender; `refused` counts requests since the ingress started, None where no ingress answered."""

    name: str
    accepted: int
    dead_letters: int
    warned: int
    last_seen_us: int | None
    refused: int | None


async def sender_counts(clickhouse: ClickHouse) -> list[SenderCounts]:
    """Return each sender's figures of the last day."""
    return [msgspec.convert(row, SenderCounts) for row in await clickhouse.rows(_QUERY)]


def senders(counted: Iterable[SenderCounts], ingress: StageReading | None) -> list[Sender]:
    """Join what ClickHouse counted with the refusals that the ingress counted since it started. Pure."""
    scrapes = [process.now for process in ingress.processes if process.now] if ingress else []
    refused = _refused(scrapes)
    found = [
        Sender(of.sender, of.accepted, of.dead_letters, of.warned, of.last_seen_us, refused.pop(of.sender, 0))
        for of in counted
    ]
    if not scrapes:
        found = [replace(sender, refused=None) for sender in found]
    return found + [Sender(name, 0, 0, 0, None, number) for name, number in sorted(refused.items())]


def _refused(scrapes: Iterable[Scrape]) -> dict[str, int]:
    found: dict[str, int] = {}
    for scrape in scrapes:
        for labels, number in scrape.samples.get(_REFUSALS, {}).items():
            name = dict(labels)["sender"]
            found[name] = found.get(name, 0) + int(number)
    return found
