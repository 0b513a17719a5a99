"""`eventpush size`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eventpush.options import as_json, command_with_examples, echo_json
from eventpush.sizing import costs as benchmark
from eventpush.sizing.layout import Load, layout
from eventpush.sizing.text import lines
from runtime.platform.errors import OperatorError

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType):
    """A number with a unit: `24h`, `90m`, `2d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds."""
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 24h: a number and s, m, h or d", param, ctx)
        return int(found[1]) * _SECONDS[found[2]]


def _with_default(
    name: str, kind: click.ParamType, default: object, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=kind, default=default, show_default=True, help=text)


@command_with_examples(
    "size",
    "eventpush size --rate 20000 --devices 2000000 --window 24h --types 40",
    "eventpush size --rate 1000 --devices 50000 --peak 3 --json",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), required=True, help="Events per second, over a day."
)
@click.option("--devices", type=click.IntRange(min=1), required=True, help="Devices that send.")
@_with_default("--window", Duration(), "24h", "EVENTPUSH_WINDOW_S.")
@_with_default("--types", click.IntRange(min=1), 8, "Event types.")
@_with_default("--peak", click.FloatRange(min=1), 2.0, "The day's peak, as a multiple of the rate.")
@_with_default("--replication", click.IntRange(1, 9), 3, "Replicas of each topic.")
@_with_default("--retention", Duration(), "7d", "EVENTPUSH_TOPIC_RETENTION_H.")
@_with_default("--row-days", click.IntRange(min=1), 365, "Days of rows in ClickHouse.")
@_with_default("--worker-memory-gb", click.FloatRange(min=1), 32.0, "Memory of a stream worker.")
@_with_default("--broker-disk-gb", click.FloatRange(min=1), 2_000.0, "Disk of a broker.")
@_with_default("--broker-network-gbit", click.FloatRange(min=0.1), 10.0, "Network of a broker.")
@_with_default("--broker-cores", click.IntRange(min=1), 8, "Cores of a broker.")
@click.option(
    "--benchmarks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Figures of your own machine: the benchmarks.json that `make bench` wrote.",
)
@as_json
def command(*, benchmarks: Path | None, as_json: bool, window: int, retention: int, **given: Any) -> None:
    """Compute what a load needs: processes, partitions, brokers, memory, disk and network, at the day's peak.

    The costs are those of the committed benchmark, measured on two cores. The answer says where each comes from, how
    far it was off for runs that it was not fitted from, and what was not measured. It plans with processes that use at
    most 60 % of a core at the peak. docs/scaling.md explains it.
    """
    load = Load(window_s=window, retention_h=max(1, retention // 3_600), **given)
    try:
        measured = benchmark.costs(benchmark.read(benchmarks))
    except (KeyError, StopIteration, ValueError) as error:
        raise OperatorError(f"{benchmarks} is not the result of `make bench` ({error!r})", "run `make bench`") from None
    try:
        needed = layout(load, measured)
    except ValueError as error:
        raise OperatorError(str(error), "raise --worker-memory-gb") from None
    if as_json:
        echo_json({"load": load, "layout": needed, "costs": measured.of, "missing": measured.missing})
    else:
        click.echo("\n".join(lines(load, needed, measured)))
