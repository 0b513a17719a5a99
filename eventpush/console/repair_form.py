"""The form that tries a repair on dead letters, and replays them with the operator's token."""

from typing import Any

import msgspec
from nicegui import ui

from eventpush.console import repairs
from eventpush.console.layout import heading, tag, text
from eventpush.console.letter_payload import pretty
from eventpush.console.repairs import DryRun, Repair
from eventpush.console.sessions import Sessions
from runtime.platform.errors import OperatorError

_PREVIEWS_SHOWN = 5
_REPAIRS = {
    "cast": "Cast field to its type",
    "set": "Set field to value",
    "rename": "Rename field to",
    "replace": "Replace regular expression by text",
}


class RepairForm:
    """Tries one repair as a dry run; replays with the operator's token."""

    def __init__(self, chosen: list[str], sessions: Sessions, dialog: ui.dialog) -> None:
        self._chosen, self._sessions = chosen, sessions
        with tag("section").classes("panel dialog wide").props("aria-label=Repair"):
            heading(2, f"Repair {' '.join(chosen)}")
            self._kind = ui.select(_REPAIRS, value="cast", label="Repair").props("outlined dense").classes("wide")
            self._subject = ui.input("Field or regular expression").props("outlined dense autofocus").classes("wide")
            self._value = ui.input("Value, new name or text").props("outlined dense").classes("wide")
            with tag("div").classes("buttons"):
                ui.button("Try it: send nothing", on_click=self._try).props("unelevated no-caps")
                ui.button("Close", on_click=dialog.close).props("flat no-caps")
            self._status = text("p").props("role=status")
            self._results = tag("div").classes("results")
            with tag("form").classes("search").on("submit.prevent", self._replay):
                self._token = ui.input("The operator's token", password=True).props("outlined dense")
                self._button = ui.button("Replay").props("type=submit outline no-caps")
            if not sessions.has_token:
                self._button.disable()
                self._token.disable()
                text("p", "To replay from here, start the console with EVENTPUSH_CONSOLE_TOKEN.")

    def _options(self) -> list[str]:
        kind, subject, value = str(self._kind.value), self._subject.value or "", self._value.value or ""
        return repairs.options([Repair(kind, subject, value)])

    async def _try(self) -> None:
        self._results.clear()
        outcome = await self._run(repairs.dry_run, "Trying …")
        if outcome is None:
            return
        self._status.set_text(
            ", ".join(f"{count} {label}" for label, count in outcome.results.items()) or "nothing found"
        )
        with self._results:
            _show_previews(outcome)

    async def _replay(self) -> None:
        if not self._sessions.is_token(self._token.value or ""):
            self._status.set_text("That is not the operator's token.")
            return
        self._token.set_value("")
        outcome = await self._run(repairs.replay, "Replaying …")
        if outcome is not None:
            counts = msgspec.structs.asdict(outcome.counts)
            counted = ", ".join(f"{count} {label.replace('_', ' ')}" for label, count in counts.items())
            self._status.set_text(f"Replay {outcome.replay_id}: {counted}")

    async def _run(self, action: Any, doing: str) -> Any:
        try:
            repair = self._options()
            self._status.set_text(doing)
            return await action(self._chosen, repair)
        except (OperatorError, ValueError) as problem:
            self._status.set_text(str(problem))
            return None


def _show_previews(outcome: DryRun) -> None:
    for preview in outcome.dead_letters[:_PREVIEWS_SHOWN]:
        with tag("article").classes("preview"):
            heading(3, preview.dead_letter_id)
            if preview.left_out:
                text("p", f"Left out: {preview.left_out}")
                continue
            broken = preview.rules.violations if preview.rules else []
            text("p", "Still breaks a rule: " + "; ".join(f"{v.field or 'payload'} {v.code}" for v in broken)
                 if broken else "Keeps every rule.")  # fmt: skip
            with tag("div").classes("columns"):
                for title, payload in (("Before", preview.before), ("After", preview.after or "")):
                    with tag("div"):
                        text("p", title)
                        text("pre", pretty(payload)).props("tabindex=0")
