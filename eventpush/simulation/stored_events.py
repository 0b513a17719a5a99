"""Query ClickHouse for the simulated events."""

from collections.abc import Iterable

from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.simulation.fleet import Identity
from schemas.tables import DEAD_LETTERS, EVENTS

_ROWS = f"""
SELECT imei, toUnixTimestamp64Micro(device_time), toString(event), toString(geofence_name), count()
FROM {EVENTS.view}
WHERE device_time >= fromUnixTimestamp64Micro({{begin_us:Int64}})
  AND device_time <= fromUnixTimestamp64Micro({{end_us:Int64}})
  AND toUnixTimestamp64Micro(device_time) % 1000000 = {{mark_us:Int64}}
GROUP BY imei, device_time, event, geofence_name
"""  # noqa: S608 - built from the registry's names

_PAYLOADS = f"""
SELECT payload, count() FROM {DEAD_LETTERS.view}
WHERE position(payload, {{mark:String}}) > 0 GROUP BY payload
"""  # noqa: S608

_SEEN = f"""
SELECT imei, toUnixTimestamp64Micro(device_time), toString(event), toString(geofence_name),
       toUnixTimestamp64Micro(received_at)
FROM {EVENTS.view}
WHERE (toString(event), imei, toUnixTimestamp64Micro(device_time)) IN {{sample:Array(Tuple(String, String, Int64))}}
"""  # noqa: S608


async def rows(client: AsyncClient, seed: int, identities: Iterable[Identity]) -> dict[Identity, int]:
    """Count the rows of each of the seed's identities, within the time range of `identities`."""
    device_us = [identity[1] for identity in identities]
    if not device_us:
        return {}
    parameters = {"begin_us": min(device_us), "end_us": max(device_us), "mark_us": seed % 1_000_000}
    found = await client.query(_ROWS, parameters=parameters)
    return {(imei, us, event, geofence): int(count) for imei, us, event, geofence, count in found.result_rows}


async def dead_letters(client: AsyncClient, seed: int) -> dict[str, int]:
    """Count the rows of each of the seed's dead letters, by payload."""
    found = await client.query(_PAYLOADS, parameters={"mark": f".{seed % 1_000_000:06d}+0"})
    return {str(payload): int(count) for payload, count in found.result_rows}


async def arrivals(client: AsyncClient, sample: Iterable[Identity]) -> dict[Identity, int]:
    """Return the stored events of the sample with their arrival time in µs."""
    keys = [(event, imei, device_us) for imei, device_us, event, _ in sample]
    found = await client.query(_SEEN, parameters={"sample": keys})
    return {(imei, us, event, geofence): int(at) for imei, us, event, geofence, at in found.result_rows}
