"""The container: round trips, prefixes, damage, and claims that nobody should believe."""

import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec import container
from diffcodec.container import (
    ABSORBING,
    EXIF,
    ICC,
    LONGEST_STREAM,
    MAX_PIXELS,
    MODES,
    QUANTISED,
    STORED,
    UNTILED,
    Header,
    SetHeader,
    read,
    read_boxes,
    read_header,
    read_set,
    write,
    write_boxes,
    write_header,
    write_set_header,
)
from diffcodec.errors import FormatError

HEADERS = st.builds(
    Header,
    codec=st.sampled_from(container.PICTURES),
    mode=st.sampled_from(MODES),
    width=st.one_of(st.integers(1, 300), st.just(MAX_PIXELS)),
    height=st.one_of(st.integers(1, 300), st.just(1)),
    model=st.binary(min_size=4, max_size=4),
    checksum=st.integers(0, (1 << 32) - 1),
    stream_bytes=st.integers(0, LONGEST_STREAM),
    lossless=st.booleans(),
    has_boxes=st.booleans(),
    depth=st.sampled_from([8, 16]),
    mirrored=st.booleans(),
    colours=st.integers(0, 300),
    tile=st.sampled_from([0, 64, 1000, 2048]),
    step=st.sampled_from([1, 3, 255]),
).filter(lambda header: header.pixels <= MAX_PIXELS)
HEADERS = HEADERS.map(lambda one: replace(one, tile=1024) if one.pixels > UNTILED else one)
PLAIN = {"mirrored": False, "colours": 0, "tile": 0}
HEADERS = HEADERS.map(lambda one: one if one.codec == QUANTISED else replace(one, **PLAIN))
HEADERS = HEADERS.map(lambda one: replace(one, model=b"") if one.codec == STORED else one)
CONTENT = st.binary(min_size=1, max_size=40) | st.just(b"a profile " * 30)
BOXES = st.dictionaries(st.sampled_from([ICC, EXIF]), CONTENT)


def header(**changes):
    fields = {
        "codec": QUANTISED,
        "mode": "RGB",
        "width": 32,
        "height": 32,
        "model": b"\1\2\3\4",
        "checksum": 0xDEADBEEF,
        "stream_bytes": 40,
        "lossless": True,
    }
    return Header(**{**fields, **changes})


def number(value):
    return container.write_numbers([value])


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
    data = write_header(header(width=300, height=5, has_boxes=True))
    assert data.hex() == "d1fc3046deadbeef01020304ac020528"
    data = write_header(header(colours=2, mirrored=True, depth=16, mode="LA", lossless=False))
    assert data.hex() == "d1fc3039deadbeef010203042020" + "02" + "28"
    data = write_header(header(codec=STORED, model=b""))
    assert data.hex() == "d1fc3406deadbeef202028"
    assert write_boxes({ICC: b"abc", EXIF: b"x" * 50})[:6].hex() == "130003616263"
    assert write_boxes({}) == b""


def test_a_small_picture_has_a_small_header():
    assert len(write_header(header(stream_bytes=3 * 32 * 32 + 200))) <= 17


@given(HEADERS)
def test_no_header_is_longer_than_is_read_of_a_file_to_find_it(one):
    assert len(write_header(one)) <= container.MAX_HEADER


@given(HEADERS, st.binary(max_size=60), BOXES)
def test_a_file_comes_back_and_so_do_its_prefixes(one, stream, boxes):
    one = replace(one, stream_bytes=len(stream), has_boxes=bool(boxes))
    data = write(one, stream, boxes)
    whole = read(data)
    assert (whole.header, whole.stream, whole.boxes) == (one, stream, boxes)
    assert whole.complete
    assert whole.total_bytes == len(data)
    assert read(data + b"what follows").total_bytes == len(data)
    for length in range(whole.start, len(data)):
        part = read(data[:length])
        assert part.header == one
        assert part.stream == stream[: length - part.start]
        assert not part.complete
        assert part.boxes.items() < boxes.items() or (part.boxes == boxes == {})
        assert length < part.total_bytes <= len(data) or length >= part.start + len(stream)


@given(BOXES, st.integers(40, 400), st.binary(max_size=200))
def test_unknown_kinds_of_boxes_are_skipped(boxes, kind, content):
    data = write_boxes({kind: content, **boxes, kind + 1: content})
    assert read_boxes(data) == (boxes, len(data))


