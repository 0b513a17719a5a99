"""The page Dead letters: counted by rule, field and sender; each with its payload; repairs tried without sending."""

from collections.abc import Mapping
from typing import Any

import msgspec
from nicegui import ui

from eventpush.console import find, repairs, wording
from eventpush.console.layout import definitions, heading, tag, text
from eventpush.console.letter_payload import fields, pretty
from eventpush.console.repair_form import RepairForm
from eventpush.console.repairs import Group
from eventpush.console.senders import NOT_NAMED
from eventpush.console.sessions import Sessions
from eventpush.console.sources import Sources
from runtime.platform.errors import OperatorError
from schemas.dead_letter import Violation

_REFRESH_S = 5.0
_PERIODS = {"1 HOUR": "last hour", "1 DAY": "last 24 hours", "7 DAY": "last 7 days", "30 DAY": "last 30 days"}

#: An event that was accepted later resolves a letter.
_OPEN = "resolved_by_event_id IS NULL AND " if repairs.AVAILABLE else ""
_GROUPS = """
SELECT reason.code AS code, reason.field AS field, ifNull(sender, '') AS sender, count() AS letters,
    toUnixTimestamp64Micro(min(received_at)) AS first_us, toUnixTimestamp64Micro(max(received_at)) AS last_us
FROM (SELECT arrayJoin(reasons) AS reason, sender, received_at FROM telematics.dead_letters
    WHERE %s received_at >= now() - INTERVAL %s)
GROUP BY ALL ORDER BY letters DESC LIMIT 200
"""
_LETTERS = """
SELECT toString(dead_letter_id) AS id, toUnixTimestamp64Micro(received_at) AS received_us, event, imei, sender,
    receipt_id, stage, toJSONString(reasons) AS reasons, payload, payload_encoding
FROM telematics.dead_letters
WHERE %s received_at >= now() - INTERVAL %s AND ifNull(sender, '') = {sender:String}
    AND arrayExists(r -> r.code = {code:String} AND r.field = {field:String}, reasons)
ORDER BY received_at DESC LIMIT 100
"""

_reasons = msgspec.json.Decoder(list[Violation]).decode


def build(sources: Sources, sessions: Sessions) -> None:
    """Build the page; the groups refresh themselves."""
    view = _DeadLetters(sources, sessions)
    ui.timer(_REFRESH_S, view.refresh)


class _DeadLetters:
    def __init__(self, sources: Sources, sessions: Sessions) -> None:
        self._sources, self._sessions = sources, sessions
        self._period = ui.select(_PERIODS, value="1 DAY", label="Received in the", on_change=self.refresh)
        self._period.props("outlined dense").classes("filter")
        self._status = text("p", "Asking ClickHouse …").props("role=status").classes("quiet")
        self._groups = tag("div").classes("panel table")
        self._letters = tag("section").props("aria-label=Letters")
        self._shown: object = None
        self._dialog = ui.dialog().props("full-width")

    async def refresh(self) -> None:
        """Count the groups again."""
        period = str(self._period.value)
        try:
            rows = await self._sources.clickhouse.rows(_GROUPS % (_OPEN, period))
        except OperatorError as problem:
            self._status.set_text(str(problem))
            self._shown = None
            return
        state = (period, rows)
        if state == self._shown:
            return
        self._shown = state
        several, none = "A letter that breaks several rules is in several groups.", f"None in the {_PERIODS[period]}."
        self._status.set_text(several if rows else none)
        self._groups.clear()
        with self._groups:
            if rows:
                self._show_groups(rows)

    def _show_groups(self, rows: list[dict[str, Any]]) -> None:
        with tag("table"):
            with tag("thead"), tag("tr"):
                for column in ("Rule", "Field", "Sender", "Letters", "First", "Last"):
                    text("th", column).props("scope=col")
            with tag("tbody"):
                for row in rows:
                    group = Group(str(row["code"]), str(row["field"]), str(row["sender"]))
                    with tag("tr"):
                        with tag("th").props("scope=row"):
                            button = text("button", group.reason).props("type=button").classes("link")
                            button.on("click", lambda group=group: self._show_letters(group))
                        for cell in (
                            group.field or "(payload)",
                            group.sender or NOT_NAMED,
                            wording.count(row["letters"]),
                            wording.moment(row["first_us"]),
                            wording.moment(row["last_us"]),
                        ):
                            text("td", cell)

    async def _show_letters(self, group: Group) -> None:
        named = {"code": group.reason, "field": group.field, "sender": group.sender}
        self._letters.clear()
        try:
            rows = await self._sources.clickhouse.rows(_LETTERS % (_OPEN, self._period.value), named)
        except OperatorError as problem:
            self._status.set_text(str(problem))
            return
        with self._letters, tag("div").classes("panel"):
            where = f"{group.field or 'payload'} {group.reason}"
            heading(2, f"{where}, {group.sender or NOT_NAMED}: the newest {len(rows)}").props("tabindex=-1")
            if repairs.AVAILABLE:
                repair = ui.button("Repair this group …", on_click=lambda: self._open_repair(group, None))
                repair.props("outline no-caps")
            with tag("ul").classes("plain"):
                for row in rows:
                    with tag("li"):
                        _letter_button(row, self._show_letter)

    def _show_letter(self, row: Mapping[str, Any]) -> None:
        reasons, payload = _reasons(row["reasons"]), str(row["payload"])
        self._dialog.clear()
        with self._dialog, tag("section").classes("panel dialog wide").props('aria-label="Dead letter"'):
            heading(2, f"Dead letter {row['id']}")
            named = (
                ("Received", wording.moment(row["received_us"])),
                ("Sender", row["sender"] or NOT_NAMED),
                ("Receipt", row["receipt_id"]),
                ("Refused by", row["stage"]),
            )
            definitions([(label, str(value)) for label, value in named if value])
            with tag("div").classes("table"), tag("table"):
                with tag("thead"), tag("tr"):
                    for column in ("Field", "Value", "Broken rule"):
                        text("th", column).props("scope=col")
                with tag("tbody"):
                    for name, value, broken in fields(payload, reasons):
                        with tag("tr").classes("broken" if broken else ""):
                            text("th", name).props("scope=row")
                            text("td", value).classes("value")
                            text("td", broken).classes("value")
            heading(3, "Payload" if row["payload_encoding"] == "utf-8" else f"Payload, {row['payload_encoding']}")
            text("pre", pretty(payload)).props("tabindex=0")
            with tag("p"):
                ui.link("Trace this letter", find.address(str(row["id"])))
            with tag("div").classes("buttons"):
                if repairs.AVAILABLE and row["stage"] == "streams":
                    ui.button("Repair …", on_click=lambda: self._open_repair(None, str(row["id"]))).props(
                        "unelevated no-caps"
                    )
                ui.button("Close", on_click=self._dialog.close).props("flat no-caps autofocus")
        self._dialog.open()

    def _open_repair(self, group: Group | None, letter_id: str | None) -> None:
        self._dialog.clear()
        with self._dialog:
            RepairForm(repairs.selection(group, letter_id), self._sessions, self._dialog)
        self._dialog.open()


def _letter_button(row: Mapping[str, Any], show: Any) -> None:
    button = tag("button").props("type=button").classes("event critical")
    with button:
        text("span", str(row["event"] or "(no type)")).classes("type")
        text("span", str(row["imei"] or "(no IMEI)"))
        text("span", wording.moment(row["received_us"])).classes("quiet")
    button.on("click", lambda: show(row))
