"""A generation of the window on disk, for horizons that do not fit in memory."""

import shutil
from pathlib import Path

import numpy as np
from rocksdict import AccessType, Options, Rdict, WriteBatch

from streams.window import Rows, Words

_KEY_BYTES = 24


class DiskGeneration:
    """One RocksDB directory: the key is words 0 to 2, the value word 3. Dropping it removes the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)  # what is true is in the changelog
        directory.mkdir(parents=True)
        self._db = Rdict(str(directory), _options(), access_type=AccessType.read_write())
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, rows: Rows) -> Words:
        """The content (word 3) stored for each row's identity; 0 where there is none. Shape (n,)."""
        values = self._db.get(_keys(rows))
        return np.fromiter((0 if v is None else int.from_bytes(v, "little") for v in values), np.uint64, len(rows))

    def add(self, rows: Rows) -> None:
        """Store rows that are not there yet."""
        batch = WriteBatch(raw_mode=True)
        contents = rows[:, 3].astype("<u8").tobytes()
        for number, key in enumerate(_keys(rows)):
            batch.put(key, contents[number * 8 : number * 8 + 8])
        self._db.write(batch)
        self._count += len(rows)

    def drop(self) -> None:
        """Close and remove the directory."""
        self._db.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _keys(rows: Rows) -> list[bytes]:
    packed = np.ascontiguousarray(rows[:, :3]).astype("<u8").tobytes()
    return [packed[begin : begin + _KEY_BYTES] for begin in range(0, len(packed), _KEY_BYTES)]


def _options() -> Options:
    options = Options(raw_mode=True)
    options.set_max_background_jobs(2)
    options.set_write_buffer_size(32 * 2**20)
    return options
