"""The documents match the code: commands, settings, targets, links, tables and examples."""

import asyncio
import json
import os
import re
import shlex
from pathlib import Path

import click
import clickhouse_connect
import msgspec
import pytest

from eventpush import record_text
from eventpush.cli import SUMMARIES, cli
from eventpush.reference import GENERATED, documents, names
from ingress.errors import STATUS
from ingress.http.responses import ACCEPTED_BODY
from runtime.platform import settings
from schemas import times
from schemas.event import Event
from schemas.validation import ClockLimits, validate
from sinks.migrator import migrate
from tests.unit.ingress_support import running

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
DOCUMENTS = documents()
#: A pattern of names, and what running programs make.
NO_FILES = {"schemas/migrations/NNNN_name.sql", ".eventpush/", ".containers/", "history/"}
_SAMPLE = (ROOT / "schemas" / "examples" / "overspeed.json").read_bytes()


def blocks(language: str, text: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks_of_all(language: str) -> list[str]:
    """Return the fenced blocks of a language in all documents."""
    return [block for document in DOCUMENTS for block in blocks(language, document.read_text())]


def commands_in(text: str) -> list[list[str]]:
    """Each `eventpush …` of the shell blocks, as words."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    found = [re.search(r"(?:^|\s|/)eventpush ([a-z-].*)", line) for line in lines if not line.startswith("#")]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_named_exist(document: Path) -> None:
    """In shell blocks with all of their options, and in running text by name."""
    text = document.read_text()
    for words in commands_in(text):
        command: click.Command = cli
        context = click.Context(
            cli, **cli.context_settings
        )  # click caches a command's help option: name it as the CLI does
        for word in words:
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            found = command.get_command(context, word)
            assert found is not None, words
            command = found
        options = {option for parameter in command.get_params(context) for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
    assert set(re.findall(r"`eventpush ([a-z-]+)", text)) <= set(SUMMARIES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_that_are_named_exist(document: Path) -> None:
    """Every EVENTPUSH_ variable is a setting."""
    known = {settings.variable(field) for field in settings.Settings.model_fields}
    assert set(re.findall(r"\bEVENTPUSH_[A-Z0-9_]*[A-Z0-9]", document.read_text())) <= known


def links_in(document: Path) -> list[tuple[Path, str]]:
    """Return each local link outside of fenced blocks: the file it names and the anchor, which may be empty."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]
    parts = [target.partition("#") for target in targets]
    return [((document.parent / name).resolve() if name else document, anchor) for name, _, anchor in parts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    """Every file and every heading that a document links to exists."""
    for file, anchor in links_in(document):
        assert file.exists(), f"{document.name}: {file}"
        if anchor:
            assert anchor in anchors(file), f"{document.name}: {file.name}#{anchor}"


def anchors(document: Path) -> set[str]:
    """Return the headings of a document as links name them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("start", [README, DOCS / "README.md"], ids=["README", "docs index"])
def test_every_page_is_reachable(start: Path) -> None:
    """From the README, and from the index, links lead to every page."""
    reached, to_visit = set[Path](), [start]
    while to_visit:
        page = to_visit.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            to_visit += [file for file, _ in links_in(page)]
    assert set(DOCUMENTS) - reached == set()


def test_the_readme_is_short() -> None:
    """The README has at most 150 lines; everything else is in `docs/`."""
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(document: Path) -> None:
    """`make …` in text and blocks is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(document: Path) -> None:
    """A claim's test is a function of the file that it is linked to."""
    text = document.read_text()
    for name, file in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", text):
        assert re.search(rf"def {name}\(", (document.parent / file).read_text()), f"{name} in {file}"


def paths() -> set[str]:
    """Return every file and folder of the project, by its path and by each end of it."""
    found = set[str]()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") or name == ".github"]
        for name in [*folders, *files]:
            parts = (Path(folder) / name).relative_to(ROOT).parts
            found |= {"/".join(parts[start:]) for start in range(len(parts))}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    """A module, migration or folder in backticks is in the tree, by its path or by the end of it."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    if document.name == "review-76d5dbb.md":
        text = "\n".join(line.rpartition(" | ")[2] for line in text.splitlines())  # only the answers are of today
    if document.name == "CHANGELOG.md":
        text = text.partition("\n## ")[2].partition("\n## ")[0]  # what an old release names may be gone
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+(?:\.py|\.sql|/))`", text)
    assert {name for name in named if name.rstrip("/") not in paths()} <= NO_FILES


def test_every_threat_has_a_measure_and_a_test_that_exists() -> None:
    """Each line of the table of threats names tests, and each name is that of a test of this project."""
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    table = (DOCS / "security.md").read_text().split("\n## Threats")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 20
    for threat, measure, named in rows:
        names = re.findall(r"`(?:tests/\w+/)?(test_\w+(?:\.py)?)`", named)
        assert names, threat
        assert measure, threat
        for name in names:
            exists = any((ROOT / "tests").rglob(name)) if name.endswith(".py") else f"def {name}(" in tests
            assert exists, f"{threat}: {name}"


def test_every_guarantee_names_a_test() -> None:
    """Each line of the table of guarantees links to at least one."""
    section = (DOCS / "guarantees.md").read_text().split("\n# ")[0].split("\n## ")[0]
    claims = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(claims) >= 10
    assert all(re.search(r"\[`test_\w+(\.py)?`\]\(\.\./tests/", claim) for claim in claims)


def test_every_generated_table_is_shown() -> None:
    """Every table that the code can generate is in a document, and exactly one."""
    assert sorted(name for document in DOCUMENTS for name in names(document.read_text())) == sorted(GENERATED)


def test_the_statuses_are_those_of_the_ingress() -> None:
    """Every status that the ingress answers with is in the table, and no other."""
    section = (DOCS / "api.md").read_text().split("\n## Status codes\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| ((?:\d{3}(?:, )?)+) \|", section, re.MULTILINE)
    documented = {int(status) for row in rows for status in row.split(", ")}
    assert documented == {200} | {status.value for status, _ in STATUS.values()}


def test_the_answer_is_as_shown() -> None:
    """The success body in the README and in the API's page is the one that the ingress sends."""
    for document in (README, DOCS / "api.md"):
        assert json.loads(blocks("json", document.read_text())[0]) == json.loads(ACCEPTED_BODY)


def test_the_event_is_as_shown() -> None:
    """The event on the topics has the fields and the identity that the code gives it."""
    [shown] = [json.loads(block) for block in blocks("json", (DOCS / "events.md").read_text())]
    event = msgspec.json.decode(json.dumps(shown), type=Event)
    assert set(shown) == set(Event.__struct_fields__)
    sent = validate(_SAMPLE, 2**60, ClockLimits(0, 0))
    assert not isinstance(sent, list)
    assert event.event_id == sent.event_id
    assert event.device_time == times.rfc3339(sent.device_us)


def test_the_tail_is_as_shown() -> None:
    """`eventpush tail` prints the sample event as the README shows it, which is cut at the ellipsis."""
    event = json.loads(blocks("json", (DOCS / "events.md").read_text())[0]) | {"vehicle": "", "fleet": "", "driver": ""}
    [console] = [block for block in blocks("console", README.read_text()) if "eventpush tail" in block]
    shown, _, _ = console.splitlines()[-1].partition("…")
    assert record_text.line(json.dumps(event).encode()).startswith(shown)
    assert len(shown) > 80


def test_json_is_json() -> None:
    """Every JSON block of every document parses."""
    assert len([json.loads(block) for block in blocks_of_all("json")]) >= 4


def requests_in_the_documents() -> list[tuple[str, int]]:
    """Each curl in a shell block that goes to the API, and the status that the comment before it names (none: 200)."""
    found = []
    for block in blocks_of_all("sh"):
        for part in re.split(r"\n(?=# )", block):
            match = re.match(r"# .*: (\d{3})\n", part)
            if "/api/events" in part and "curl" in part:
                found.append((part, int(match[1]) if match else 200))
    return found


@pytest.mark.parametrize(("script", "status"), requests_in_the_documents(), ids=lambda value: str(value)[:30])
async def test_the_requests_are_answered_as_shown(script: str, status: int) -> None:
    """Run by a shell with curl, as a reader would, against the real ingress with a publisher in memory."""
    async with running(ingress_tokens=None) as ingress:
        script = script.replace("127.0.0.1:8080", f"127.0.0.1:{ingress.port}")
        script = re.sub(r"\bcurl (-i )?", "curl -s -o /dev/null -w '%{http_code}' ", script)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=ROOT, env=os.environ | {"TOKEN": "x"},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        answered, _ = await shell.communicate()
        assert int(answered) == status
        assert bool(ingress.publisher.records) == (status == 200)


def test_the_documents_show_every_kind_of_request() -> None:
    """The sample event, several at once, and what is refused."""
    assert {200, 400, 415, 422} <= {status for _, status in requests_in_the_documents()}
    assert len(requests_in_the_documents()) >= 6
    sample = next(script for script, _ in requests_in_the_documents() if "-d '{" in script)
    assert json.loads(_SAMPLE) == json.loads(sample[sample.index("{") : sample.rindex("}") + 1])


async def test_the_signed_transcript_is_answered_as_shown(tmp_path: Path) -> None:
    """Each curl of the transcript with a token and a signature, run by a shell in order, gets the answer below it."""
    section = (DOCS / "first-event.md").read_text().split("\n## With a token and a signature\n")[1]
    sent = [block for block in blocks("console", section) if "/api/events" in block]
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", "".join(sent), re.MULTILINE)
    answers = [json.loads(line) for line in "".join(sent).splitlines() if line.startswith("{")]
    assert len(answers) == sum(command.startswith("curl") for command in commands) >= 5
    (tmp_path / "event.json").write_bytes(_SAMPLE)
    async with running(
        ingress_tokens=f"fleet-a {'t' * 32}", ingress_verifier="hmac-sha256",
        ingress_signature_secrets="a-long-shared-secret",
    ) as ingress:  # fmt: skip
        script = "\n".join(commands).replace("127.0.0.1:8080", f"127.0.0.1:{ingress.port}")
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", re.sub(r"\bcurl (-i )?", "curl -s -w '\\n' ", script), cwd=tmp_path,
            env=os.environ | {"TOKEN": "t" * 32}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await shell.communicate()
        assert [json.loads(line) for line in output.splitlines()] == answers
        assert len(ingress.publisher.records) == 1


async def test_the_queries_run(clickhouse_url: str) -> None:
    """On the real ClickHouse with the schema of this code."""
    host, port = clickhouse_url.removeprefix("http://").split(":")
    client = await clickhouse_connect.get_async_client(host=host, port=int(port))
    try:
        await migrate(client, settings.load({"EVENTPUSH_CLICKHOUSE_URL": clickhouse_url}))
        queries = [query for block in blocks_of_all("sql") for query in block.split(";") if query.strip()]
        queries += [query for page in DOCUMENTS for query in re.findall(r"`(SELECT [^`]+)`", page.read_text())]
        assert len(queries) >= 5
        for query in queries:
            await client.query(query)
    finally:
        await client.close()
