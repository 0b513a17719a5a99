"""Runs `eventpush …` with named points at which it can be made to die: on the spot, between two of its lines.

    FAULT_TRIGGER=FILE python -m tests.faults.points streams

When the process passes a point whose name stands in the file, it removes the file and kills itself with SIGKILL, or
stops itself with SIGSTOP, or loses the answer that it was about to get, or goes no further. Its wall clock is that of
`tests.faults.clock` if FAULT_CLOCK names its file. On SIGUSR1 it logs where its tasks stand. Nothing in the product
knows of it.
"""

import asyncio
import contextlib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.faults.clock import follow

Fault = Literal["kill", "stop", "lose", "hang"]


class Point(NamedTuple):
    """A place in the code: before or after a call of this method."""

    method: str  # module:Class.method or module:function
    when: Literal["before", "after"]


POINTS: dict[str, Point] = {
    "ingress before the broker has it": Point("aiokafka:AIOKafkaProducer.send_batch", "before"),
    "ingress after the broker's ack": Point("ingress.publisher:KafkaPublisher._sent", "before"),
    "streams before the transaction": Point("streams.transactions:Transactions.commit", "before"),
    "streams with a transaction open": Point("aiokafka:AIOKafkaProducer.begin_transaction", "after"),
    "streams between outputs and offsets": Point("aiokafka:AIOKafkaProducer.send_offsets_to_transaction", "before"),
    "streams between changelog and commit": Point("aiokafka:AIOKafkaProducer.commit_transaction", "before"),
    "streams right after commit": Point("aiokafka:AIOKafkaProducer.commit_transaction", "after"),
    "streams while restoring": Point("streams.partition_processor:restore", "before"),
    "streams after restoring": Point("streams.partition_processor:restore", "after"),
    "sink before the intent": Point("sinks.partition_processor:PartitionProcessor.process", "before"),
    "sink between intent and insert": Point("sinks.clickhouse_writer:ClickHouseWriter.insert", "before"),
    "sink in the middle of an insert": Point("sinks.clickhouse_writer:ClickHouseWriter._insert", "before"),
    "sink between insert and commit": Point("sinks.clickhouse_writer:ClickHouseWriter.insert", "after"),
    "sink when an insert's answer comes": Point("sinks.clickhouse_writer:ClickHouseWriter._insert", "after"),
}

#: Of `eventpush topics grow`, in the order in which it comes to them.
POINTS_OF_GROWTH: dict[str, Point] = {
    "topics before the stages finish": Point("eventpush.growth.grow:_Grower._finish", "before"),
    "topics with the stages gone": Point("eventpush.growth.grow:_Grower._begin_journal", "before"),
    "topics with a journal": Point("eventpush.growth.grow:_Grower._begin_journal", "after"),
    "topics with some partitions added": Point("aiokafka.admin:AIOKafkaAdminClient.create_partitions", "after"),
    "topics with a transaction open": Point("aiokafka:AIOKafkaProducer.send_offsets_to_transaction", "before"),
    "topics between two transactions": Point("aiokafka:AIOKafkaProducer.commit_transaction", "after"),
    "topics before anything is deleted": Point("eventpush.growth.grow:_Grower._delete_moved", "before"),
    "topics with old records deleted": Point("aiokafka.admin:AIOKafkaAdminClient.delete_records", "after"),
    "topics before the gate is opened": Point("eventpush.growth.grow:_Grower._open", "before"),
}


class AnswerLostError(ConnectionError):
    """What a client sees of it."""


def _wrapped(name: str, when: str, method: Callable[..., Any], trigger: Path) -> Callable[..., Any]:
    if not asyncio.iscoroutinefunction(method):  # a call can be died in, not waited in

        @functools.wraps(method)
        def called(*args: Any, **options: Any) -> Any:
            _strike(name, trigger, _noted(*args))
            return method(*args, **options)

        return called

    @functools.wraps(method)
    async def passing(*args: Any, **options: Any) -> Any:
        what = _noted(*args)
        if when == "before" and _strike(name, trigger, what):
            await asyncio.Event().wait()
        result = await method(*args, **options)
        if when == "after" and _strike(name, trigger, what):
            await asyncio.Event().wait()
        return result

    return passing


def _noted(owner: Any = None, *_: Any) -> str:
    """What to say of whose method it is: a producer's transactional id."""
    transactions = getattr(owner, "_txn_manager", None)
    return str(getattr(transactions, "transactional_id", None) or "")


def _strike(name: str, trigger: Path, what: str) -> bool:
    """Do what the trigger says, if it is about this point; whether the process is to go no further here."""
    try:
        fault, _, point = trigger.read_text().partition(" ")
    except OSError:
        return False
    if point != name:
        return False
    trigger.unlink(missing_ok=True)
    print(f"fault: {fault} {point} [{what}]", file=sys.stderr, flush=True)  # noqa: T201
    if fault == "lose":
        raise AnswerLostError(name)
    if fault != "hang":
        os.killpg(0, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    return fault == "hang"


def plant(stage: str, trigger: Path) -> None:
    """Put the points of a stage into its code."""
    for name, (method, when) in (POINTS | POINTS_OF_GROWTH).items():
        if not name.startswith(stage):
            continue
        owner, attribute = resolve(method)
        setattr(owner, attribute, _wrapped(name, when, getattr(owner, attribute), trigger))


def resolve(method: str) -> tuple[Any, str]:
    """Return the class or module that owns a point's method, and the method's name."""
    module, _, path = method.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, attribute = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    return owner, attribute


def _print_tasks(*_: object) -> None:
    """Print the stack of every task of every loop to standard error."""
    every_task: Any = vars(asyncio.tasks)["_all_tasks"]  # all_tasks() knows those of one loop only
    for task in list(every_task):
        with contextlib.suppress(Exception):  # another thread's task may be anywhere
            task.print_stack(limit=8, file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _print_tasks)
    if "FAULT_CLOCK" in os.environ:
        follow(Path(os.environ["FAULT_CLOCK"]))
    plant(sys.argv[1], Path(os.environ["FAULT_TRIGGER"]))
    from eventpush.__main__ import main

    main()
