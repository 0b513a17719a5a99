"""Native for clients of the native protocol."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.native import BlockAnnotator

INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


LOW_CARDINALITY = u64(0x200) + u64(2) + text("") + text("a") + u64(3) + b"\x01\x01\x00"

DYNAMIC = u64(1) + b"\x02\x02" + text("Int8") + text("String") + u64(0)

# type → the data of three rows
COLUMNS = {
    "UInt8": b"\x01\x02\x03",
    "DateTime64(6, 'UTC')": u64(1, 2, 3),
    "Decimal(9, 2)": b"\x01\0\0\0" * 3,
    "Decimal(38, 2)": bytes(48),
    "Enum8('a, b' = 1, 'c)' = 2)": b"\x01\x02\x01",
    "FixedString(2)": b"aabbcc",
    "String": text("a") + text("") + text("bcd"),
    "Nullable(String)": b"\0\1\0" + text("a") + text("") + text("c"),
    "Array(UInt16)": u64(1, 1, 3) + b"\1\0\2\0\3\0",
    "Array(Array(UInt8))": u64(1, 1, 2) + u64(2, 3) + b"\1\2\3",
    "Tuple(a UInt8, `b c` Array(String))": b"\1\2\3" + u64(1, 1, 2) + text("x") + text("y"),
    "Map(String, UInt8)": u64(1, 1, 2) + text("k") + text("l") + b"\1\2",
    "LowCardinality(String)": u64(1) + LOW_CARDINALITY,
    "LowCardinality(Nullable(String))": u64(1) + LOW_CARDINALITY,
    "Array(LowCardinality(String))": u64(1) + u64(1, 1, 3) + LOW_CARDINALITY,
    "Tuple(LowCardinality(String), LowCardinality(String))": u64(1, 1) + LOW_CARDINALITY * 2,
    "SimpleAggregateFunction(sum, UInt64)": u64(1, 2, 3),
    "Point": bytes(48),
    "IntervalDay": u64(1, 2, 3),
    "UUID": bytes(48),
    "Variant(String, UInt8)": u64(0) + b"\x01\x00\xff" + text("a") + b"\x07",
    "Dynamic": DYNAMIC + b"\x01\x02\xff" + text("shared") + text("a"),
    "Array(Dynamic(max_types=3))": DYNAMIC + u64(1, 1, 2) + b"\x02\xff" + text("a"),
    "JSON(`b.c` UInt8, max_dynamic_paths=4, SKIP x)": (
        u64(0) + b"\x01\x01" + text("a") + DYNAMIC + b"\1\2\3" + b"\x02\x02\xff" + text("x") + text("y") + u64(0, 0, 0)
    ),
    "Tuple(JSON, UInt8)": u64(1) + text("{}") + text("{}") + text("{}") + b"\1\2\3",
}


def block(columns: dict[str, bytes], *, annotated: bool) -> bytes:
    out = [INFO if annotated else b"", bytes([len(columns), 3])]
    for kind, data in columns.items():
        out += [text("name"), text(kind), b"\0" if annotated else b"", data]
    return b"".join(out)


@pytest.mark.parametrize("kind", COLUMNS)
def test_each_type_ends_where_its_data_ends(kind):
    """A column behind the type is found: the flag stands right before its data."""
    columns = {kind: COLUMNS[kind], "Int32": bytes(12)}
    annotator = BlockAnnotator()
    out = annotator.feed(block(columns, annotated=False)) + annotator.finish()
    assert out == block(columns, annotated=True)


@given(kinds=st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, min_size=1), size=st.integers(1, 64))
def test_blocks_are_annotated_however_they_arrive(kinds, size):
    """Two blocks, cut anywhere, come out whole and in order."""
    columns = {kind: COLUMNS[kind] for kind in kinds}
    plain = block(columns, annotated=False) * 2
    annotator = BlockAnnotator()
    out = b"".join(annotator.feed(plain[at : at + size]) for at in range(0, len(plain), size)) + annotator.finish()
    assert out == block(columns, annotated=True) * 2


def test_a_block_without_rows_is_its_header():
    """The first block of an empty result names columns and types only."""
    annotator = BlockAnnotator()
    plain = b"\x01\x00" + text("x") + text("UInt8")
    assert annotator.feed(plain) + annotator.finish() == INFO + plain + b"\0"


@pytest.mark.parametrize("kind", ["AggregateFunction(sum, UInt8)", "Array(AggregateFunction(sum, UInt8))"])
def test_types_with_a_layout_of_their_own_are_refused(kind):
    """Better an error than a column read wrongly."""
    with pytest.raises(ClickHouseError) as caught:
        BlockAnnotator().feed(block({kind: bytes(100)}, annotated=False))
    assert caught.value.code == 48
