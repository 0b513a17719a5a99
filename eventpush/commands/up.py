"""`eventpush up`."""

import sys

from eventpush.embedded_stack import load_embedded_stack
from eventpush.options import command_with_examples
from runtime.platform.settings import load


@command_with_examples(
    "up",
    "eventpush up",
    "EVENTPUSH_INGRESS_PORT=8088 eventpush up        # another port",
    "EVENTPUSH_DATA_DIR=/var/lib/eventpush eventpush up",
)
def command() -> None:
    """Run everything on this machine, in the foreground: Kafka, ClickHouse, ingress, stream worker, sink, console.

    This is real Apache Kafka and the real ClickHouse engine, without Docker. The first start downloads Kafka's jars
    and verifies their pinned hashes. Data is kept in .eventpush/ across restarts; Ctrl-C stops everything in order.
    """
    sys.exit(load_embedded_stack().up(load()))
