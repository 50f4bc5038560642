"""The containers of .dfc files: header, stream and boxes of a picture or of a set of pictures.

    bytes  content
    2      magic, D1 FC
    1      format version (high four bits) and codec (low four bits)
    1      flags
    0-5    if flagged: features, as the bits of a LEB128 number
    ...    what belongs to each feature, as LEB128 numbers
    4      CRC-32 (big-endian) of the samples that the whole stream decodes to
    0, 4   model id, the first bytes of the digest of its weights; a stored picture has none
    ...    what depends on the codec, as LEB128 numbers; the last one is the stream's length
    ...    the stream, without inner lengths
    ...    if flagged: LEB128 length of all boxes, and the boxes

The numbers of a picture are width, height and, if flagged, the colour transform. Those of a set,
whose pictures are RGB with samples of 8 bits, are the number of groups of equal size; count, width
and height of each group; how many pictures seed the stack, and words of its reserve left out (0 and
0 for reverse channel coding).

A box is a LEB128 number (twice its kind, and one if zlib has packed its content), a LEB128 length
and the content; docs/format.md has the kinds. Boxes come last so that they never delay a picture.
A file that ends before its stream or its boxes do is a prefix, and decodes to a preview.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from diffcodec.errors import CorruptError, FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray  # Pillow's plugin reads headers without loading numpy

MAGIC = b"\xd1\xfc"
VERSION = 3

QUANTISED, BITS_BACK, CHANNEL, ABSORBING, STORED = range(5)
"""The codecs; the second and the third code sets of pictures."""

PICTURES, SETS = (QUANTISED, ABSORBING, STORED), (BITS_BACK, CHANNEL)

MODES = ("L", "LA", "RGB", "RGBA")
"""The modes that are coded; a mode's letters are its planes."""

ICC, EXIF, XMP, TEXT, RESOLUTION, PALETTE, IPTC, COLOUR = KINDS = range(8)
"""The kinds of boxes that are read."""

Boxes = Mapping[int, bytes]
"""Contents by kind."""

RESERVED = {2: "a chroma transform for each level"}
"""What later versions may do, by bit of the features."""

FITTED, TILES, STEPS = 0, 1, 3
"""The features that are known, by bit; a number belongs to all but the first."""

MAX_PIXELS = 1 << 27
"""Largest picture that a header may claim; 134 megapixels."""

UNTILED = 1 << 22
"""Most pixels of a picture of the quantised process without tiles, and of a tile: they bound the
memory that a decoder needs."""

SMALLEST_TILE = 64
"""Least side of a tile."""

MAX_PICTURES = 1 << 20
"""Most pictures of a set."""

MAX_METADATA = 1 << 26
"""Largest size of all boxes that are read together, in bytes."""

LONGEST_STREAM = (1 << 35) - 1
"""Most bytes of a stream, and the largest number in a file: five bytes of LEB128."""

MAX_HEADER = 42
"""Most bytes that a picture's header takes."""

