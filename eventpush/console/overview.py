"""The page Overview: the flow as a picture with live rates, freshness and the account."""

import time

from nicegui import ui
from nicegui.element import Element

from eventpush.console import flow, wording
from eventpush.console.flow import Node, Stored
from eventpush.console.layout import heading, tag, text
from eventpush.console.polled import Reading
from eventpush.console.progress import Progress
from eventpush.console.sources import Account, Sources

_REFRESH_S = 1.0
_GRAPH_WIDTH, _GRAPH_HEIGHT = 120, 28
_DISCREPANCIES_SHOWN = 20


def build(sources: Sources) -> None:
    """Build the page; it refreshes itself every second."""
    view = _Overview(sources)
    ui.timer(_REFRESH_S, view.refresh)


class _Overview:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._status = tag("section").classes("status").props('role=status aria-label="State of the pipeline"')
        self._said: list[str] = []
        with tag("section").props('aria-label="Flow"'):
            self._flow = tag("ol").classes("flow")
        self._cards: dict[str, _Card] = {}
        with tag("div").classes("columns"):
            with tag("section").classes("panel"):
                heading(2, "Freshness")
                self._freshness = _Figures(("Oldest event that waits", "It arrived", "Complete through", "Behind by"))
                text("p", "Every event accepted before “complete through” is in ClickHouse, as the sink has proven.")
            self._account = _AccountPanel(sources)

    async def refresh(self) -> None:
        """Ask the sources and show what changed."""
        stages = await self._sources.stages.get()
        progress = await self._sources.progress.get()
        stored = await self._sources.stored.get()
        if stages.value is None:
            return
        now_us = time.time_ns() // 1_000
        nodes = flow.nodes(stages.value, progress, stored, now_us)
        for node in nodes:
            history = self._sources.monitor.remember(node.name, node.rate)
            if node.name not in self._cards:
                with self._flow:
                    self._cards[node.name] = _Card(node)
            self._cards[node.name].show(node, history)
        self._show_status(nodes, progress)
        self._show_freshness(progress, stored, now_us)
        await self._account.refresh()

    def _show_status(self, nodes: list[Node], progress: Reading[Progress]) -> None:
        found = flow.problems(nodes)
        behind = [node.title for node in nodes if node.state == flow.BEHIND]
        lines = found or ([f"Behind: {', '.join(behind)}"] if behind else ["Every stage is healthy."])
        if not found and progress.value is None:
            lines = ["Asking the stages …"]
        if lines == self._said:
            return
        self._said = lines
        self._status.clear()
        self._status.classes(remove="ok behind problem", add="problem" if found else "behind" if behind else "ok")
        with self._status:
            for line in lines:
                text("p", line)

    def _show_freshness(self, progress: Reading[Progress], stored: Reading[Stored], now_us: int) -> None:
        found = flow.freshness(progress.value, stored.value, now_us)
        idle = progress.value is not None and not progress.value.backlogs
        waiting = "nothing waits" if idle else wording.duration(found.oldest_s)
        through = wording.moment(found.complete_through_us)
        self._freshness.show([waiting, wording.moment(found.oldest_us), through, wording.duration(found.behind_s)])


class _Figures:
    """A definition list whose values change."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._values = []
        with tag("dl").classes("figures"):
            for label in labels:
                with tag("div"):
                    text("dt", label)
                    self._values.append(text("dd", wording.UNKNOWN))

    def show(self, values: list[str]) -> None:
        for label, value in zip(self._values, values, strict=True):
            label.set_text(value)


class _Card:
    """A node of the flow."""

    def __init__(self, node: Node) -> None:
        with tag("li").classes(f"node {node.name}") as self._element:
            with tag("div").classes("head"):
                heading(2, node.title)
                self._state = text("span").classes("state")
            with tag("p").classes("rate"):
                self._rate = text("span").classes("number")
                text("span", node.rate_label)
            self._graph = _Graph()
            self._figures: _Figures | None = None
            self._labels: tuple[str, ...] = ()
            self._place = tag("div")
        self._shown_state = ""

    def show(self, node: Node, history: list[float]) -> None:
        self._rate.set_text(wording.per_second(node.rate))
        self._graph.show(history)
        if node.state != self._shown_state:
            self._element.classes(remove=self._shown_state, add=node.state)
            self._shown_state = node.state
            self._state.set_text(flow.STATE_TEXT[node.state])
        labels = tuple(label for label, _ in node.figures)
        if self._figures is None or labels != self._labels:
            self._place.clear()
            with self._place:
                self._figures, self._labels = _Figures(labels), labels
        self._figures.show([value for _, value in node.figures])


class _Graph:
    """The last two minutes of a rate as a line; the number beside it says the same to a screen reader."""

    def __init__(self) -> None:
        with (
            tag("svg")
            .props(f'viewBox="0 0 {_GRAPH_WIDTH} {_GRAPH_HEIGHT}" preserveAspectRatio=none aria-hidden=true')
            .classes("graph")
        ):
            self._line: Element = tag("polyline")

    def show(self, history: list[float]) -> None:
        highest = max(history, default=0.0) or 1.0
        step = _GRAPH_HEIGHT - 2
        points = [
            f"{_GRAPH_WIDTH * at / max(1, len(history) - 1):.1f},{_GRAPH_HEIGHT - 1 - step * value / highest:.1f}"
            for at, value in enumerate(history)
        ]
        self._line.props["points"] = " ".join(points)
        self._line.update()


class _AccountPanel:
    """Whether every accepted event is accounted for, as `eventpush account` says."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        with tag("section").classes("panel account"):
            heading(2, "Account")
            self._summary = text("p", "Reconciling …").props("role=status")
            self._figures = _Figures(
                ("Accepted", "Unique", "Duplicates", "Dead letters", "Waiting for streams", "Waiting for the sink")
            )
            self._missing = tag("ul").classes("missing")
            ui.button("Reconcile now", on_click=sources.account.expire).props("outline no-caps dense")
        self._shown: Reading[Account] | None = None

    async def refresh(self) -> None:
        reading = await self._sources.account.get(wait_s=0)
        if reading == self._shown:
            return
        self._shown = reading
        self._missing.clear()
        if reading.value is None:
            self._summary.set_text(reading.problem or "Reconciling …")
            self._figures.show([wording.UNKNOWN] * 6)
            return
        account = reading.value
        again = " Reconciling again …" if reading.loading else ""
        self._summary.set_text(_summary(account) + again)
        total = account.total
        numbers = (account.accepted, total.unique, total.duplicate, total.dead_lettered)
        self._figures.show([wording.count(n) for n in (*numbers, account.in_flight.streams, account.in_flight.sink)])
        with self._missing:
            for found in account.discrepancies[:_DISCREPANCIES_SHOWN]:
                offsets = f"raw offsets {found.first} to {found.next - 1}"
                text("li", f"Partition {found.partition}, {offsets}: {found.events} {found.why}")


def _summary(account: Account) -> str:
    if not account.discrepancies:
        return f"Closed: all {wording.count(account.accepted)} accepted events are accounted for."
    return f"Not closed: {wording.count(len(account.discrepancies))} ranges of offsets do not reconcile."
