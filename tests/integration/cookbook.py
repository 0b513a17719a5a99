"""The queries of docs/analysts.md with answers and pictures; `python -m tests.integration.cookbook` renews them."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import stack
from tests.integration import pictures, simulated_fleet
from tests.integration.reporting import Reporting

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("analysts.md", "analysts-questions.md")]
_QUERY = re.compile(r"```sql\n((?:(?!```).*\n)*)```\n\n((?:\|.*\n)*)")


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query, and the Markdown table below it, which is empty if there is none."""
    for page in PAGES:
        if page.exists():
            yield from _QUERY.findall(page.read_text(encoding="utf-8"))


def answer(reporting: Reporting, query: str) -> str:
    """Return the answer as a Markdown table."""
    return reporting.client.raw_query(query, fmt="Markdown").decode()


def write(reporting: Reporting) -> None:
    """Renew the answer of each query in the pages."""
    for page in PAGES:
        if page.exists():
            text = page.read_text(encoding="utf-8")
            filled = _QUERY.sub(lambda found: f"```sql\n{found[1]}```\n\n{answer(reporting, found[1])}", text)
            page.write_text(re.sub(r"(^\|.*\n)(?=#)", r"\1\n", filled, flags=re.MULTILINE), encoding="utf-8")


def main() -> None:
    """Start a server with the simulated fleet, and renew the pages and their pictures."""
    with tempfile.TemporaryDirectory() as home:
        reporting = Reporting(stack.ClickHouse(Path(home)))
        reporting.start()
        try:
            simulated_fleet.fill(reporting)
            write(reporting)
            pictures.write(reporting)
        finally:
            reporting.client.close()
            reporting.server.end_if_running()


if __name__ == "__main__":
    main()
