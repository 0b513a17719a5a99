"""Fill the generated parts of the documents from the registries: `make docs`.

A document holds a marked pair of comments; what lies between them is replaced, the rest is written by hand:

    <!-- generated: settings -->
    <!-- end generated -->

`GENERATED` maps each name to the function that yields its lines. A new table is one entry there and one pair of markers
in a page. A test fails when a page is out of date. (cog does the same with Python code inside the documents; here a
document holds names only, and this module is type-checked like any other.)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click

from eventpush.cli import SECTIONS, cli
from eventpush.contract.acls import SERVICES, of_a_service, of_a_team
from eventpush.sizing import costs as sizing
from eventpush.sizing.layout import Load, layout
from eventpush.sizing.text import cost_text
from eventpush.sizing.text import rows as layout_rows
from ingress.errors import STATUS
from runtime.kafka.topic_admin import configuration
from runtime.platform import metrics, settings
from schemas.event import SENT_FIELDS
from schemas.event_types import TYPES, UNKNOWN
from schemas.event_warnings import WARNINGS
from schemas.fields import SentField
from schemas.headers import headers_of
from schemas.rules import DESCRIPTION
from schemas.tables import DEAD_LETTERS, EVENTS, INSERTED_AT, Table
from schemas.topics import EVENT_PREFIX, EVENTS_TOPIC, FIXED, Topic, all_topics, of_type, type_topic
from schemas.views import VIEWS

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(
    r"^(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?^(?P<end><!-- end generated -->)$", re.MULTILINE | re.DOTALL
)
_MARKER = re.compile(r"^<!-- (?:generated: .*|end generated) -->$", re.MULTILINE)
_HELP_WIDTH = 100


def documents(root: Path = ROOT) -> list[Path]:
    """Return every Markdown page of the project that may hold generated parts."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("deploy/**/*.md")])


def names(text: str) -> list[str]:
    """Return the names of a document's generated parts, in order."""
    return [match["name"] for match in _BLOCK.finditer(text)]


def fill(text: str) -> str:
    """Return the document with its generated parts renewed; everything else stays byte for byte.

    Raise ValueError for a marker without its partner and for a name that `GENERATED` does not have.
    """
    if len(_MARKER.findall(text)) != 2 * len(names(text)):
        raise ValueError(
            "each `<!-- generated: NAME -->` needs an `<!-- end generated -->` after it, and no other marker"
        )
    unknown = sorted(set(names(text)) - set(GENERATED))
    if unknown:
        raise ValueError(f"unknown generated part {unknown[0]!r}: the known ones are {', '.join(sorted(GENERATED))}")
    return _BLOCK.sub(lambda block: block["begin"] + _rendered(block["name"]) + block["end"], text)


def write(root: Path = ROOT) -> list[Path]:
    """Renew all documents and return those that changed.

    Raise ClickException, which names the page, when its markers are wrong.
    """
    changed = []
    for page in documents(root):
        text = page.read_text(encoding="utf-8")
        try:
            filled = fill(text)
        except ValueError as error:
            raise click.ClickException(f"{page.relative_to(root)}: {error}") from None
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            changed.append(page)
    return changed


def _rendered(name: str) -> str:
    """Return the part's Markdown with a blank line before and after, as Markdown wants around tables."""
    return "\n" + "\n".join(GENERATED[name]()).strip("\n") + "\n\n"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "| " + " | ".join("---" for _ in header) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _columns(table: Table) -> Callable[[], Iterator[str]]:
    return lambda: _table(
        ("column", "type", "meaning"),
        ((_code(c.name), _code(c.type), c.comment) for c in (*table.columns, INSERTED_AT, *table.derived)),
    )


def _sizes() -> Iterator[str]:
    """Show what three loads need: 100 seconds between a device's events, 24 hours of window, 40 types."""
    costs = sizing.costs(sizing.read())
    loads = [Load(rate, rate * 100, 86_400, 40) for rate in (1_000, 20_000, 200_000)]
    columns = [layout_rows(load, layout(load, costs)) for load in loads]
    names = [name or "" for name, _ in columns[0]]
    yield from _table(
        ("", *(f"{load.rate:,} events/s, {load.devices:,} devices" for load in loads)),
        ((names[at], *(column[at][1] for column in columns)) for at in range(len(names))),
    )
    yield from ("", "Costs that this is computed from:", "")
    yield from (f"- {process}: {cost_text(cost)}" for process, cost in costs.of.items())
    yield from (f"- not in the benchmark: {missing}" for missing in costs.missing)


def _views() -> Iterator[str]:
    for view in VIEWS:
        arguments = ", ".join(f"{name} = …" for name in view.parameters)
        heading = f"{view.full_name}({arguments})" if arguments else view.full_name
        yield from (f"### `{heading}`", "", view.question, "")
        for name, (kind, text) in view.parameters.items():
            yield f"- parameter `{name}` ({_code(kind)}): {text}"
        if view.parameters:
            yield ""
        yield from _table(
            ("column", "type", "meaning"),
            ((_code(name), _code(kind), text) for name, (kind, text) in view.columns.items()),
        )
        yield ""


