"""Compression both ways: the codecs of HTTP's Content-Encoding, and ClickHouse's own checksummed blocks.

Decompressors are fed as bytes arrive and give pieces of bounded size, so that a small body which unpacks to a huge one
never fills the memory. ClickHouse's blocks (`compress=1`, `decompress=1`) are: CityHash128 (version 1.0.2) of what
follows, one byte for the method, the sizes of the block packed (with these nine bytes) and unpacked, the packed data.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import lz4.block
import lz4.frame
import zstandard

from embedded.clickhouse.errors import ClickHouseError, error

try:
    from clickhouse_cityhash.cityhash import CityHash128
except ImportError:  # no wheel for Python 3.13 on Macs with Intel: everything but ClickHouse's blocks works without
    CityHash128 = None

PIECE_BYTES = 1 << 20
# zstd can unpack 4 bytes to a block of 128 KiB: this much input bounds what comes out at once.
_ZSTD_INPUT_BYTES = 1024

_BLOCK_HEADER = struct.Struct("<BII")
_CHECKSUM_BYTES = 16
_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_BLOCK_MAX_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20


class Decompressor(Protocol):
    """A decompressor of a stream that arrives in pieces."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield unpacked pieces of the packed `data`; raise ClickHouseError for broken data."""

    def finish(self) -> None:
        """Raise ClickHouseError when the stream ended too early."""


class Compressor(Protocol):
    """A compressor of a stream that is written in pieces."""

    def compress(self, data: bytes) -> bytes:
        """Compress `data`; return what can be sent so far."""

    def flush(self) -> bytes:
        """Return the rest and the end of the stream."""


# Best first, as a server prefers them.
ENCODINGS = ("zstd", "lz4", "gzip", "deflate")


def choose(accept_encoding: str) -> str | None:
    """Return the encoding for a response to this `Accept-Encoding`; None for an unpacked one."""
    offered = set()
    for item in accept_encoding.split(","):
        name, _, quality = item.strip().partition(";")
        if quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            offered.add(name.strip().lower())
    return next((name for name in ENCODINGS if name in offered), None)


def compressor(encoding: str) -> Compressor:
    """Return a compressor for one of `ENCODINGS`."""
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=1).compressobj()
    if encoding == "lz4":
        return _Lz4Compressor()
    return zlib.compressobj(3, wbits=31 if encoding == "gzip" else 15)


def decompressor(encoding: str) -> Decompressor:
    """Return a decompressor for a `Content-Encoding`; raise ClickHouseError for one that is not known."""
    if encoding in {"gzip", "x-gzip"}:
        return _ZlibDecompressor(31)
    if encoding == "deflate":
        return _ZlibDecompressor(15)
    if encoding == "lz4":
        return _Lz4Decompressor()
    if encoding == "zstd":
        return _ZstdDecompressor()
    raise error("NOT_IMPLEMENTED", f"Unknown compression method {encoding}. Only {', '.join(ENCODINGS)} are supported")


class _Lz4Compressor:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        header = self._begin()
        packed: bytes = self._frame.compress(data)
        return header + packed

    def flush(self) -> bytes:
        header = self._begin()
        rest: bytes = self._frame.flush()
        return header + rest

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        header: bytes = self._frame.begin()
        return header


class _Members:
    """A stream of one or more packed members behind each other (gzip members, lz4 and zstd frames)."""

    def __init__(self) -> None:
        self._member: Any = None
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                self._member = self._new()
            try:
                yield from self._unpack(data)
            except (zlib.error, RuntimeError, zstandard.ZstdError) as problem:
                raise _broken(str(problem)) from None
            data, self._rest = self._rest, b""
            if self._member.eof:
                self._member = None

    def finish(self) -> None:
        if self._member is not None:
            raise _broken("the compressed data ends too early")

    def _new(self) -> Any:
        raise NotImplementedError

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        """Unpack until the data or the member ends; what is behind the member is left in `_rest`."""
        raise NotImplementedError


class _ZlibDecompressor(_Members):
    def __init__(self, window_bits: int) -> None:
        super().__init__()
        self._window_bits = window_bits

    def _new(self) -> Any:
        return zlib.decompressobj(self._window_bits)

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        while data and not self._member.eof:
            yield self._member.decompress(data, PIECE_BYTES)
            data = self._member.unconsumed_tail
        self._rest = self._member.unused_data


