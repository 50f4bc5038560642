"""The container: round trips, prefixes, damage, and claims that nobody should believe."""

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffcodec import bitstream
from diffcodec.bitstream import (
    EXCHANGES,
    GREEN,
    MAX_PIXELS,
    MODES,
    Header,
    SetHeader,
    read,
    read_header,
    read_set,
    write,
    write_header,
    write_set_header,
)
from diffcodec.errors import FormatError

HEADERS = st.builds(
    Header,
    mode=st.sampled_from(MODES),
    width=st.one_of(st.integers(1, 300), st.just(MAX_PIXELS)),
    height=st.one_of(st.integers(1, 300), st.just(1)),
    model=st.binary(min_size=4, max_size=4),
    checksum=st.integers(0, (1 << 32) - 1),
    stream_bytes=st.integers(0, (1 << 35) - 1),
    lossless=st.booleans(),
    has_metadata=st.booleans(),
    depth=st.sampled_from([8, 16]),
    mirrored=st.booleans(),
    green=st.sampled_from(EXCHANGES),
    version=st.sampled_from([1, 2]),
).filter(
    lambda header: (
        header.width * header.height <= MAX_PIXELS
        and (header.green == GREEN or header.mode.startswith("RGB"))
    )
)


def header(**changes):
    fields = {
        "mode": "RGB",
        "width": 32,
        "height": 32,
        "model": b"\1\2\3\4",
        "checksum": 0xDEADBEEF,
        "stream_bytes": 40,
        "lossless": True,
        "has_metadata": False,
    }
    return Header(**{**fields, **changes})


def number(value):
    return bitstream._leb128(value)


@given(HEADERS, st.binary(max_size=20))
def test_a_header_comes_back(one, rest):
    data = write_header(one)
    assert read_header(data + rest) == (one, len(data))


@given(HEADERS)
def test_a_cut_header_is_refused(one):
    data = write_header(one)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read_header(data[:length])


def test_the_layout_is_that_of_the_format():
    data = write_header(header(width=300, height=5, has_metadata=True))
    assert data.hex() == "d1fc200e01020304deadbeefac020528"


def test_a_small_picture_has_a_small_header():
    assert len(write_header(header(stream_bytes=3 * 32 * 32 + 200))) <= 17


@given(HEADERS, st.binary(max_size=60), st.binary(max_size=40), st.binary(max_size=40))
def test_a_file_comes_back_and_so_do_its_prefixes(one, stream, icc, exif):
    assume(one.has_metadata or not (icc or exif))
    one = Header(**{**vars(one), "stream_bytes": len(stream)})
    data = write(one, stream, icc, exif)
    whole = read(data)
    assert (whole.header, whole.stream, whole.icc, whole.exif) == (one, stream, icc, exif)
    assert whole.complete
    assert whole.total_bytes == len(data)
    for length in range(whole.start, len(data)):
        part = read(data[:length])
        assert part.header == one
        assert part.stream == stream[: length - part.start]
        assert not part.complete
        assert part.icc == part.exif == b""
        assert length < part.total_bytes <= len(data) or length >= part.start + len(stream)


@given(st.binary(min_size=1, max_size=30), st.data())
@settings(max_examples=300)
def test_flipped_bytes_are_refused_or_still_a_header(icc, data):
    valid = bytearray(write(header(stream_bytes=9, has_metadata=True), b"123456789", icc, b"II*"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(valid) - 1))
        valid[place] ^= data.draw(st.integers(1, 255))
    with suppress(FormatError):
        file = read(bytes(valid))
        assert 0 < file.header.width * file.header.height <= MAX_PIXELS
        assert file.header.mode in MODES
        assert len(file.stream) <= len(valid)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_a_file(rest):
    for start in (b"", b"\xd1\xfc\x10", b"\xd1\xfc\x10\x0d\0\0\0\0\0\0\0\0\1\1"):
        with suppress(FormatError):
            read(start + rest)


def test_unknown_versions_codecs_flags_and_files_are_refused():
    data = write_header(header())
    for place, value in (
        (0, 0x89),
        (2, 0x30),
        (2, 0x21),
        (2, 0x00),
        (3, 0x45),
        (3, 0x85),
        (3, 0xC6),
    ):
        changed = data[:place] + bytes([value]) + data[place + 1 :]
        with pytest.raises(FormatError):
            read_header(changed)


