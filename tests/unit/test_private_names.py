"""The private names of aiokafka and Faust that the adapters use: all exist, and no other module uses any."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from runtime.adapters import aiokafka, aiokafka_admin, aiokafka_closing, aiokafka_transactions, faust

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "schemas", "ingress", "streams", "sinks", "embedded", "eventpush", "bench")
ADAPTERS = (aiokafka, aiokafka_admin, aiokafka_closing, aiokafka_transactions, faust)
NAMES = [(owner, name) for table in ADAPTERS for owner, names in table.PRIVATE_NAMES.items() for name in names]
#: Private names of our own modules or of the standard library;.
ALLOWED: dict[str, set[str]] = {
    "embedded/clickhouse/__main__.py": {"_exit"},  # os
    "eventpush/__main__.py": {"_exit"},  # os
    "runtime/platform/event_loop.py": {"_exit"},  # os
    "bench/stages.py": {"_decoded", "_encoded"},  # the stages that are timed
}


@pytest.mark.parametrize(("owner", "name"), NAMES)
def test_a_private_name_exists_in_the_installed_version(owner: str, name: str) -> None:
    """A new version of a library that drops or renames one fails here, not in production."""
    module, cls = owner.split(":")
    found = getattr(importlib.import_module(module), cls)
    # The adapters replace some classes of aiokafka by subclasses: look at the originals.
    if found.__module__.startswith("runtime.adapters"):
        found = found.__mro__[1]
    classes = [c for c in found.__mro__ if c is not object]
    if not any(name in vars(c) for c in classes):
        sources = [inspect.getsource(c) for c in classes if c.__module__.split(".")[0] in ("aiokafka", "faust", "mode")]
        assert any(f"self.{name} = " in text or f"self.{name}: " in text for text in sources), f"{owner} has no {name}"


def test_only_adapters_reach_into_private_parts() -> None:
    """Outside `runtime/adapters`, `x._name` appears on self, cls and super() only, but for what `ALLOWED` explains."""
    offences = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            if not where.startswith("runtime/adapters/"):
                offences += [f"{where}:{line}: {name}" for name, line in _foreign_private_names(path)
                             if name not in ALLOWED.get(where, set())]  # fmt: skip
    assert offences == []


def _foreign_private_names(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_private(node.attr)]
    return [(n.attr, n.lineno) for n in nodes if not _is_own(n.value)]


def _is_private(name: str) -> bool:
    return (
        name.startswith("_") and not name.startswith("__") and name not in ("_asdict", "_replace", "_fields", "_make")
    )


def _is_own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")
