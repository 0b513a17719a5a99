"""The Native format as clients of the native protocol read it, by their `client_protocol_version`.

The engine writes Native for revision 0, the plain form. clickhouse-connect and clickhouse-go over HTTP (and with it
Grafana's data source) read the form of their own revision: each block with a block info before it, DateTime with its
time zone (54337 and later), each column with a flag that says that its serialization is the usual one (54454 and
later). To put them in, the end of each column's data must be found: its length follows from
the type, or from the structure that stands before the data (Dynamic, JSON). The states of AggregateFunction have no
length that could be found, and are refused.
"""

import re
import struct
from collections import deque

from embedded.clickhouse.errors import error

TIME_ZONE_REVISION = 54337
CUSTOM_SERIALIZATION_REVISION = 54454
# Field 1: no overflows; field 2: no bucket; the end.
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_USUAL_SERIALIZATION = b"\x00"

_FIXED_BYTES = {
    "Nothing": 1, "Bool": 1, "Int8": 1, "UInt8": 1, "Enum8": 1,
    "Int16": 2, "UInt16": 2, "Enum16": 2, "Date": 2, "BFloat16": 2,
    "Int32": 4, "UInt32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "Decimal32": 4, "IPv4": 4, "Time": 4,
    "Int64": 8, "UInt64": 8, "Float64": 8, "DateTime64": 8, "Decimal64": 8, "Time64": 8,
    "Int128": 16, "UInt128": 16, "Decimal128": 16, "UUID": 16, "IPv6": 16,
    "Int256": 32, "UInt256": 32, "Decimal256": 32,
}  # fmt: skip
_DECIMAL_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}
_POINT = "Tuple(Float64, Float64)"
_MEANS = {
    "Point": _POINT,
    "Ring": f"Array({_POINT})",
    "LineString": f"Array({_POINT})",
    "MultiLineString": f"Array(Array({_POINT}))",
    "Polygon": f"Array(Array({_POINT}))",
    "MultiPolygon": f"Array(Array(Array({_POINT})))",
}
_TYPE = re.compile(r"(\w+)(?:\((.*)\))?", re.DOTALL)
_ELEMENT_NAME = re.compile(r"(?:`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|[A-Za-z_]\w*)\s+(?=\S)")
_TYPED_PATH = re.compile(r"((?:`(?:[^`\\]|\\.)*`|\w+)(?:\.(?:`(?:[^`\\]|\\.)*`|\w+))*)\s+")
_ARGUMENT = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]|[^'`(),]+")
# The versions of serializations that the engine writes for revision 0.
_DYNAMIC_V1, _JSON_V1, _JSON_AS_STRING, _BASIC_DISCRIMINATORS = 1, 0, 1, 0
_SHARED_VARIANT = "SharedVariant"
# LowCardinality's flags: the width of its indexes, and whether the block brings its keys along.
_INDEX_TYPE_MASK = 0xFF
_HAS_KEYS = 1 << 9


class _MoreNeededError(Exception):
    """The block is not complete yet."""


class BlockAnnotator:
    """Converter from plain Native to the form of a client's revision, block by block, as bytes arrive."""

    def __init__(self, revision: int = CUSTOM_SERIALIZATION_REVISION) -> None:
        self.revision = revision
        self.types: dict[str, str] = {}  # column → its type, where the plain form does not say all of it
        self._pending = bytearray()
        self._wait_for = 0

    def feed(self, data: bytes) -> bytes:
        """Add `data`; return the complete blocks, annotated. Raise ClickHouseError (48) for types that cannot be."""
        self._pending += data
        out = []
        while self._pending and len(self._pending) >= self._wait_for:
            try:
                block, size = self._annotated(self._pending)
            except _MoreNeededError:
                # Not again for every few bytes: a block is looked at once for each doubling of what is there.
                self._wait_for = 2 * len(self._pending)
                break
            out.append(block)
            del self._pending[:size]
            self._wait_for = 0
        return b"".join(out)

    def _annotated(self, data: bytearray) -> tuple[bytes, int]:
        """Return the first block, annotated, and its size in `data`."""
        reader = _Reader(data)
        columns, rows = reader.varint(), reader.varint()
        out = [_BLOCK_INFO, bytes(data[: reader.at])]
        for _ in range(columns):
            start = reader.at
            name = reader.string()
            out.append(bytes(data[start : reader.at]))
            type_name = reader.string()
            out.append(_string(self.types.get(name, type_name) if type_name == "DateTime" else type_name))
            if self.revision >= CUSTOM_SERIALIZATION_REVISION:
                out.append(_USUAL_SERIALIZATION)
            start = reader.at
            if rows:
                _skip_prefix(reader, type_name)
                _skip_data(reader, type_name, rows)
            out.append(bytes(data[start : reader.at]))
        return b"".join(out), reader.at

    def finish(self) -> bytes:
        """Return the last blocks."""
        self._wait_for = 0
        return self.feed(b"")


class _Reader:
    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.at = 0
        # The types within each Dynamic and the paths of each JSON, in the order of the columns' types.
        self.structures: deque[list[str]] = deque()

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise _MoreNeededError

    def bytes(self, size: int) -> bytes:
        self.skip(size)
        return bytes(self.data[self.at - size : self.at])

    def uint64(self) -> int:
        return int(struct.unpack("<Q", self.bytes(8))[0])

    def varint(self) -> int:
        value = shift = 0
        while True:
            self.skip(1)
            byte = self.data[self.at - 1]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def string(self) -> str:
        return self.bytes(self.varint()).decode("utf-8", "replace")

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.varint())]

    def skip_strings(self, count: int) -> None:
        data, at, end = self.data, self.at, len(self.data)
        for _ in range(count):
            if at >= end:
                raise _MoreNeededError
            size = data[at]
            if size < 0x80:
                at += 1 + size
            else:
                self.at = at
                at = self.varint() + self.at
        self.at = at
        self.skip(0)


