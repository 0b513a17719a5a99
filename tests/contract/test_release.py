"""What docs/releasing.md says of versions and migrations is true of the code."""

import re
import tomllib
from pathlib import Path

import yaml

from schemas.migration_steps import MIGRATIONS

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_HEADING = re.compile(r"^## (\S+) – (unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)
_STEP = re.compile(r"^\| (\d+) \| (.+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def test_the_newest_section_of_the_changelog_is_this_version() -> None:
    """The changelog's sections have a version and a date, or "unreleased"; the first one is the project's version."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    sections = _HEADING.findall(changelog)
    assert len(sections) == len(re.findall("^## ", changelog, re.MULTILINE))
    assert sections[0][0] == VERSION
    assert all(date != "unreleased" for _, date in sections[1:])


def test_kubernetes_runs_this_version() -> None:
    """The image's tag in the Kubernetes manifests is the project's version."""
    manifest = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text())
    assert {image["newTag"] for image in manifest["images"] if image["name"] == "eventpush"} == {VERSION}


def test_recorded_migrations_never_change() -> None:
    """Recorded steps are the first ones of the code, unchanged; a dated version has all of its steps recorded."""
    releasing = (ROOT / "docs" / "releasing.md").read_text()
    recorded = [(int(version), name, checksum) for version, name, checksum in _STEP.findall(releasing)]
    steps = [(step.version, step.name, step.checksum) for step in MIGRATIONS]
    assert recorded
    assert recorded == steps[: len(recorded)]
    (_, date), *_ = _HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    if date != "unreleased":
        assert recorded == steps
