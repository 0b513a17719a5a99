"""`eventpush streams`."""

import sys

from eventpush.options import command_with_examples, settings_of_a_process
from runtime.platform.event_loop import run_loop
from streams.app import run


@command_with_examples(
    "streams",
    "eventpush streams",
    "EVENTPUSH_WINDOW_STORE=rocksdb eventpush streams      # identities on disk, not in memory",
    "curl -s http://127.0.0.1:9102/readyz",
)
def command() -> None:
    """Run a stream worker: raw events become clean, unique, enriched ones, or dead letters.

    Start as many workers as there are partitions; they share the work. A worker that is killed is replaced by the
    others, or by its next start, without a loss or a repeat.
    """
    sys.exit(run_loop(run(settings_of_a_process("streams"))))
