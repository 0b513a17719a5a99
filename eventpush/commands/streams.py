"""`eventpush streams`."""

from eventpush.options import command_with_examples, settings_of_a_process
from runtime.platform.event_loop import run_process
from streams.app import run


@command_with_examples(
    "streams",
    "eventpush streams",
    "EVENTPUSH_WINDOW_STORE=rocksdb eventpush streams      # identities on disk instead of in memory",
    "curl -s http://127.0.0.1:9102/readyz",
)
def command() -> None:
    """Run a stream worker: validate, deduplicate and enrich raw events; invalid ones become dead letters.

    Run up to one worker per partition; they share the partitions. If a worker dies, the others or its next start take
    over without loss or duplicates.
    """
    run_process(run(settings_of_a_process("streams")))
