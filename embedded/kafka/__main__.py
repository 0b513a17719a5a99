"""`python -m embedded.kafka`: run one broker in the foreground."""

import asyncio
import signal
import sys
from pathlib import Path

import click

from embedded.kafka import broker as brokers
from embedded.kafka.aot import ensure_cache
from embedded.kafka.config import Broker
from embedded.kafka.installation import Installation, install
from embedded.parent_death import with_parent_death_signal
from runtime.platform.errors import OperatorError

_STOPPED_BY_SIGTERM = 128 + signal.SIGTERM  # Java's exit status after an orderly stop


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9092, show_default=True, help="Port for clients.")
@click.option("--controller-port", type=int, help="Port of the controller [default: --port plus one].")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Directory for topics.")
@click.option(
    "--jars-dir",
    type=click.Path(path_type=Path),
    help="Cache of jars [default: jars in the data directory].",
)
@click.option("--heap-mb", default=512, show_default=True, help="Java heap, in megabytes.")
def main(
    host: str, port: int, controller_port: int | None, data_dir: Path, jars_dir: Path | None, heap_mb: int
) -> None:
    """Run real Kafka until SIGTERM or SIGINT; print one line when it is ready."""
    broker = Broker(data_dir / "kafka", host, port, controller_port or port + 1, heap_mb=heap_mb)
    try:
        installation = install(jars_dir or data_dir / "jars", click.echo)
        ensure_cache(installation, click.echo)
        brokers.prepare(broker, installation)
        sys.exit(asyncio.run(_run(broker, installation)))
    except OperatorError as problem:
        sys.exit(str(problem))


async def _run(broker: Broker, installation: Installation) -> int:
    process = await asyncio.create_subprocess_exec(
        *with_parent_death_signal(brokers.command(broker, installation)),
        stdin=asyncio.subprocess.DEVNULL,
        cwd=broker.home,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.terminate)
    ended = asyncio.create_task(process.wait())
    ready = asyncio.create_task(brokers.wait_ready(broker.bootstrap))
    try:
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            click.echo(f"kafka ready on {broker.bootstrap}")
        status = await ended
    finally:
        ready.cancel()
        if process.returncode is None:
            process.kill()
    return 0 if status in {0, _STOPPED_BY_SIGTERM} else 1


if __name__ == "__main__":
    main()