_FIXED = 4
_LOSSLESS, _DEEP, _MIRRORED, _COLOURS, _BOXES, _FEATURES = (4 << place for place in range(6))
_EXACT = 1  # the only flag of sets


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture's file say.

    Attributes:
        codec: one of PICTURES.
        mode: one of MODES.
        width, height: in pixels.
        model: the first bytes of the digest of its weights; empty if it is stored.
        checksum: CRC-32 of the picture that the whole stream decodes to, before any denoising.
        stream_bytes: length of the whole stream, whether or not the file has all of it.
        lossless: whether that picture is the original, but for `step`.
        has_boxes: whether boxes follow the stream.
        depth: bits per sample, 8 or 16.
        mirrored: whether the stream has left and right exchanged.
        colours: number of the reversible colour transform that precedes the codec's own; 0: none.
        tile: longest side of the tiles that the stream has, each by itself; 0: it has none.
        step: how many neighbouring values of a colour's samples count as one in the stream, an odd
            number; 1: each is its own.
        fitted: whether the stream tells biases that were fitted to the picture.
    """

    codec: int
    mode: str
    width: int
    height: int
    model: bytes
    checksum: int
    stream_bytes: int
    lossless: bool
    has_boxes: bool = False
    depth: int = 8
    mirrored: bool = False
    colours: int = 0
    tile: int = 0
    step: int = 1
    fitted: bool = False

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height


@dataclass(frozen=True)
class File:
    """A parsed file or prefix of one. `start` is the offset of the stream.

    `boxes` are those that are all there, by kind; `complete` says whether the whole file is.
    """

    header: Header
    start: int
    stream: bytes
    boxes: Boxes
    complete: bool
    total_bytes: int
    """Length of the complete file, less the boxes while a prefix does not give their length."""


def write(header: Header, stream: bytes, boxes: Boxes) -> bytes:
    """The bytes of a file, with the stream's length and whether there are boxes in the header.

    Raises FormatError for a picture or boxes that are too large.
    """
    header = replace(header, stream_bytes=len(stream), has_boxes=bool(boxes))
    return write_header(header) + stream + write_boxes(boxes)


def write_header(header: Header) -> bytes:
    """The header alone. Raises FormatError for a picture that is too large."""
    check_size(header.width, header.height)
    flags = MODES.index(header.mode)
    flags |= header.lossless * _LOSSLESS | (header.depth == 16) * _DEEP
    flags |= header.mirrored * _MIRRORED | bool(header.colours) * _COLOURS
    flags |= header.has_boxes * _BOXES
    numbers = [header.width, header.height, header.stream_bytes]
    if header.colours:
        numbers.insert(2, header.colours)
    features = {
        FITTED: int(header.fitted),
        TILES: header.tile,
        STEPS: header.step if header.step > 1 else 0,
    }
    return _start(header.codec, flags, header.checksum, header.model, features) + write_numbers(
        numbers
    )


def write_boxes(boxes: Boxes) -> bytes:
    """What follows the stream. Raises FormatError for boxes that are too large."""
    if sum(map(len, boxes.values())) > MAX_METADATA:
        raise FormatError("The picture's metadata are too large to be kept: strip them.")
    data = b"".join(_box(kind, content) for kind, content in boxes.items())
    return write_numbers([len(data)]) + data if boxes else b""


def _box(kind: int, content: bytes) -> bytes:
    packed = zlib.compress(content, 9)
    shorter = len(packed) < len(content)
    stored = packed if shorter else content
    return write_numbers([2 * kind + shorter, len(stored)]) + stored


def room(header: Header, boxes: Boxes, limit: int | None) -> int:
    """The most bytes that a stream may have in a file of at most `limit` bytes.

    Raises FormatError if header and boxes take more than that.
    """
    if limit is None:
        return LONGEST_STREAM
    full = replace(header, stream_bytes=min(limit, LONGEST_STREAM), has_boxes=bool(boxes))
    return _left(limit, len(write_header(full)) + len(write_boxes(boxes)))


def read(data: bytes) -> File:
    """Parse a file or a prefix that has at least the header.

    Raises FormatError if it is no .dfc file, of an unknown version, cut inside the header, or
    claims a size beyond MAX_PIXELS; nothing is allocated on what it claims.
    """
    header, start = read_header(data)
    end = start + header.stream_bytes
    stream = data[start:end]
    if not header.has_boxes:
        return File(header, start, stream, {}, len(data) >= end, end)
    boxes, length = read_boxes(data[end:])
    total = end + (length or 0)
    return File(header, start, stream, boxes, length is not None and len(data) >= total, total)


def read_boxes(data: bytes) -> tuple[dict[int, bytes], int | None]:
    """The boxes at the start of `data` by kind, and the length of all with their own length.

    A prefix gives those that are all there, and None for a length that is not there. Of boxes
    of one kind the last counts; unknown kinds are left out. Raises FormatError if they are corrupt.
    """
    try:
        length, begin = read_number(data, 0)
    except IndexError:
        return {}, None
    end = begin + length
    boxes: dict[int, bytes] = {}
    room = MAX_METADATA
    for kind, packed, content in _read_boxes(data[begin:end], complete=len(data) >= end):
        if kind in KINDS:
            boxes[kind] = _unpack(content, room) if packed else content
            room -= len(boxes[kind])
        if room < 0:
            raise FormatError("The file's metadata are too large.")
    return boxes, end


def _read_boxes(data: bytes, *, complete: bool) -> Iterator[tuple[int, int, bytes]]:
    """Kind, whether it is packed, and content of each box."""
    position = 0
    with suppress(IndexError):
        while position < len(data):
            tag, begin = read_number(data, position)
            size, begin = read_number(data, begin)
            position = begin + size
            if position <= len(data):
                yield tag >> 1, tag & 1, data[begin:position]
        if position == len(data):
            return
    if complete:
        raise FormatError("The file's metadata are corrupt.")


def _unpack(packed: bytes, room: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, room + 1)
    except zlib.error as error:
        raise FormatError("The file's metadata are corrupt.") from error
    if not unpacker.eof and len(content) <= room:
        raise FormatError("The file's metadata are corrupt.")
    return content


def read_header(data: bytes) -> tuple[Header, int]:
    """The header and the offset of the stream; raises FormatError as `read` does."""
    if is_set(data):
        raise FormatError("The file holds a set of pictures; diffcodec.decode_set reads it.")
    flags = data[3]
    codec, features, checksum, model, position = _read_start(data)
    try:
        width, position = read_number(data, position)
        height, position = read_number(data, position)
        colours, position = read_number(data, position) if flags & _COLOURS else (0, position)
        stream_bytes, position = read_number(data, position)
    except IndexError as error:
        raise FormatError("The file ends inside its header.") from error
    if codec != QUANTISED and flags & (_MIRRORED | _COLOURS):
        raise _unknown("has flags of another codec")
    check_size(width, height)
    header = Header(
        codec=codec,
        mode=MODES[flags & 3],
        width=width,
        height=height,
        model=model,
        checksum=checksum,
        stream_bytes=stream_bytes,
        lossless=bool(flags & _LOSSLESS),
        has_boxes=bool(flags & _BOXES),
        depth=16 if flags & _DEEP else 8,
        mirrored=bool(flags & _MIRRORED),
        colours=colours,
        tile=features.get(TILES, 0),
        step=features.get(STEPS, 1),
        fitted=FITTED in features,
    )
    if header.fitted and codec != QUANTISED:
        raise _unknown("has fitted weights of another codec")
    if TILES in features and codec != QUANTISED:
        raise _unknown("has tiles of another codec")
    if TILES in features:
        check_tile(header.tile)
    elif codec == QUANTISED:
        check_untiled(header.pixels)
    if STEPS in features:
        check_step(header.step, header.depth)
    return header, position


@dataclass(frozen=True)
class SetHeader:
    """What the first bytes of a set say; fields as for `Header`.

    `codec` is one of SETS, `sizes` are width and height of each picture, `untouched` is as
    `entropy.Stack.to_bytes` gives it, `seeds` tells how many of the first pictures seed the stack,
    `exact` by which of the two ways reverse channel coding chooses.
    """

    codec: int
    sizes: tuple[tuple[int, int], ...]
    model: bytes
    checksum: int
    untouched: int
    stream_bytes: int
    seeds: int = 0
    exact: bool = False

    @property
    def pixels(self) -> int:
        """How many there are in all pictures."""
        return sum(width * height for width, height in self.sizes)


def write_set_header(header: SetHeader) -> bytes:
    """The header of a set. Raises FormatError for pictures that are too many or too large."""
    _check_set(header.sizes)
    groups = [(len(list(group)), *size) for size, group in groupby(header.sizes)]
    numbers = [len(groups), *(n for group in groups for n in group)]
    numbers += [header.seeds, header.untouched, header.stream_bytes]
    flags = _EXACT * header.exact
    return _start(header.codec, flags, header.checksum, header.model) + write_numbers(numbers)


def set_room(header: SetHeader, limit: int | None) -> int:
    """As `room`, of a set."""
    if limit is None:
        return LONGEST_STREAM
    full = replace(header, stream_bytes=min(limit, LONGEST_STREAM))
    return _left(limit, len(write_set_header(full)))


def is_set(data: bytes) -> bool:
    """Whether these bytes begin a set of pictures.

    Raises FormatError if they begin no .dfc file, or one of a version or codec that is not known.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError("This is not a .dfc file.")
    if len(data) < _FIXED:
        raise FormatError("The file ends inside its header.")
    version, codec = data[2] >> 4, data[2] & 15
    if version != VERSION:
        raise _unknown(f"has format version {version}")
    if codec not in (*PICTURES, *SETS):
        raise _unknown(f"has codec {codec}")
    return codec in SETS


