"""ClickHouse's engine under a users file of a test's own: statements in, answers or errors out, as JSON.

    python -m tests.integration.restricted_engine DATA_DIR USERS_XML < statements.json

The embedded server lets nobody make users or roles. Here the engine's one connected user has what the users file says,
so that what a grant, a row policy or a view's definer does is seen on the real engine.
"""

import json
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import chdb


def main(data_dir: str, users: str) -> None:
    """Execute each statement; print [rows or None, error or None] of each."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.xml"
        config.write_text(f"<clickhouse><users_config>{escape(users)}</users_config></clickhouse>")
        connection = chdb.connect(f"{data_dir}?config-file={config}")
        json.dump([_answer(connection, statement) for statement in json.load(sys.stdin)], sys.stdout)
        connection.close()


def _answer(connection: "chdb.state.sqlitelike.Connection", statement: str) -> tuple[list[object] | None, str | None]:
    try:
        answer = str(connection.query(statement, "JSONCompactEachRow"))
    except Exception as error:  # the engine raises RuntimeError and its kin: the test asks for the message
        return None, str(error)
    return [json.loads(line) for line in answer.splitlines()], None


if __name__ == "__main__":
    main(*sys.argv[1:])
