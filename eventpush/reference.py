"""The reference in `docs/`, written from the registries: `python -m eventpush.reference` renews it.

Settings, topics, commands, reason codes and metrics are documented where they are declared, and nowhere else; a test
fails when a page is not what `pages()` gives.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from eventpush.cli import SECTIONS, cli
from runtime import metrics, settings
from runtime.topics_admin import configuration
from schemas.reasons import DESCRIPTION
from schemas.topics import EVENT_PREFIX, FIXED, OTHER, all_topics, type_topic

DOCS = Path(__file__).parent.parent / "docs"

_WRITTEN = "<!-- Written by `python -m eventpush.reference`; change the source that it names, not this page. -->"
_SHOWN_WIDTH = 100


def pages() -> dict[str, str]:
    """Every page of the reference: file name and text."""
    return {
        "commands.md": _page("Commands", "`eventpush/commands/`", _commands()),
        "metrics.md": _page("Metrics", "`runtime/metrics.py`", _metrics()),
        "reasons.md": _page("Reason codes", "`schemas/reasons.py`", _reasons()),
        "settings.md": _page("Settings", "`runtime/settings.py`", _settings()),
        "topics.md": _page("Topics", "`schemas/topics.py` and `runtime/topics_admin.py`", _topics()),
    }


def write(directory: Path = DOCS) -> None:
    """Write the pages into a directory."""
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


def _page(title: str, source: str, body: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", _WRITTEN, "", f"Source: {source}.", "", *body, ""])


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "| " + " | ".join("---" for _ in header) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _settings() -> Iterator[str]:
    yield "All are environment variables, read once at start. A wrong or unknown one is refused with name and value."
    yield ""
    rows = settings.table()
    yield from _table(("variable", "default", "meaning"), ((_code(v), _code(d), text) for v, d, text in rows))


def _reasons() -> Iterator[str]:
    yield "Why an event is in the dead letters: `reasons[].code` there, and labels of the metrics."
    yield ""
    yield from _table(("code", "meaning"), ((_code(reason.value), text) for reason, text in DESCRIPTION.items()))


def _metrics() -> Iterator[str]:
    yield "Each process shows its own on `/metrics` of its metrics port."
    yield ""
    rows = metrics.table()
    yield from _table(("metric", "kind", "labels", "meaning"), ((_code(n), k, labels, m) for n, k, labels, m in rows))


def _topics() -> Iterator[str]:
    defaults = settings.load({})
    yield "`eventpush topics` creates them. All have `EVENTPUSH_TOPIC_PARTITIONS` partitions, and what comes of a raw"
    yield "record goes to the partition number that it came from, so a device's events stay in order on every topic."
    yield "Further types get their topic with their first event, up to `EVENTPUSH_EVENT_TOPICS_MAX`; then they share"
    yield f"`{OTHER}`."
    yield ""
    yield from _table(
        ("topic", "carries", "key", "written by", "read by"),
        (
            (_code(t.name), t.description, t.key or "-", ", ".join(t.producers), ", ".join(t.consumers))
            for t in all_topics()
        ),
    )
    yield ""
    yield "Configuration at the default settings:"
    yield ""
    for topic in (*FIXED, type_topic(f"{EVENT_PREFIX}<type>.v1")):
        config = ", ".join(f"`{key}={value}`" for key, value in sorted(configuration(topic, defaults).items()))
        yield f"- `{topic.name}`: {config}"


def _commands() -> Iterator[str]:
    yield from _help(cli, "eventpush")
    for commands in SECTIONS.values():
        for name in commands:
            command = cli.get_command(click.Context(cli), name)
            assert command is not None  # noqa: S101 - it is in the registry
            yield from _help(command, f"eventpush {name}")
            for sub_name, sub in sorted(getattr(command, "commands", {}).items()):
                yield from _help(sub, f"eventpush {name} {sub_name}")


def _help(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=_SHOWN_WIDTH, max_content_width=_SHOWN_WIDTH)
    context.help_option_names = ["-h", "--help"]
    yield from (f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", "")


if __name__ == "__main__":
    write()
