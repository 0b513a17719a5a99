"""Compression both ways."""

import gzip
import zlib

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from embedded.clickhouse.compression import (
    ENCODINGS,
    BlockCompressor,
    BlockDecompressor,
    choose,
    compressor,
    decompressor,
    pack_block,
)
from embedded.clickhouse.errors import ClickHouseError

PACKED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
NUMBERS = b"".join(n.to_bytes(8, "little") for n in range(10))


def unpacked(steps, data, size):
    """Feed the data in pieces of that size."""
    out = b"".join(piece for at in range(0, len(data), size) for piece in steps.feed(data[at : at + size]))
    steps.finish()
    return out


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(data=st.binary(max_size=3000), size=st.integers(1, 400), members=st.integers(1, 3))
def test_what_others_pack_is_unpacked_however_it_is_cut(encoding, data, size, members):
    """Bodies of several members, cut anywhere, come out whole."""
    assert unpacked(decompressor(encoding), PACKED[encoding](data) * members, size) == data * members


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(pieces=st.lists(st.binary(max_size=200)))
def test_what_is_packed_can_be_unpacked(encoding, pieces):
    """A packed stream is one valid body."""
    packer = compressor(encoding)
    packed = b"".join(packer.compress(piece) for piece in pieces) + packer.flush()
    assert unpacked(decompressor(encoding), packed, 100) == b"".join(pieces)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_that_ends_too_early_is_an_error(encoding):
    """A truncated body is never taken for a whole one."""
    with pytest.raises(ClickHouseError) as caught:
        unpacked(decompressor(encoding), PACKED[encoding](b"some data" * 100)[:-3], 50)
    assert caught.value.code == 271


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_garbage_is_an_error_of_clickhouse(encoding):
    """What cannot be unpacked is the client's mistake, with a code."""
    with pytest.raises(ClickHouseError) as caught:
        unpacked(decompressor(encoding), b"this is not compressed at all" * 10, 50)
    assert caught.value.code == 271


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_comes_in_pieces(encoding):
    """A small body that unpacks to very much never gives more than a bounded piece at once."""
    bomb = PACKED[encoding](bytes(64 << 20))
    sizes = [len(piece) for piece in decompressor(encoding).feed(bomb)]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 32 << 20


@given(data=st.binary(max_size=5000), size=st.integers(1, 500))
def test_blocks_go_both_ways(data, size):
    """ClickHouse's blocks unpack to what was packed, however the stream is cut."""
    packer = BlockCompressor()
    packed = packer.compress(data) + packer.flush()
    assert unpacked(BlockDecompressor(), packed, size) == data


def test_a_block_of_a_server_is_read():
    """The checksum is ClickHouse's own (CityHash128 1.0.2 of method, sizes and data).

    The bytes are column files that ClickHouse 26.9 wrote for the numbers 0 to 9 as UInt64, codecs NONE and LZ4.
    """
    assert (
        unpacked(BlockDecompressor(), bytes.fromhex("02055525c1ab53a87f38b57d455271bb025900000050000000") + NUMBERS, 7)
        == NUMBERS
    )
    lz4_block = (
        "acf66ba9046098237852ce287989b33b82360000005000000013000100130108001302080013030800"
        "1304080013050800130608001307080013080800800900000000000000"
    )
    assert unpacked(BlockDecompressor(), bytes.fromhex(lz4_block), 7) == NUMBERS


def test_a_flipped_bit_is_noticed():
    """A block with a wrong checksum is refused with ClickHouse's code."""
    block = bytearray(pack_block(b"data"))
    block[-1] ^= 1
    with pytest.raises(ClickHouseError) as caught:
        list(BlockDecompressor().feed(bytes(block)))
    assert caught.value.code == 40


def test_a_cut_block_is_an_error():
    """The end within a block is not the end of the data."""
    steps = BlockDecompressor()
    assert list(steps.feed(pack_block(b"data")[:-1])) == []
    with pytest.raises(ClickHouseError):
        steps.finish()


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("gzip, deflate", "gzip"),
        ("deflate", "deflate"),
        ("lz4, zstd, gzip", "zstd"),
        ("zstd;q=0, gzip;q=0.5", "gzip"),
        ("br", None),
    ],
)
def test_the_best_encoding_that_both_know_is_chosen(accept, encoding):
    """As a server negotiates; one that is not known is no reason to fail."""
    assert choose(accept) == encoding