class _Lz4Decompressor(_Members):
    def _new(self) -> Any:
        return lz4.frame.LZ4FrameDecompressor()

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        yield self._member.decompress(data, PIECE_BYTES)
        while not self._member.eof and not self._member.needs_input:
            yield self._member.decompress(b"", PIECE_BYTES)
        self._rest = self._member.unused_data or b""


class _ZstdDecompressor(_Members):
    def _new(self) -> Any:
        return zstandard.ZstdDecompressor().decompressobj()

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_INPUT_BYTES):
            yield self._member.decompress(data[at : at + _ZSTD_INPUT_BYTES])
            if self._member.eof:
                self._rest = self._member.unused_data + data[at + _ZSTD_INPUT_BYTES :]
                return


class BlockCompressor:
    """A compressor of a stream into ClickHouse's blocks, LZ4."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def compress(self, data: bytes) -> bytes:
        """Add `data`; return the blocks that are full."""
        self._pending += data
        return self._take(_BLOCK_BYTES)

    def flush(self) -> bytes:
        """Return the last block."""
        return self._take(1)

    def _take(self, least: int) -> bytes:
        out = b""
        while len(self._pending) >= least:
            out += pack_block(bytes(self._pending[:_BLOCK_BYTES]))
            del self._pending[:_BLOCK_BYTES]
        return out


class BlockDecompressor:
    """A decompressor of ClickHouse's blocks: LZ4, ZSTD and unpacked ones, each with its checksum."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add `data`; yield the blocks that are complete, unpacked."""
        self._pending += data
        while (block := self._next()) is not None:
            yield block

    def finish(self) -> None:
        """Raise ClickHouseError when the last block is not complete."""
        if self._pending:
            raise _broken("the compressed data ends within a block")

    def _next(self) -> bytes | None:
        if len(self._pending) < _CHECKSUM_BYTES + _BLOCK_HEADER.size:
            return None
        method, packed_bytes, unpacked_bytes = _BLOCK_HEADER.unpack_from(self._pending, _CHECKSUM_BYTES)
        if packed_bytes < _BLOCK_HEADER.size or max(packed_bytes, unpacked_bytes) > _BLOCK_MAX_BYTES:
            raise _broken(f"a block of {packed_bytes} bytes that unpacks to {unpacked_bytes}")
        end = _CHECKSUM_BYTES + packed_bytes
        if len(self._pending) < end:
            return None
        block = bytes(self._pending[:end])
        del self._pending[:end]
        if _checksum(block[_CHECKSUM_BYTES:]) != block[:_CHECKSUM_BYTES]:
            raise error("CHECKSUM_DOESNT_MATCH", "Checksum doesn't match: corrupted data")
        return _unpack_block(method, block[_CHECKSUM_BYTES + _BLOCK_HEADER.size :], unpacked_bytes)


def pack_block(data: bytes) -> bytes:
    """Pack `data` into one of ClickHouse's blocks, LZ4."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    body = _BLOCK_HEADER.pack(_LZ4, len(packed) + _BLOCK_HEADER.size, len(data)) + packed
    return _checksum(body) + body


def _unpack_block(method: int, packed: bytes, unpacked_bytes: int) -> bytes:
    unpacked: bytes = packed
    try:
        if method == _LZ4:
            unpacked = lz4.block.decompress(packed, uncompressed_size=unpacked_bytes)
        elif method == _ZSTD:
            unpacked = zstandard.ZstdDecompressor().decompress(packed, max_output_size=unpacked_bytes)
        elif method != _NONE:
            raise _broken(f"unknown method {method:#x} of a block")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as problem:
        raise _broken(str(problem)) from None
    return unpacked


def _checksum(body: bytes) -> bytes:
    if CityHash128 is None:
        raise error("NOT_IMPLEMENTED", "compress=1 and decompress=1 need the package clickhouse-cityhash")
    number: int = CityHash128(body)
    # The low half first: ClickHouse keeps the hash as a pair of 64-bit numbers.
    high, low = divmod(number, 1 << 64)
    return struct.pack("<QQ", high, low)


def _broken(why: str) -> ClickHouseError:
    return error("CANNOT_DECOMPRESS", f"Cannot decompress: {why}")
