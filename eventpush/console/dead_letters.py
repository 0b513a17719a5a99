"""The page Dead letters: the open ones by rule, field and sender; each with its payload; repairs tried and replayed."""

import time
from collections.abc import Callable
from typing import Any

from nicegui import ui

from eventpush.console import find, repairs, wording
from eventpush.console.group_table import GroupTable
from eventpush.console.layout import definitions, heading, table_head, tag, text
from eventpush.console.letter_payload import fields, pretty
from eventpush.console.repair_form import RepairForm
from eventpush.console.repairs import Group
from eventpush.console.senders import NOT_NAMED
from eventpush.console.sessions import Sessions
from eventpush.console.sources import Sources
from eventpush.dead_letters import store
from eventpush.dead_letters.letter import Letter
from eventpush.dead_letters.selection import Selection
from runtime.platform.errors import OperatorError

_REFRESH_S = 5.0
_GROUPS_MAX = 200
_HOUR_S = 3_600
_PERIODS = {1: "last hour", 24: "last 24 hours", 7 * 24: "last 7 days", 30 * 24: "last 30 days"}  # hours
_LETTERS = """
SELECT toString(dead_letter_id) AS letter, event, imei, toUnixTimestamp64Micro(received_at) AS received_us
FROM telematics.dead_letters WHERE %s ORDER BY received_at DESC LIMIT 100
"""


def build(sources: Sources, sessions: Sessions) -> None:
    """Build the page; the groups refresh themselves."""
    view = _DeadLetters(sources, sessions)
    ui.timer(_REFRESH_S, view.refresh)


class _DeadLetters:
    def __init__(self, sources: Sources, sessions: Sessions) -> None:
        self._clickhouse, self._sessions = sources.clickhouse, sessions
        with tag("div").classes("filters"):
            self._period = ui.select(_PERIODS, value=24, label="Received in the", on_change=self.refresh)
            self._period.props("outlined dense").classes("filter")
        self._status = text("p", "Asking ClickHouse …").props("role=status").classes("quiet")
        with tag("div").classes("panel table") as self._groups:
            self._table = GroupTable(self._show_letters)
        self._groups.set_visibility(False)
        self._letters = tag("section").props("aria-label=Letters")
        self._dialog = ui.dialog().props("full-width")

    async def refresh(self) -> None:
        """Count the groups again."""
        selection = Selection(since_us=self._since_us())
        try:
            found = await self._clickhouse.ask(
                lambda client: store.groups(client, selection, ("reason", "field", "sender"), _GROUPS_MAX)
            )
        except OperatorError as problem:
            self._status.set_text(str(problem))
            return
        several = "Open letters: no event resolves them. One that breaks several rules is in several groups."
        self._status.set_text(several if found else f"No open letter in the {_PERIODS[self._period.value]}.")
        self._groups.set_visibility(bool(found))
        self._table.show([_group_row(row) for row in found])

    def _since_us(self) -> int:
        return int((time.time() - self._period.value * _HOUR_S) * 1e6)

    async def _show_letters(self, group: Group) -> None:
        selection = Selection(
            reasons=(group.reason,), fields=(group.field,), senders=(group.sender,), since_us=self._since_us()
        )
        condition, parameters = selection.condition()
        self._letters.clear()
        try:
            rows = await self._clickhouse.rows(_LETTERS % condition, parameters)
        except OperatorError as problem:
            self._status.set_text(str(problem))
            return
        with self._letters, tag("div").classes("panel"):
            where = f"{group.field or 'payload'} {group.reason}"
            heading(2, f"{where}, {group.sender or NOT_NAMED}: the newest {len(rows)}")
            repair = ui.button("Repair this group …", on_click=lambda: self._open_repair(group, None))
            repair.props("outline no-caps")
            with tag("ul").classes("plain letters"):
                for row in rows:
                    with tag("li"):
                        _letter_button(row, self._open_letter)

    async def _open_letter(self, letter_id: str) -> None:
        try:
            letter = await self._clickhouse.ask(lambda client: store.find(client, letter_id))
        except OperatorError as problem:
            self._status.set_text(str(problem))
            return
        self._dialog.clear()
        with self._dialog, tag("section").classes("panel dialog wide fields").props('aria-label="Dead letter"'):
            heading(2, f"Dead letter {letter_id}")
            if letter is not None:
                _show_letter(letter)
            with tag("div").classes("buttons"):
                if letter is not None and letter.left_out_because is None:
                    repair = ui.button("Repair …", on_click=lambda: self._open_repair(None, letter_id))
                    repair.props("unelevated no-caps")
                ui.button("Close", on_click=self._dialog.close).props("flat no-caps autofocus")
        self._dialog.open()

    def _open_repair(self, group: Group | None, letter_id: str | None) -> None:
        self._dialog.clear()
        with self._dialog:
            RepairForm(repairs.selection(group, letter_id), self._sessions, self._dialog)
        self._dialog.open()


def _show_letter(letter: Letter) -> None:
    named = [
        ("Received", wording.moment(letter.received_us)),
        ("Sender", letter.sender or NOT_NAMED),
        ("Receipt", letter.receipt_id or wording.UNKNOWN),
        ("Refused by", letter.stage),
        ("Attempt", str(letter.attempt)),
        ("Resolved by event", letter.resolved_by_event_id or ""),
        ("Cannot be replayed", letter.left_out_because or ""),
    ]
    definitions([(label, value) for label, value in named if value])
    payload = letter.payload.decode("utf-8", "backslashreplace")
    with tag("div").classes("table"), tag("table"):
        table_head(("Field", "Value", "Broken rule"))
        with tag("tbody"):
            for name, value, broken in fields(payload, letter.reasons):
                with tag("tr").classes("broken" if broken else ""):
                    text("th", name).props("scope=row")
                    text("td", value).classes("value")
                    text("td", broken).classes("value")
    heading(3, "Payload")
    text("pre", pretty(payload)).props("tabindex=0")
    ui.link("Trace this letter", find.address(letter.dead_letter_id))


def _group_row(row: store.Group) -> tuple[Group, list[str]]:
    times = (row.first_received[:19], row.last_received[:19])
    return Group(row.by["reason"], row.by["field"], row.by["sender"]), [wording.count(row.letters), *times]


def _letter_button(row: dict[str, Any], show: Callable[[str], Any]) -> None:
    button = tag("button").props("type=button").classes("event critical")
    with button:
        text("span", str(row["event"] or "(no type)")).classes("type")
        text("span", str(row["imei"] or "(no IMEI)"))
        text("span", wording.moment(row["received_us"])).classes("quiet")
    button.on("click", lambda: show(str(row["letter"])))