def test_boxes_are_packed_where_that_is_shorter():
    noise = np.random.default_rng(0).bytes(1000)
    assert len(write_boxes({ICC: noise})) <= 1000 + 6
    assert len(write_boxes({ICC: b"calm" * 1000})) < 100


@given(HEADERS.filter(lambda one: one.codec == QUANTISED), st.integers(0, 2))
def test_a_limit_leaves_room_for_the_stream(one, short):
    boxes = {ICC: b"profile"}
    for limit in (500, 70_000):
        room = container.room(one, boxes, limit)
        assert limit - 5 <= len(write(one, bytes(room), boxes)) <= limit
    assert container.room(one, boxes, None) == LONGEST_STREAM
    with pytest.raises(FormatError, match="too small"):
        container.room(one, boxes, len(write(one, b"", boxes)) - 1 - short)


@given(st.binary(min_size=1, max_size=30), st.data())
@settings(max_examples=300)
def test_flipped_bytes_are_refused_or_still_a_header(icc, data):
    valid = bytearray(write(header(), b"123456789", {ICC: icc, EXIF: b"II*"}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(valid) - 1))
        valid[place] ^= data.draw(st.integers(1, 255))
    with suppress(FormatError):
        file = read(bytes(valid))
        assert 0 < file.header.pixels <= MAX_PIXELS
        assert file.header.mode in MODES
        assert len(file.stream) <= len(valid)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_a_file(rest):
    for start in (b"", b"\xd1\xfc\x30", b"\xd1\xfc\x30\x45\0\0\0\0\0\0\0\0\1\1"):
        with suppress(FormatError):
            read(start + rest)


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("89fc3006", "not a .dfc file"),
        ("d1fc1006", "format version 1, which this version of diffcodec does not know"),
        ("d1fc2006", "format version 2"),
        ("d1fc4006", "format version 4"),
        ("d1fc3506", "codec 5, which this version"),
        ("d1fc308604", "uses a chroma transform for each level, which"),
        ("d1fc3086c001", "uses feature 6, which"),
        ("d1fc3186c001", "uses feature 6, which"),
        ("d1fc3106", "a set with flags, which"),
        ("d1fc3316", "flags of another codec, which"),
        ("d1fc3416", "flags of another codec, which"),
        ("d1fc3426", "flags of another codec, which"),
    ],
)
def test_what_is_not_known_is_refused_with_a_sentence(start, sentence):
    data = bytes.fromhex(start) + write_header(header())[4:]
    with pytest.raises(FormatError, match=sentence):
        (read_set if data[2] & 15 in container.SETS else read_header)(data)


def test_the_other_kind_is_refused():
    with pytest.raises(FormatError, match="set of pictures"):
        read_header(b"\xd1\xfc\x31\0" + bytes(20))
    with pytest.raises(FormatError, match="one picture"):
        read_set(write_header(header()))


@pytest.mark.parametrize(
    ("codec", "features", "sentence"),
    [
        (QUANTISED, "023f", "side of a tile is from 64 to 2048, not 63"),
        (QUANTISED, "028110", "side of a tile is from 64 to 2048, not 2049"),
        (QUANTISED, "0200", "not 0"),
        (ABSORBING, "0240", "tiles of another codec"),
        (STORED, "0240", "tiles of another codec"),
        (QUANTISED, "0801", "8 bits cannot be in steps of 1 values"),
        (QUANTISED, "0804", "steps of 4"),
        (STORED, "088102", "steps of 257"),
        (QUANTISED, "0a408102", "steps of 257"),
    ],
)
def test_impossible_features_are_refused(codec, features, sentence):
    model = b"" if codec == STORED else bytes(4)
    plain = write_header(header(codec=codec, model=model))
    data = plain[:3] + bytes([plain[3] | 0x80]) + bytes.fromhex(features) + plain[4:]
    with pytest.raises(FormatError, match=sentence):
        read_header(data)


