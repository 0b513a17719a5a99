"""The reference pages match the code."""

import pytest

from eventpush import reference
from eventpush.cli import SUMMARIES
from runtime.platform import metrics, settings
from schemas.reasons import DESCRIPTION, Reason
from schemas.topics import all_topics

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_registries_are(name: str) -> None:
    """A changed command, setting, topic, reason or metric shows in `docs/` (python -m eventpush.reference)."""
    assert (reference.DOCS / name).read_text(encoding="utf-8") == PAGES[name], "run: python -m eventpush.reference"


def test_everything_is_documented() -> None:
    """Every entry of every registry is on its page, with a description."""
    for variable, _, text in settings.table():
        assert f"`{variable}`" in PAGES["settings.md"]
        assert text
    for command in SUMMARIES:
        assert f"## eventpush {command}\n" in PAGES["commands.md"]
    for topic in all_topics():
        assert f"`{topic.name}`" in PAGES["topics.md"]
        assert topic.description
    for metric, _, _, text in metrics.table():
        assert f"`{metric}`" in PAGES["metrics.md"]
        assert text
    assert set(DESCRIPTION) == set(Reason)
