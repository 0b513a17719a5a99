"""The frame of every page: navigation, theme, and small parts that pages share.

Text from events goes into labels, which show it as text. No page uses an element that renders markup.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nicegui import context, ui
from nicegui.element import Element

STYLE = Path(__file__).with_name("style.css")
PAGES = (
    ("/", "Overview"),
    ("/map", "Map"),
    ("/find", "Find"),
    ("/dead-letters", "Dead letters"),
    ("/senders", "Senders"),
)
_THEME_COOKIE = "eventpush-theme"
_THEMES: dict[str, bool | None] = {"system": None, "light": False, "dark": True}
_YEAR_S = 365 * 86_400


@contextmanager
def frame(title: str, path: str) -> Iterator[Element]:
    """Build a page around its content; yield the element that holds it."""
    ui.page_title(f"{title} · eventpush")
    with ui.header(fixed=False).classes("bar"):
        ui.link("Skip to content", "#main").classes("skip")
        ui.label("eventpush").classes("brand")
        with tag("nav").props('aria-label="Pages"').classes("pages"):
            for target, name in PAGES:
                link = ui.link(name, target)
                if target == path:
                    link.props('aria-current="page"')
        _theme_button()
    with tag("div").props("id=main tabindex=-1").classes("content") as content:  # Quasar's page is the `main` around it
        heading(1, title)
        yield content


def tag(name: str) -> Element:
    """Return a plain HTML element."""
    return ui.element(name)


def text(name: str, content: str = "") -> ui.label:
    """Return a plain HTML element that shows text, never markup."""
    label = ui.label(content)
    label.tag = name
    return label


def heading(level: int, content: str) -> ui.label:
    """Return a heading."""
    return text(f"h{level}", content)


def definitions(pairs: Sequence[tuple[str, str]]) -> None:
    """Show labels and values as a definition list."""
    with tag("dl").classes("figures"):
        for label, value in pairs:
            with tag("div"):
                text("dt", label)
                text("dd", value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table of text; the first cell of a row is its heading."""
    with tag("table"):
        table_head(columns)
        with tag("tbody"):
            for first, *others in rows:
                with tag("tr"):
                    text("th", first).props("scope=row")
                    for cell in others:
                        text("td", cell)


def table_head(columns: Sequence[str]) -> None:
    """Show the headings of a table."""
    with tag("thead"), tag("tr"):
        for column in columns:
            text("th", column).props("scope=col")


def _theme_button() -> None:
    request = context.client.request
    theme = request.cookies.get(_THEME_COOKIE, "system") if request is not None else "system"
    theme = theme if theme in _THEMES else "system"
    mode = ui.dark_mode(_THEMES[theme])
    names = list(_THEMES)

    def change() -> None:
        nonlocal theme
        theme = names[(names.index(theme) + 1) % len(names)]
        mode.value = _THEMES[theme]
        button.set_text(f"Theme: {theme}")
        ui.run_javascript(f"document.cookie = '{_THEME_COOKIE}={theme}; path=/; max-age={_YEAR_S}; samesite=strict'")

    button = ui.button(f"Theme: {theme}", on_click=change).props("flat dense no-caps").classes("theme")
