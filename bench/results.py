"""What was measured: figures with their targets, kept as JSON so that a part can be measured anew by itself."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil

RESULTS_FILE = Path("docs/benchmarks.json")
_PACKAGES = ("faust-streaming", "aiokafka", "aiohttp", "msgspec", "numpy", "clickhouse-connect", "chdb", "uvloop")


@dataclass(frozen=True)
class Figure:
    """One figure; with a target it is met when the value is `at_least` or `at_most` that."""

    what: str
    value: float
    unit: str
    target: float | None = None
    sense: Literal["at_least", "at_most"] = "at_least"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == "at_least" else self.value <= self.target


@dataclass
class Section:
    """One part of the benchmark: its figures, and series for the plots."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, value: float, unit: str, **more: Any) -> None:
        """One more figure."""
        self.figures.append(Figure(what, value, unit, **more))


def save(section: Section, *, quick: bool) -> None:
    """Put the section into the file, in the place of an older one."""
    document = load()
    document[section.name] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
        "load": [round(value, 1) for value in psutil.getloadavg()],
        "quick": quick,
        "figures": [asdict(figure) for figure in section.figures],
        "series": section.series,
    }
    RESULTS_FILE.parent.mkdir(exist_ok=True)
    RESULTS_FILE.write_text(json.dumps(document, indent=1) + "\n")


def load() -> dict[str, Any]:
    """All sections that were ever measured, the latest of each."""
    if not RESULTS_FILE.exists():
        return {}
    document: dict[str, Any] = json.loads(RESULTS_FILE.read_text())
    return document


def figures(document: dict[str, Any], name: str) -> Sequence[Figure]:
    """Return a section's figures."""
    return [Figure(**figure) for figure in document.get(name, {}).get("figures", [])]


def machine() -> str:
    """Describe the machine."""
    memory_gb = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores ({_processor()}), {memory_gb:.0f} GB, {platform.system()} {platform.machine()}"


def versions() -> str:
    """List the versions used."""
    packages = [f"{name} {version(name)}" for name in _PACKAGES]
    return f"Python {platform.python_version()}, Kafka {_kafka()}, " + ", ".join(packages)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _kafka() -> str:
    lock = Path("embedded/kafka/jars.lock").read_text()
    return lock.split("org.apache.kafka:kafka_2.13:")[1].split()[0]
