"""The pages by their addresses."""

from fastapi import Response
from nicegui import app, ui

from eventpush.console import dead_letters, find, live_map, overview, senders
from eventpush.console.layout import STYLE, frame
from eventpush.console.sessions import Sessions
from eventpush.console.sources import Sources

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b6e8a"/>'
    '<path d="M5 17h6l3-9 5 17 3-8h5" fill="none" stroke="#fff" stroke-width="2.6" stroke-linejoin="round"/></svg>'
)


def add(sources: Sources, sessions: Sessions) -> None:
    """Register every page."""
    ui.add_css(STYLE, shared=True)

    @ui.page("/")
    def _overview() -> None:
        with frame("Overview", "/"):
            overview.build(sources)

    @ui.page("/find")
    def _find(q: str = "", around: str = "") -> None:
        with frame("Find", "/find"):
            find.build(sources, q, around)

    @ui.page("/map")
    def _map() -> None:
        with frame("Map", "/map"):
            live_map.build(sources)

    @app.get(live_map.OUTLINES)
    async def _outlines() -> Response:
        made = await sources.outlines.get()
        return Response(made, 200 if made else 503, {"cache-control": "private, max-age=86400"}, "application/json")

    @ui.page("/dead-letters")
    def _dead_letters() -> None:
        with frame("Dead letters", "/dead-letters"):
            dead_letters.build(sources, sessions)

    @ui.page("/senders")
    def _senders() -> None:
        with frame("Senders", "/senders"):
            senders.build(sources)