def read_set(data: bytes) -> tuple[SetHeader, bytes]:
    """The header of a set and as much of the stream as there is; raises as `read` does."""
    header, start = read_set_header(data)
    return header, data[start : start + header.stream_bytes]


def read_set_header(data: bytes) -> tuple[SetHeader, int]:
    """The header of a set and the offset of the stream; raises as `read` does."""
    if not is_set(data):
        raise FormatError("The file holds one picture; diffcodec.decode reads it.")
    codec, features, checksum, model, position = _read_start(data)
    exact = codec == CHANNEL and bool(data[3] & _EXACT)
    if data[3] & ~_FEATURES & ~(_EXACT * exact) or features:
        raise _unknown("is a set with flags")
    sizes: list[tuple[int, int]] = []
    try:
        groups, position = read_number(data, position)
        for _ in range(groups):
            count, position = read_number(data, position)
            width, position = read_number(data, position)
            height, position = read_number(data, position)
            _check_count(len(sizes) + count)
            sizes += [(width, height)] * count
        seeds, position = read_number(data, position)
        untouched, position = read_number(data, position)
        length, position = read_number(data, position)
    except IndexError as error:
        raise FormatError("The file ends inside its header.") from error
    _check_set(sizes)
    if seeds > len(sizes):
        raise FormatError("The file's header holds an impossible number.")
    header = SetHeader(codec, tuple(sizes), model, checksum, untouched, length, seeds, exact)
    return header, position


