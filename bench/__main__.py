"""`python -m bench [PART…] [--quick] [--rows N]`: measure, print one table, write docs/benchmarks.md with its plots."""

import asyncio
import importlib
import signal
import sys

import click

from bench import report, results
from runtime.adapters import aiokafka
from runtime.platform.errors import OperatorError

PARTS = ("streams", "ingress", "sink", "end_to_end", "growth", "recovery", "paced", "analysts")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--quick", is_flag=True, help="Use less data; the figures are rough.")
@click.option("--rows", type=click.IntRange(1), help="Rows of the part `analysts`; 20 million by default.")
@click.option("--report-only", is_flag=True, help="Measure nothing; write the report from the stored figures.")
def main(parts: tuple[str, ...], *, quick: bool, rows: int | None, report_only: bool) -> None:
    """Measure the given parts, or all; each starts its own embedded stack and removes it."""
    aiokafka.install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that child processes are stopped
    try:
        for part in () if report_only else parts or PARTS:
            click.echo(f"measuring {part} …", err=True)
            options = {"rows": rows} if part == "analysts" and rows else {}
            section = asyncio.run(importlib.import_module(f"bench.{part}").measure(quick=quick, **options))
            results.save(section, quick=quick)
            click.echo(report.table(results.load(), [section.name]))
    except OperatorError as problem:
        sys.exit(str(problem))
    report.write(results.load(), PARTS)
    click.echo(report.table(results.load(), PARTS))


if __name__ == "__main__":
    main()