def _settings() -> Iterator[str]:
    rows = settings.table()
    yield from _table(("variable", "default", "meaning"), ((_code(v), _code(d), text) for v, d, text in rows))


def _reasons() -> Iterator[str]:
    yield from _table(("code", "meaning"), ((_code(reason.value), text) for reason, text in DESCRIPTION.items()))


def _sent_fields() -> Iterator[str]:
    yield from _table(
        ("field", "type", "meaning", "must be"),
        ((_code(f.name), _json_type(f), f.description, "; ".join(_expectations(f))) for f in SENT_FIELDS.values()),
    )


def _json_type(field: SentField) -> str:
    name = "string" if field.type is str else "integer"
    return f"{name}, null or missing" if field.nullable else name


def _expectations(field: SentField) -> Iterator[str]:
    yield from (rule.expected for rule in field.rules)
    if field.format is not None:
        yield field.format.expected
        yield from (rule.expected for rule in field.format.value_rules)


def _event_types() -> Iterator[str]:
    yield from _table(
        ("type", "category", "severity", "meaning", "`Changes`"),
        (
            (_code(name), kind.category, kind.severity, kind.description, kind.changes)
            for name, kind in (*TYPES.items(), ("any other", UNKNOWN))
        ),
    )


def _warnings() -> Iterator[str]:
    yield from _table(("code", "meaning"), ((_code(warning.code), warning.description) for warning in WARNINGS))


def _refusals() -> Iterator[str]:
    yield from _table(
        ("status", "code", "meaning"),
        ((str(status.value), _code(reason.value), text) for reason, (status, text) in STATUS.items()),
    )


def _metrics() -> Iterator[str]:
    rows = metrics.table()
    yield from _table(("metric", "kind", "labels", "meaning"), ((_code(n), k, labels, m) for n, k, labels, m in rows))


def _topics() -> Iterator[str]:
    yield from _table(
        ("topic", "carries", "key", "written by", "read by"),
        (
            (_page(t) if t in FIXED else _code(t.name), t.description, t.key or "-", ", ".join(t.producers),
             ", ".join(t.consumers))
            for t in (*FIXED, type_topic(f"{EVENT_PREFIX}<type>.v1"))
        ),
    )  # fmt: skip


def _page(topic: Topic) -> str:
    return f"[{_code(topic.name)}](topics/{topic.name}.md)"


def _type_topics() -> Iterator[str]:
    fixed = {topic.name for topic in FIXED}
    yield from (f"- {_page(topic)}" for topic in all_topics() if topic.name not in fixed)


def _topic_configuration() -> Iterator[str]:
    defaults = settings.load({})
    for topic in (*FIXED, type_topic(f"{EVENT_PREFIX}<type>.v1")):
        config = ", ".join(f"`{key}={value}`" for key, value in sorted(configuration(topic, defaults).items()))
        yield f"- `{topic.name}`: {config}"


def _event_headers() -> Iterator[str]:
    rows = ((_code(h.name), h.description, _code(h.text) if h.text else "") for h in headers_of(EVENTS_TOPIC.name))
    yield from _table(("header", "meaning", "always"), rows)


def _acls() -> Iterator[str]:
    topic = type_topic(of_type("sos"))
    commands = [right.command("User:dispatch", "broker:9093") for right in of_a_team(topic, "dispatch")]
    yield from ("```sh", *commands, "```")


def _service_acls() -> Iterator[str]:
    yield "```sh"
    for service in SERVICES:
        for right in of_a_service(service, settings.load({})):
            yield right.command(f"User:{service}", "broker:9093")
    yield "```"


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
    context = click.Context(command, info_name=name, terminal_width=_HELP_WIDTH, max_content_width=_HELP_WIDTH)
    context.help_option_names = ["-h", "--help"]
    yield from (f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", "")


#: Each generated part's name and the function that yields its lines.
GENERATED: Mapping[str, Callable[[], Iterable[str]]] = {
    "sizes": _sizes,
    "acls": _acls,
    "commands": _commands,
    "dead-letters-columns": _columns(DEAD_LETTERS),
    "event-headers": _event_headers,
    "event-types": _event_types,
    "events-columns": _columns(EVENTS),
    "metrics": _metrics,
    "reasons": _reasons,
    "refusals": _refusals,
    "sent-fields": _sent_fields,
    "service-acls": _service_acls,
    "settings": _settings,
    "topic-configuration": _topic_configuration,
    "topics": _topics,
    "type-topics": _type_topics,
    "views": _views,
    "warnings": _warnings,
}


@click.command()
def main() -> None:
    """Renew the generated parts of all documents."""
    for page in write():
        click.echo(f"renewed {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