def check_size(width: int, height: int) -> None:
    """Raise FormatError for a picture without pixels or beyond MAX_PIXELS."""
    if not (width and height):
        raise FormatError("A picture without pixels cannot be coded.")
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"A picture of {width} x {height} pixels is beyond the limit of {MAX_PIXELS:,} pixels."
        )


def check_tile(tile: int) -> None:
    """Raise FormatError for tiles of an impossible size."""
    if not (tile >= SMALLEST_TILE and tile * tile <= UNTILED):
        largest = math.isqrt(UNTILED)
        raise FormatError(f"The side of a tile is from {SMALLEST_TILE} to {largest}, not {tile}.")


def check_untiled(pixels: int) -> None:
    """Raise FormatError for a picture of the quantised process that needs tiles."""
    if pixels > UNTILED:
        raise FormatError(f"A photograph of more than {UNTILED:,} pixels needs tiles.")


def check_step(step: int, depth: int) -> None:
    """Raise FormatError for a step that no samples of this depth can have."""
    if not (step % 2 and 3 <= step < 1 << depth):
        raise FormatError(f"Samples of {depth} bits cannot be in steps of {step} values.")


def checksum(*pictures: "NDArray") -> int:
    """CRC-32 of samples, uint8 or uint16 [C, H, W]: plane by plane, the low byte first."""
    crc = 0
    for planes in pictures:
        for plane in planes:
            whole = plane.astype(f"<u{plane.itemsize}", order="C", copy=False)
            crc = zlib.crc32(whole.data, crc)
    return crc


def check(expected: int, found: int) -> None:
    """Raise CorruptError unless the checksum of a whole stream is the one of its header."""
    if found != expected:
        raise CorruptError("The file is corrupt: its pixels do not match its checksum.")


def _left(limit: int, overhead: int) -> int:
    if overhead > limit:
        raise FormatError(
            f"The limit of {limit:,} bytes is too small: header and metadata take {overhead:,}."
        )
    return limit - overhead


def _check_set(sizes: Sequence[tuple[int, int]]) -> None:
    if not sizes:
        raise FormatError("A set without pictures cannot be coded.")
    _check_count(len(sizes))
    for width, height in sizes:
        check_size(width, height)
    check_size(sum(width * height for width, height in sizes), 1)


def _check_count(pictures: int) -> None:
    if pictures > MAX_PICTURES:
        raise FormatError(f"A set holds at most {MAX_PICTURES:,} pictures.")


def _start(
    codec: int,
    flags: int,
    checksum: int,
    model: bytes,
    features: Mapping[int, int] = MappingProxyType({}),
) -> bytes:
    """What all headers begin with; features that are 0 are not there."""
    there = {bit: number for bit, number in sorted(features.items()) if number}
    flags |= _FEATURES * bool(there)
    told = [number for bit, number in there.items() if bit != FITTED]
    numbers = [sum(1 << bit for bit in there), *told] if there else []
    start = MAGIC + bytes([VERSION << 4 | codec, flags]) + write_numbers(numbers)
    return start + checksum.to_bytes(4, "big") + model


def _read_start(data: bytes) -> tuple[int, dict[int, int], int, bytes, int]:
    """What files of a known version begin with, and the offset of what follows.

    That is codec, features with what belongs to each, checksum and model.
    """
    codec, position = data[2] & 15, _FIXED
    features: dict[int, int] = {}
    if data[3] & _FEATURES:
        try:
            bits, position = read_number(data, position)
            for bit in range(bits.bit_length()):
                if bits >> bit & 1:
                    if bit not in (FITTED, TILES, STEPS):
                        raise _unknown(f"uses {RESERVED.get(bit, f'feature {bit}')}")
                    features[bit] = 1
                    if bit != FITTED:
                        features[bit], position = read_number(data, position)
        except IndexError as error:
            raise FormatError("The file ends inside its header.") from error
    middle = position + 4
    end = middle + (0 if codec == STORED else 4)
    if len(data) < end:
        raise FormatError("The file ends inside its header.")
    return codec, features, int.from_bytes(data[position:middle]), data[middle:end], end


def _unknown(what: str) -> FormatError:
    return FormatError(f"The file {what}, which this version of diffcodec does not know.")


def write_numbers(numbers: Sequence[int]) -> bytes:
    """LEB128: seven bits to a byte, the lowest first; all bytes but the last have their top bit."""
    data = bytearray()
    for number in numbers:
        while number > 0x7F:
            data.append(number & 0x7F | 0x80)
            number >>= 7
        data.append(number)
    return bytes(data)


def read_number(data: bytes, position: int) -> tuple[int, int]:
    """A number and the offset after it. Raises IndexError past the end, FormatError if huge."""
    number = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise FormatError("The file's header holds an impossible number.")
