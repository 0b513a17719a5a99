"""How far a file was sent: kept in the data directory, so that a backfill that was killed goes on."""

import hashlib
import os
from pathlib import Path

import msgspec

from eventpush.backfill.sources import CsvMapping
from runtime.platform.errors import OperatorError


class Progress(msgspec.Struct, kw_only=True):
    """What has become of the first `done` events of a file; `is_complete` says that it has no more."""

    path: str
    url: str
    size_bytes: int
    modified_ns: int
    mapping: CsvMapping
    done: int = 0
    accepted: int = 0
    refused: int = 0
    is_complete: bool = False


class ProgressFile:
    """The progress of one file to one ingress, and the events that the ingress refused."""

    def __init__(self, directory: Path, path: Path, url: str, mapping: CsvMapping) -> None:
        key = hashlib.sha256(f"{path.resolve()}\0{url}".encode()).hexdigest()[:16]
        self._file = directory / f"{path.name}-{key}.json"
        self.refused = directory / f"{path.name}-{key}.refused.ndjson"
        status = path.stat()
        self._new = Progress(
            path=str(path.resolve()),
            url=url,
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            mapping=mapping,
        )

    def read(self) -> Progress:
        """Return the progress; raise `OperatorError` if the file or its mapping is not what it was."""
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=Progress)
        except FileNotFoundError:
            return self._new
        except (msgspec.MsgspecError, OSError) as error:
            raise OperatorError(f"{self._file} cannot be read ({error})", "--restart sends the file again") from None
        same = msgspec.structs.replace(self._new, done=found.done, accepted=found.accepted, refused=found.refused)
        if msgspec.structs.replace(same, is_complete=found.is_complete) != found:
            raise OperatorError(
                f"{found.path} or its mapping has changed since {found.done} of its events were sent",
                "--restart sends all of it again; what was accepted before is dropped as a duplicate",
            )
        return found

    def write(self, progress: Progress) -> None:
        """Replace the progress; whatever fails, the old one or the new one is there."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        written = self._file.with_suffix(".new")
        with written.open("wb") as file:
            file.write(msgspec.json.encode(progress))
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._file)

    def forget(self) -> None:
        """Begin again."""
        self._file.unlink(missing_ok=True)
        self.refused.unlink(missing_ok=True)

    def refuse(self, number: int, status: int, message: str, event: bytes) -> None:
        """Keep a refused event with the reason; after a kill it may be there twice."""
        self.refused.parent.mkdir(parents=True, exist_ok=True)
        line = {"number": number, "status": status, "message": message, "event": event.decode("utf-8", "replace")}
        with self.refused.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