def test_a_large_picture_of_the_quantised_process_needs_tiles():
    large = header(width=UNTILED // 64 + 1, height=64)
    with pytest.raises(FormatError, match="needs tiles"):
        read_header(write_header(large))
    for one in (replace(large, tile=64), replace(large, width=UNTILED // 64)):
        assert read_header(write_header(one))[0] == one
    assert read_header(write_header(replace(large, codec=ABSORBING)))[0].pixels > UNTILED


def test_no_features_are_no_obstacle():
    data = write_header(header())
    assert read_header(data[:3] + b"\x86\0" + data[4:])[0] == header()


@pytest.mark.parametrize(
    ("width", "height"),
    [(0, 5), (5, 0), (MAX_PIXELS + 1, 1), (1 << 20, 1 << 20), ((1 << 35) - 1, (1 << 35) - 1)],
)
def test_absurd_sizes_are_refused(width, height):
    data = write_header(header())[:12] + number(width) + number(height) + number(1)
    with pytest.raises(FormatError, match="pixels"):
        read(data)
    with pytest.raises(FormatError, match="pixels"):
        write(header(width=width, height=height), b"", {})


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
    huge = header(
        width=1 << 13, height=1 << 14, tile=1024, stream_bytes=LONGEST_STREAM, has_boxes=True
    )
    assert peak_of(lambda: read(write_header(huge) + b"abc")) < 1 << 16
    for claim in (number(LONGEST_STREAM), number(30) + b"\0" + number(LONGEST_STREAM)):
        assert peak_of(lambda claim=claim: read(with_boxes(claim + b"abc"))) < 1 << 16


def with_boxes(boxes):
    return write_header(header(stream_bytes=0, has_boxes=True)) + boxes


def box(tag, content):
    return bytes([tag]) + number(len(content)) + content


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(container, "MAX_METADATA", 1 << 16)
    packed = box(1, zlib.compress(bytes(1 << 25), 9))
    bomb = with_boxes(number(len(packed)) + packed)
    assert peak_of(lambda: read(bomb)) < 1 << 20
    with pytest.raises(FormatError, match="metadata"):
        read(bomb)
    several = 9 * box(1, zlib.compress(bytes(1 << 13), 9))
    with pytest.raises(FormatError, match="metadata"):
        read(with_boxes(number(len(several)) + several))


def test_too_much_metadata_is_not_written(monkeypatch):
    monkeypatch.setattr(container, "MAX_METADATA", 1 << 10)
    exact = {ICC: b"i" * 1000, EXIF: b"e" * 24}
    assert read(write(header(), b"", exact)).boxes == exact
    with pytest.raises(FormatError, match="too large"):
        write(header(), b"", {ICC: b"i" * 1000, EXIF: b"e" * 25})


@pytest.mark.parametrize(
    "boxes",
    [
        box(1, b"not zlib"),
        box(1, b""),
        box(3, zlib.compress(b"abcdef")[:-2]),
        box(0, b"abc")[:-1],
        box(0, b"abc") + b"\0",
        b"\x80",
    ],
)
def test_corrupt_metadata_are_refused(boxes):
    with pytest.raises(FormatError, match="metadata"):
        read(with_boxes(number(len(boxes)) + boxes))


# --- sets -----------------------------------------------------------------------------------------

SIZES = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6)
SET_HEADERS = st.builds(
    SetHeader,
    codec=st.sampled_from([container.BITS_BACK, container.CHANNEL]),
    sizes=SIZES.map(lambda sizes: tuple(size for size in sizes for _ in range(2))),
    model=st.binary(min_size=4, max_size=4),
    checksum=st.integers(0, (1 << 32) - 1),
    untouched=st.integers(0, 1 << 16),
    stream_bytes=st.integers(0, 50),
)


@given(SET_HEADERS, st.binary(min_size=50, max_size=60))
def test_a_set_header_comes_back(one, rest):
    data = write_set_header(one)
    assert container.is_set(data)
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
        header, _ = read_set(container.MAGIC + bytes([48 | codec, 0]) + rest)
        assert 1 <= len(header.sizes) <= container.MAX_PICTURES
        assert sum(width * height for width, height in header.sizes) <= MAX_PIXELS


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, 0, 5, 5], "without pictures"),
        ([1, 0, 3, 3, 0, 5, 5], "without pictures"),
        ([1, (1 << 35) - 1, 1, 1, 0, 5, 5], "at most"),
        ([1, 2, 1 << 13, 1 << 14, 0, 5, 5], "limit"),
        ([1, 1, 0, 4, 0, 5, 5], "without pixels"),
        ([1, 2, 4, 4, 3, 5, 5], "impossible number"),
    ],
)
def test_impossible_sets_are_refused_without_room_for_them(numbers, message):
    data = write_header(header())[:12]
    data = data[:2] + bytes([0x31, 0]) + data[4:] + b"".join(map(number, numbers))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            read_set(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
