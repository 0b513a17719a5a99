"""Read a topic with confluent-kafka: python confluent_consumer.py BOOTSTRAP TOPIC GROUP DIRECTORY.

The work stands for yours: it creates a file named by the event's id. A file that exists is not created again, so an
event that is delivered again is worked on once.
"""

import signal
import sys
from pathlib import Path

from confluent_kafka import Consumer, KafkaException

bootstrap, topic, group, directory = sys.argv[1:]
stopped = False


def stop(*_: object) -> None:
    global stopped
    stopped = True


def work(message) -> None:
    event_id = dict(message.headers())["ce_id"].decode()
    try:
        Path(directory, event_id).touch(exist_ok=False)
    except FileExistsError:
        return
    print("done", event_id, flush=True)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 10_000,
    }
)
# Partitions move during `consume` only: what it returned before is worked on and committed by then.
consumer.subscribe([topic])
try:
    while not stopped:
        messages = consumer.consume(500, timeout=0.5)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            work(message)
        if messages:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                print("partitions moved; their events are delivered again:", error, file=sys.stderr)
finally:
    consumer.close()
