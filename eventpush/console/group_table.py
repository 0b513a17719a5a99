"""The table of groups of dead letters."""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from eventpush.console.layout import table_head, tag, text
from eventpush.console.repairs import Group
from eventpush.console.senders import NOT_NAMED

_COLUMNS = ("Rule", "Field", "Sender", "Letters", "First", "Last")


class GroupTable:
    """A row for each group, whose button opens it. Rows stay while their groups do, and so does the focus."""

    def __init__(self, open_group: Callable[[Group], Any]) -> None:
        self._open = open_group
        with tag("table"):
            table_head(_COLUMNS)
            self._body = tag("tbody")
        self._cells: dict[Group, list[ui.label]] = {}

    def show(self, rows: Sequence[tuple[Group, list[str]]]) -> None:
        """Show these groups with the texts of their last three columns; known groups keep their places."""
        if {group for group, _ in rows} != self._cells.keys():
            self._body.clear()
            with self._body:
                self._cells = {group: self._row(group) for group, _ in rows}
        for group, texts in rows:
            for cell, content in zip(self._cells[group], texts, strict=True):
                cell.set_text(content)

    def _row(self, group: Group) -> list[ui.label]:
        with tag("tr"):
            with tag("th").props("scope=row"):
                button = text("button", group.reason).props("type=button").classes("link")
                button.on("click", lambda: self._open(group))
            text("td", group.field or "(payload)")
            text("td", group.sender or NOT_NAMED)
            return [text("td") for _ in range(3)]