@pytest.mark.parametrize(
    ("width", "height"),
    [(0, 5), (5, 0), (MAX_PIXELS + 1, 1), (1 << 20, 1 << 20), ((1 << 35) - 1, (1 << 35) - 1)],
)
def test_absurd_sizes_are_refused(width, height):
    data = write_header(header())[:12] + number(width) + number(height) + number(1)
    with pytest.raises(FormatError, match="pixels"):
        read(data)
    with pytest.raises(FormatError, match="pixels"):
        write(header(width=width, height=height), b"")


def test_endless_numbers_are_refused():
    with pytest.raises(FormatError, match="impossible"):
        read(write_header(header())[:12] + b"\xff" * 40)


def peak_of(act):
    tracemalloc.start()
    try:
        with suppress(FormatError):
            act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_claims_allocate_nothing():
    huge = header(width=1 << 13, height=1 << 14, stream_bytes=(1 << 35) - 1, has_metadata=True)
    assert peak_of(lambda: read(write_header(huge) + b"abc")) < 1 << 16
    claim = write_header(header(stream_bytes=0, has_metadata=True)) + number((1 << 35) - 1)
    assert peak_of(lambda: read(claim + b"abc")) < 1 << 16


def with_metadata(packed):
    start = write_header(header(stream_bytes=0, has_metadata=True))
    return start + number(len(packed)) + packed


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(bitstream, "MAX_METADATA", 1 << 16)
    bomb = with_metadata(zlib.compress(number(5) + bytes(1 << 25), 9))
    assert peak_of(lambda: read(bomb)) < 1 << 20
    with pytest.raises(FormatError, match="metadata"):
        read(bomb)


def test_too_much_metadata_is_not_written(monkeypatch):
    monkeypatch.setattr(bitstream, "MAX_METADATA", 1 << 10)
    exact = header(stream_bytes=0, has_metadata=True)
    assert read(write(exact, b"", b"i" * 1000, b"e" * 24)).exif == b"e" * 24
    with pytest.raises(FormatError, match="too large"):
        write(exact, b"", b"i" * 1000, b"e" * 25)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not zlib",
        zlib.compress(b""),
        zlib.compress(number(9) + b"short"),
        zlib.compress(number(3) + b"abcdef")[:-2],
    ],
)
def test_corrupt_metadata_are_refused(packed):
    with pytest.raises(FormatError, match="metadata"):
        read(with_metadata(packed))


# --- sets -----------------------------------------------------------------------------------------

SIZES = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6)
SET_HEADERS = st.builds(
    SetHeader,
    codec=st.sampled_from([bitstream.BITS_BACK, bitstream.CHANNEL]),
    sizes=SIZES.map(lambda sizes: tuple(size for size in sizes for _ in range(2))),
    model=st.binary(min_size=4, max_size=4),
    checksum=st.integers(0, (1 << 32) - 1),
    untouched=st.integers(0, 1 << 16),
    stream_bytes=st.integers(0, 50),
)


@given(SET_HEADERS, st.binary(min_size=50, max_size=60))
def test_a_set_header_comes_back(one, rest):
    data = write_set_header(one)
    assert bitstream.is_set(data)
    assert read_set(data + rest) == (one, rest[: one.stream_bytes])
    assert read_set(data + rest[:20]) == (one, rest[: min(20, one.stream_bytes)])


@given(SET_HEADERS)
@settings(max_examples=20)
def test_a_cut_set_header_is_refused(one):
    data = write_set_header(one)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read_set(data[:length])


@given(st.binary(max_size=40), st.sampled_from([1, 2]))
def test_any_bytes_after_the_magic_are_a_set_or_refused(rest, codec):
    with suppress(FormatError):
        header, _ = read_set(bitstream.MAGIC + bytes([16 | codec]) + rest)
        assert 1 <= len(header.sizes) <= bitstream.MAX_PICTURES
        assert sum(width * height for width, height in header.sizes) <= MAX_PIXELS


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, 5, 5], "without pictures"),
        ([1, 0, 3, 3, 5, 5], "without pictures"),
        ([1, (1 << 35) - 1, 1, 1, 5, 5], "at most"),
        ([1, 2, 1 << 13, 1 << 14, 5, 5], "limit"),
        ([1, 1, 0, 4, 5, 5], "without pixels"),
    ],
)
def test_impossible_sets_are_refused_without_room_for_them(numbers, message):
    data = write_header(header())[:12]
    data = data[:2] + bytes([0x11, 0]) + data[4:] + b"".join(map(number, numbers))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            read_set(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