def _string(text: str) -> bytes:
    data = text.encode()
    size, out = len(data), bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + data


def _skip_prefix(reader: _Reader, type_name: str) -> None:
    name, arguments = _parts(type_name)
    if name == "LowCardinality":
        reader.skip(8)  # its version
    elif name == "Dynamic":
        _skip_dynamic_prefix(reader)
    elif name == "JSON":
        _skip_json_prefix(reader, arguments)
    elif name == "Variant":
        _expect(reader.uint64(), _BASIC_DISCRIMINATORS, type_name)
        for argument in arguments:
            _skip_prefix(reader, argument)
    elif name not in _FIXED_BYTES:
        for argument in arguments:
            _skip_prefix(reader, argument)


def _skip_data(reader: _Reader, type_name: str, rows: int) -> None:
    name, arguments = _parts(type_name)
    if name in _FIXED_BYTES:
        reader.skip(rows * _FIXED_BYTES[name])
    elif name == "String":
        reader.skip_strings(rows)
    elif name == "FixedString":
        reader.skip(rows * int(type_name.removeprefix("FixedString(").rstrip(")")))
    elif name == "Nullable":
        reader.skip(rows)
        _skip_data(reader, arguments[0], rows)
    elif name == "Array":
        reader.skip((rows - 1) * 8 if rows else 0)
        total = reader.uint64() if rows else 0
        _skip_data(reader, arguments[0], total)
    elif name == "Tuple":
        for argument in arguments:
            _skip_data(reader, argument, rows)
        if not arguments:
            reader.skip(rows)
    elif name in {"Variant", "Dynamic"}:
        _skip_variants(reader, arguments if name == "Variant" else reader.structures.popleft(), rows)
    elif name == "JSON":
        for part in reader.structures.popleft():
            _skip_data(reader, part, rows)
    elif name == "LowCardinality":
        _skip_low_cardinality(reader, arguments[0], rows)


def _skip_dynamic_prefix(reader: _Reader) -> None:
    """Skip the structure of a Dynamic: its version, the number of its types twice, and the types."""
    version = reader.uint64()
    _expect(version, _DYNAMIC_V1, "Dynamic")
    reader.varint()
    # What is of none of the types is kept as a string among them; all are in the order of their names.
    kinds = sorted([*reader.strings(), _SHARED_VARIANT])
    kinds = ["String" if kind == _SHARED_VARIANT else kind for kind in kinds]
    reader.structures.append(kinds)
    _expect(reader.uint64(), _BASIC_DISCRIMINATORS, "Dynamic")
    for kind in kinds:
        _skip_prefix(reader, kind)


