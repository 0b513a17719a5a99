"""The generated parts of the documents are what the code declares."""

from pathlib import Path

import click
import pytest

from eventpush import reference
from eventpush.cli import SUMMARIES
from ingress import errors
from runtime.platform import metrics, settings
from schemas.event import SENT_FIELDS
from schemas.event_types import TYPES
from schemas.event_warnings import WARNINGS
from schemas.rules import DESCRIPTION, Reason
from schemas.tables import DEAD_LETTERS, EVENTS
from schemas.topics import FIXED, all_topics

_TABLE = "<!-- generated: reasons -->\n{}<!-- end generated -->\n"


def generated(name: str) -> str:
    """Return a generated part's Markdown."""
    return "\n".join(reference.GENERATED[name]())


@pytest.mark.parametrize("page", reference.documents(), ids=lambda page: str(page.relative_to(reference.ROOT)))
def test_a_document_is_current(page: Path) -> None:
    """A changed command, column, setting, topic, reason or metric shows in the documents (make docs)."""
    text = page.read_text(encoding="utf-8")
    assert reference.fill(text) == text, "run: make docs"


def test_everything_is_documented() -> None:
    """Each registry's every entry is in its table, with a text of its own."""
    for variable, _, text in settings.table():
        assert f"`{variable}`" in generated("settings")
        assert text
    for command in SUMMARIES:
        assert f"## eventpush {command}\n" in generated("commands")
    for topic in all_topics():
        assert f"`{topic.name}`" in generated("topics" if topic in FIXED else "type-topics")
        assert topic.description
    for metric, _, _, text in metrics.table():
        assert f"`{metric}`" in generated("metrics")
        assert text
    for table, name in ((EVENTS, "events-columns"), (DEAD_LETTERS, "dead-letters-columns")):
        for column in table.columns:
            assert f"| `{column.name}` | `{column.type}` | {column.comment} |" in generated(name)
            assert column.comment
    for reason, meaning in DESCRIPTION.items():
        assert f"| `{reason}` | {meaning} |" in generated("reasons")
    for name, kind in TYPES.items():
        assert f"| `{name}` | {kind.category} | {kind.severity} | {kind.description}" in generated("event-types")
    for warning in WARNINGS:
        assert f"| `{warning.code}` | {warning.description} |" in generated("warnings")
    for sent in SENT_FIELDS.values():
        assert f"| `{sent.name}` |" in generated("sent-fields")
    for refusal in errors.Rejection:
        assert f"| `{refusal}` |" in generated("refusals")
    assert set(DESCRIPTION) == set(Reason)


def test_only_the_marked_part_is_replaced() -> None:
    """What lies between a pair of markers is renewed, however often; everything around it stays byte for byte."""
    text = "# Title\n\n" + _TABLE.format("\nold\n\n") + "\nafter  \n"
    filled = reference.fill(text)
    assert filled == "# Title\n\n" + _TABLE.format("\n" + generated("reasons") + "\n\n") + "\nafter  \n"
    assert reference.fill(filled) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- generated: nothing -->\n<!-- end generated -->\n", "unknown generated part 'nothing'"),
        ("<!-- generated: reasons -->\n", "needs an `<!-- end generated -->`"),
        ("<!-- generated: Reasons! -->\n<!-- end generated -->\n", "needs an `<!-- end generated -->`"),
        ("<!-- generated: reasons -->\n<!-- generated: topics -->\n<!-- end generated -->\n", "needs an"),
        ("<!-- end generated -->\n", "needs an"),
    ],
)
def test_a_wrong_marker_is_an_error(text: str, message: str) -> None:
    """An unknown name or a marker without its partner is named and never skipped."""
    with pytest.raises(ValueError, match=message):
        reference.fill(text)


def test_writing_renews_only_what_is_out_of_date(tmp_path: Path) -> None:
    """`make docs` returns the pages that it changed, and names the page that has a wrong marker."""
    (tmp_path / "docs").mkdir()
    stale, current = tmp_path / "docs" / "stale.md", tmp_path / "current.md"
    stale.write_text(_TABLE.format(""))
    current.write_text("nothing generated\n")
    assert reference.write(tmp_path) == [stale]
    assert "`not_json`" in stale.read_text()
    assert reference.write(tmp_path) == []
    current.write_text("<!-- generated: nothing -->\n<!-- end generated -->\n")
    with pytest.raises(click.ClickException, match=r"current\.md: unknown generated part"):
        reference.write(tmp_path)
