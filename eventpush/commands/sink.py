"""`eventpush sink`."""

from eventpush.options import command_with_examples, settings_of_a_process
from runtime.platform.event_loop import run_process
from sinks.app import run


@command_with_examples(
    "sink",
    "eventpush sink",
    "EVENTPUSH_CLICKHOUSE_URL=https://ch.example.net:8443 EVENTPUSH_CLICKHOUSE_USER=writer eventpush sink",
    "curl -s http://127.0.0.1:9103/readyz",
)
def command() -> None:
    """Run the sink: store telematics.events.v1 and the dead letters in ClickHouse, each exactly once.

    It migrates ClickHouse's schema first. While ClickHouse is unavailable it waits, then catches up.
    """
    run_process(run(settings_of_a_process("sink")))
