"""The database `default`, without chdb's view of every file of the machine as a table in it.

chdb opens `default` as an Overlay of tables and files. Here it is an ordinary Atomic database, which the engine loads
from its metadata like any other; the Overlay gets a name of its own and is detached.

`metadata/default` is a link to `store/…/UUID`. chdb gives the UUID that it finds there to its Overlay, so the link goes
away before the engine starts; the engine makes it again.
"""

import os
import uuid
from pathlib import Path

OVERLAY = "_overlay"


def prepare(path: Path) -> None:
    """Describe `default` in the engine's metadata, before the engine opens `path`; tables made earlier stay in it."""
    metadata = path / "metadata"
    metadata.mkdir(parents=True, exist_ok=True)
    link, description = metadata / "default", metadata / "default.sql"
    if not description.exists():
        identity = link.readlink().name if link.is_symlink() else str(uuid.uuid4())
        new = metadata / "default.sql.new"
        with new.open("w") as file:
            file.write(f"ATTACH DATABASE _ UUID '{identity}'\nENGINE = Atomic\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(description)
    if link.is_symlink():
        link.unlink()
