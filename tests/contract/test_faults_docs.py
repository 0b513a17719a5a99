"""docs/faults.md and the fault tests say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "faults.md").read_text()
#: What stands for a whole module in the docs.
_BY_MODULE = {"test_faults_checker", "test_faults_reader", "test_faults_soak"}


def _tests(*folders: str) -> dict[str, str]:
    """Test function → its module's name."""
    return {
        name: file.stem
        for folder in folders
        for file in (ROOT / "tests" / folder).glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def test_each_test_that_the_docs_name_is_there() -> None:
    """A claim whose test was renamed or removed is found."""
    named = set(re.findall(r"`(test_\w+)`", DOCS))
    assert named - set(_tests("faults", "unit")) == set()


def test_each_test_of_the_matrix_is_in_the_docs() -> None:
    """A test is found from its claim."""
    matrix = {name for name, module in _tests("faults").items() if module not in _BY_MODULE}
    assert matrix - set(re.findall(r"`(test_\w+)`", DOCS)) == set()
