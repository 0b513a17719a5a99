"""`make up`, which is `eventpush up`: killed as a whole, and started again."""

import pytest

from tests.faults.conftest import exactly_once
from tests.faults.up import Up

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]


async def test_up_killed_as_a_whole_and_started_again(tmp_path_factory: pytest.TempPathFactory):
    """Kill -9 of the command, of Kafka, ClickHouse and every stage in one moment under load, twice: each start goes on
    with what is on the disk.
    """
    up = Up(tmp_path_factory.mktemp("up"))

    async def harm():
        for _ in range(2):
            assert await up.kill() >= 6
            await up.start()

    try:
        await up.start()
        await exactly_once(up, harm)
    finally:
        await up.kill()
