"""The page Senders: what each sender sent, and what was wrong with it."""

from datetime import UTC, datetime

from nicegui import ui

from eventpush.console import wording
from eventpush.console.layout import table, tag, text
from eventpush.console.sender_counts import Sender, senders
from eventpush.console.sources import Sources

NOT_NAMED = "(not named)"
_REFRESH_S = 5.0
_COLUMNS = ("Sender", "Accepted", "Dead letters", "With warnings", "Last seen", "Refused since start")


def build(sources: Sources) -> None:
    """Build the page; it refreshes itself."""
    view = _Senders(sources)
    ui.timer(_REFRESH_S, view.refresh)


def cells(sender: Sender) -> list[str]:
    """Return a row as text. Pure."""
    return [
        sender.name or NOT_NAMED,
        wording.count(sender.accepted),
        wording.count(sender.dead_letters),
        wording.count(sender.warned),
        wording.moment(sender.last_seen_us),
        wording.count(sender.refused),
    ]


class _Senders:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._status = text("p", "Asking ClickHouse …").props("role=status").classes("quiet")
        self._table = tag("div").classes("panel table")
        self._shown: list[Sender] | None = None

    async def refresh(self) -> None:
        """Ask ClickHouse and the ingress, and show what changed."""
        counted = await self._sources.senders.get()
        stages = await self._sources.stages.get()
        if counted.value is None:
            self._status.set_text(counted.problem or "Asking ClickHouse …")
            return
        now = datetime.now(UTC)
        self._status.set_text(f"The last 24 hours, as of {now:%H:%M:%S} UTC. Accepted includes dead letters.")
        found = senders(counted.value, (stages.value or {}).get("ingress"))
        if found == self._shown:
            return
        self._shown = found
        self._table.clear()
        with self._table:
            if found:
                table(_COLUMNS, [cells(sender) for sender in found])
            else:
                text("p", "Nobody has sent anything in this time.")
