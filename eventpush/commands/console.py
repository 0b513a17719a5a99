"""`eventpush console`."""

import sys

from eventpush.options import command_with_examples, settings_of_a_process
from runtime.platform.errors import OperatorError
from runtime.platform.event_loop import run_loop


@command_with_examples(
    "console",
    "eventpush console                               # then open http://127.0.0.1:8090",
    "EVENTPUSH_CONSOLE_PORT=8091 eventpush console",
    "EVENTPUSH_CONSOLE_HOST=0.0.0.0 EVENTPUSH_CONSOLE_TOKEN=long-and-random eventpush console",
)
def command() -> None:
    """Run the web console: the flow with its lag, a live map, traces, dead letters and senders.

    It reads the metrics of the stages, Kafka and ClickHouse. A replay of dead letters needs the operator's token.
    `eventpush up` includes the console.
    """
    try:
        from eventpush.console.server import run  # noqa: PLC0415 - optional dependencies
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"{error.name} is not installed, but `eventpush console` needs it",
            "install eventpush with its extra `console`",
        ) from None
    sys.exit(run_loop(run(settings_of_a_process("console"))))
