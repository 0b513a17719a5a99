"""A segment of the window on disk, for retentions that do not fit in memory; it outlives its process.

With each addition a segment notes, in the same atomic write, its stream time, its offset in the changelog, and how
many rows there are now. A killed process leaves every addition complete (RocksDB's log is in the system's hands with
each write), and a machine that lost its power loses the latest additions together with their notes: all but the newest
segment are flushed. So the newest note says up to where the changelog is in here.
"""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from streams.window import DeduplicationWindow, Rows, Words

_KEY_BYTES = 24
_NOTE = b"note"
_NOTE_TYPE = np.dtype([("stream_time_us", "<i8"), ("changelog_offset", "<i8"), ("count", "<i8")])
_NOTHING = np.array((0, -1, 0), _NOTE_TYPE).tobytes()
_WRITE_BUFFER_BYTES = 8 * 2**20
_FILTER_BITS = 10  # one in a hundred rows that are not in a file is looked for in it
_block_cache = Cache(64 * 2**20)  # of all segments together: each would make one of its own


class DiskSegment:
    """One RocksDB directory: the key is words 0 to 2, the value word 3. Dropping it removes the directory."""

    def __init__(self, directory: Path) -> None:
        """Open the directory, or make it; whatever RocksDB raises when it is in use or cannot be read."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(directory), _options(), access_type=AccessType.read_write())
        note = np.frombuffer(self._db.get(_NOTE) or _NOTHING, _NOTE_TYPE)[0]
        #: How far it went when it was opened: stream time (µs since the epoch), changelog offset (-1: not known).
        self.stream_time_us, self.changelog_offset = int(note["stream_time_us"]), int(note["changelog_offset"])
        self._count = int(note["count"])

    def __len__(self) -> int:
        return self._count

    def find(self, rows: Rows) -> Words:
        """Return the content (word 3) stored for each row's identity; 0 where there is none. Shape (n,)."""
        values = self._db.get(_keys(rows))
        return np.fromiter((0 if v is None else int.from_bytes(v, "little") for v in values), np.uint64, len(rows))

    def add(self, rows: Rows, stream_time_us: int, changelog_offset: int) -> None:
        """Store rows that are not there yet, and note how far the changelog is in here."""
        batch = WriteBatch(raw_mode=True)
        contents = rows[:, 3].astype("<u8").tobytes()
        for number, key in enumerate(_keys(rows)):
            batch.put(key, contents[number * 8 : number * 8 + 8])
        note = np.array((stream_time_us, changelog_offset, self._count + len(rows)), _NOTE_TYPE)
        batch.put(_NOTE, note.tobytes())
        self._db.write(batch)
        self._count += len(rows)

    def seal(self) -> None:
        """Free the write buffer and flush everything to the disk: nothing will be added any more."""
        self._db.flush()

    def close(self) -> None:
        """Let go of the directory and leave it there."""
        self._db.close()

    def drop(self) -> None:
        """Close and remove the directory."""
        self._db.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def window_on_disk(directory: Path, retention_us: int) -> DeduplicationWindow:
    """Return the window left in this directory, or an empty one; raise what `DiskSegment` raises.

    What was left with another retention is removed: its segments are of another length.
    """
    window = DeduplicationWindow(retention_us, lambda segment_number: DiskSegment(home / str(segment_number)))
    home = directory / str(window.segment_us)
    for other in set(directory.glob("*")) - {home}:
        _remove(other)
    with contextlib.ExitStack() as opened:
        for segment_number in sorted(int(found.name) for found in home.glob("*")):
            segment = DiskSegment(home / str(segment_number))
            opened.callback(segment.close)
            window.adopt(segment_number, segment, segment.stream_time_us, segment.changelog_offset)
        opened.pop_all()
    return window


def forget_window(directory: Path) -> None:
    """Remove what was left there."""
    for found in directory.glob("*"):
        _remove(found)


def _remove(directory: Path) -> None:
    """Remove it all or nothing: half a window, left by who is killed meanwhile, would look like a whole one."""
    removed = directory.with_name(f"removed-{time.time_ns()}")
    directory.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _keys(rows: Rows) -> Sequence[bytes]:
    packed = np.ascontiguousarray(rows[:, :3]).astype("<u8").tobytes()
    return [packed[begin : begin + _KEY_BYTES] for begin in range(0, len(packed), _KEY_BYTES)]


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_bloom_filter(_FILTER_BITS, False)
    table.set_block_cache(_block_cache)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_max_background_jobs(2)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(2)
    return options