def _skip_json_prefix(reader: _Reader, typed: list[str]) -> None:
    """Skip the structure of a JSON: its version, then nothing for strings, or the paths outside of the type."""
    version = reader.uint64()
    if version == _JSON_AS_STRING:
        reader.structures.append(["String"])
        return
    _expect(version, _JSON_V1, "JSON")
    reader.varint()
    parts = typed + ["Dynamic"] * len(reader.strings())
    # Paths beyond the most that have columns of their own are kept together.
    reader.structures.append([*parts, "Array(Tuple(String, String))"])
    for part in parts:
        _skip_prefix(reader, part)


def _skip_variants(reader: _Reader, kinds: list[str], rows: int) -> None:
    discriminators = reader.bytes(rows)
    for i, kind in enumerate(kinds):
        _skip_data(reader, kind, discriminators.count(i))


def _expect(found: int, expected: int, type_name: str) -> None:
    if found != expected:
        message = f"Native for client_protocol_version is not supported for this serialization of {type_name}: {found}"
        raise error("NOT_IMPLEMENTED", message)


def _skip_low_cardinality(reader: _Reader, keys_type: str, rows: int) -> None:
    if not rows:
        return
    flags = reader.uint64()
    if flags & _HAS_KEYS:
        name, arguments = _parts(keys_type)
        _skip_data(reader, arguments[0] if name == "Nullable" else keys_type, reader.uint64())
    indexes = reader.uint64()
    reader.skip(indexes << (flags & _INDEX_TYPE_MASK))


def _parts(type_name: str) -> tuple[str, list[str]]:
    """Return the type's name and the types that it is made of, with other names for the same layout resolved.

    Raise ClickHouseError for types with a layout of their own.
    """
    found = _TYPE.fullmatch(_MEANS.get(type_name, type_name))
    name, inside = (found.group(1), found.group(2) or "") if found else (type_name, "")
    arguments: list[str] = []
    if name.startswith("Interval"):
        name = "Int64"
    elif name == "Decimal":
        digits = int(inside.split(",")[0])
        name = next(f"Decimal{bits}" for bits, most in _DECIMAL_DIGITS.items() if digits <= most)
    elif name in {"Map", "Nested"}:
        name, arguments = "Array", [f"Tuple({inside})"]
    elif name == "SimpleAggregateFunction":
        return _parts(_arguments(inside)[1])
    elif name == "Tuple":
        arguments = [_unnamed(argument) for argument in _arguments(inside)]
    elif name == "JSON":
        found_paths = sorted(map(_typed_path, filter(_is_typed_path, _arguments(inside))))
        arguments = [kind for _, kind in found_paths]
    elif name in {"Array", "Nullable", "LowCardinality", "Variant"}:
        arguments = _arguments(inside)
    elif name not in _FIXED_BYTES and name not in {"String", "FixedString", "Dynamic"}:
        message = f"Native for client_protocol_version is not supported for the type {type_name}"
        raise error("NOT_IMPLEMENTED", message)
    return name, arguments


def _is_typed_path(argument: str) -> bool:
    return "=" not in argument and not argument.startswith("SKIP ")


def _typed_path(argument: str) -> tuple[str, str]:
    found = _TYPED_PATH.match(argument)
    return (found.group(1).replace("`", ""), argument[found.end() :]) if found else ("", argument)


def _unnamed(element: str) -> str:
    """Return an element of a Tuple without its name, if it has one."""
    return _ELEMENT_NAME.sub("", element, count=1) if _ELEMENT_NAME.match(element) else element


def _arguments(inside: str) -> list[str]:
    """Split what stands between a type's brackets at its outer commas."""
    arguments, depth = [""], 0
    for piece in _ARGUMENT.findall(inside):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += piece
    return [argument.strip() for argument in arguments if argument.strip()]
