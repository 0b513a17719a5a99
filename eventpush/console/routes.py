"""The pages by their addresses."""

from nicegui import ui

from eventpush.console import find, overview
from eventpush.console.layout import STYLE, frame
from eventpush.console.sources import Sources

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b6e8a"/>'
    '<path d="M5 17h6l3-9 5 17 3-8h5" fill="none" stroke="#fff" stroke-width="2.6" stroke-linejoin="round"/></svg>'
)


def add(sources: Sources) -> None:
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
