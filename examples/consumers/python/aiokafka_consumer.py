"""Read a topic with aiokafka: python aiokafka_consumer.py BOOTSTRAP TOPIC GROUP DIRECTORY.

The work stands for yours: it creates a file named by the event's id, once, though the event may be delivered again.
"""

import asyncio
import signal
import sys
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError

bootstrap, topic, group, directory = sys.argv[1:]


def work(record) -> None:
    event_id = dict(record.headers)["ce_id"].decode()
    try:
        Path(directory, event_id).touch(exist_ok=False)
    except FileExistsError:
        return
    print("done", event_id, flush=True)


class Rebalance(ConsumerRebalanceListener):
    def __init__(self, busy: asyncio.Lock) -> None:
        self.busy = busy

    async def on_partitions_revoked(self, revoked) -> None:
        async with self.busy:  # what was read is worked on and committed before another consumer gets the partition
            pass

    async def on_partitions_assigned(self, assigned) -> None: ...


async def main() -> None:
    stopped, busy = asyncio.Event(), asyncio.Lock()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, isolation_level="read_committed",
        enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=10_000,
    )  # fmt: skip
    consumer.subscribe([topic], listener=Rebalance(busy))
    async with consumer:
        while not stopped.is_set():
            async with busy:
                found = await consumer.getmany(timeout_ms=500, max_records=500)
                for record in (record for records in found.values() for record in records):
                    work(record)
                try:
                    if found:
                        await consumer.commit()
                except CommitFailedError:
                    print("partitions moved; their events are delivered again, to their new consumer", file=sys.stderr)


asyncio.run(main())
