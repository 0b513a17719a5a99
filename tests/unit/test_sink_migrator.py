"""Which databases this code may work with."""

import pytest

from runtime.platform.errors import OperatorError
from schemas.migration_steps import LATEST, MIGRATIONS
from sinks.migrator import missing

TAKEN = {step.version: step.checksum for step in MIGRATIONS}


def test_an_empty_database_and_an_older_one_are_welcome() -> None:
    """What is missing will be added."""
    assert missing({}) == list(MIGRATIONS)
    assert missing({1: TAKEN[1]}) == list(MIGRATIONS[1:])
    assert missing(TAKEN) == []


def test_a_newer_schema_is_refused() -> None:
    """An older release does not know what its rows would have to look like there."""
    with pytest.raises(
        OperatorError, match=f"is version {LATEST + 1}, and this eventpush knows versions up to {LATEST}"
    ):
        missing(TAKEN | {LATEST + 1: "…"})


def test_another_history_is_refused() -> None:
    """A step of the same number but other statements means that another code made this schema."""
    with pytest.raises(OperatorError, match=r"step 1 .* differs from this eventpush's step 1"):
        missing({1: "0" * 64})
