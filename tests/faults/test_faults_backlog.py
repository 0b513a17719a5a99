"""However much waits in Kafka, and however large it is: no stage takes more memory than its bound."""

import gzip
import itertools
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import pytest_asyncio

from tests.faults.memory import peaks_of
from tests.faults.pipeline import Pipeline, running
from tests.faults.processes import until
from tests.faults.reader import stored

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]

_DONE_S = 240.0
_GZIPPED = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    """A pipeline with one stream worker: all partitions are its."""
    async with running(tmp_path_factory.mktemp("backlog"), workers=1) as pipeline:
        yield pipeline


@pytest.mark.parametrize(
    ("events", "a_request", "padding"), [(400_000, 1_000, 0), (2_400, 12, 250_000)], ids=["ordinary", "large"]
)
async def test_a_backlog_of_any_size(alone: Pipeline, events: int, a_request: int, padding: int):
    """Events pile up while no stream worker and no sink runs: 400,000 ordinary ones; 600 MB in large ones that hardly
    take any room while they are compressed. All are worked off within the bound, first by the one, then by the other.
    """
    (worker,), before = alone.streams, (await stored(alone.settings))["events"]
    await worker.stop()
    await alone.sink.stop()
    await _post(alone, _events(events, padding), a_request)
    async with peaks_of(alone) as peaks:
        worker.start()
        await until(alone.is_processed, _DONE_S, "every raw event processed", every_s=0.5)
        alone.sink.start()

        async def are_stored() -> bool:
            return (await stored(alone.settings))["events"] == before + events

        await until(are_stored, _DONE_S, "every event stored", every_s=0.5)
    print(f"peaks of memory: {peaks}")  # noqa: T201 - a measure
    assert not peaks.beyond


async def _post(pipeline: Pipeline, events: Iterator[dict[str, object]], a_request: int) -> None:
    url = f"http://127.0.0.1:{pipeline.ingress_port}/api/events"
    async with aiohttp.ClientSession() as session:
        while body := list(itertools.islice(events, a_request)):
            packed = gzip.compress(json.dumps(body).encode(), 1)
            async with session.post(url, data=packed, headers=_GZIPPED) as answer:
                assert answer.status == 200, await answer.text()


def _events(count: int, padding: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        event: dict[str, object] = {
            "Event": "large" if padding else "overspeed",
            "Changes": number % 200,
            "Device_Time": f"2024-06-28T17:52:13.{number:06}+0000",
            "IMEI": f"{370_000_000_000_000 + number % 1_000}",
            "Server_Time": "2024-06-28T18:49:45.000000+0000",
            "Coordinates": "22.927968,75.533275",
            "Location": "Indore - Depalpur - Ingoriya Road, Kharsora",
            "Geofence_Name": None,
        }
        yield event | {"Padding": "x" * padding} if padding else event
