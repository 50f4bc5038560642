"""The containers of .dfc files: of a picture (header, stream, metadata), and of a set of pictures.

A picture:

    offset  bytes  content
    0       2      magic, D1 FC
    2       1      format version (high four bits) and codec (low four bits; 0: quantised process)
    3       1      flags: bits 0-1 mode (L, LA, RGB, RGBA), bit 2 lossless, bit 3 metadata follows,
                   bit 4 samples of 16 bits, bit 5 mirrored,
                   bits 6-7 the colour exchanged with green (0 none, 1 red, 2 blue)
    4       4      model id, the first bytes of the digest of its weights
    8       4      CRC-32 (big-endian) of the samples of the picture: planes, rows, columns;
                   16-bit samples little-endian
    12      3-15   width, height and stream length as LEB128 numbers
            ...    the stream: one range coder's words without inner lengths
            ...    if flagged: LEB128 length, then zlib of (LEB128 length of ICC, ICC, EXIF)

The stream comes before the metadata so that they never delay a picture. A file that ends before
its stream or its metadata do is a prefix, and decodes to a preview.

A set of pictures, all RGB with samples of 8 bits:

    0       2      magic, D1 FC
    2       1      format version (high four bits) and codec (low four bits; of the Gaussian process
                   1: bits-back, 2: reverse channel coding)
    3       1      0
    4       4      model id
    8       4      CRC-32 (big-endian) of the samples that the stream tells, picture by picture
    12      6-     LEB128 numbers: of groups of equal size; count, width, height of each group;
                   words of the stack's reserve left out (0 for codec 2); stream length
            ...    the stream
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from diffcodec.errors import FormatError
from diffcodec.transforms.colour import EXCHANGES, GREEN

MAGIC = b"\xd1\xfc"
QUANTISED, BITS_BACK, CHANNEL = range(3)
"""The codecs; the last two code sets of pictures."""

VERSIONS = {QUANTISED: 2, BITS_BACK: 1, CHANNEL: 1}
"""The format version that is written of each codec; earlier ones are read for ever."""

MODES = ("L", "LA", "RGB", "RGBA")
"""The modes that are coded; a mode's letters are its planes."""

MAX_PIXELS = 1 << 27
"""Largest picture that a header may claim; 134 megapixels."""

MAX_PICTURES = 1 << 20
"""Most pictures of a set."""

MAX_METADATA = 1 << 26
"""Largest ICC profile and EXIF block together, in bytes."""

MAX_HEADER = 27
"""Most bytes that a header takes."""

_FIXED = 12
_LOSSLESS, _METADATA, _DEEP, _MIRRORED = 4, 8, 16, 32
_EXCHANGED = 6
"""How far up in the flags the number of the exchange stands, among EXCHANGES."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say.

    `stream_bytes` is the length of the whole stream, whether or not the file has all of it;
    `checksum` is the CRC-32 of the picture that the whole stream tells, before any denoising.
    """

    mode: str
    width: int
    height: int
    model: bytes
    checksum: int
    stream_bytes: int
    lossless: bool
    has_metadata: bool
    depth: int = 8
    """Bits per sample, 8 or 16."""
    mirrored: bool = False
    """Whether the stream tells the picture with left and right exchanged."""
    green: int = GREEN
    """The colour that has exchanged its place with green in the stream; GREEN: none."""
    version: int = VERSIONS[QUANTISED]


@dataclass(frozen=True)
class File:
    """A parsed file or prefix of one. `start` is the offset of the stream."""

    header: Header
    start: int
    stream: bytes
    icc: bytes
    exif: bytes
    complete: bool
    total_bytes: int
    """Length of the complete file, less the metadata while a prefix does not tell theirs."""


def write(header: Header, stream: bytes, icc: bytes = b"", exif: bytes = b"") -> bytes:
    """The bytes of a file. Raises FormatError for a picture or metadata that are too large."""
    check_size(header.width, header.height)
    if len(icc) + len(exif) > MAX_METADATA:
        raise FormatError("The picture's ICC profile and EXIF are too large to be kept.")
    data = write_header(header) + stream
    if header.has_metadata:
        packed = zlib.compress(_leb128(len(icc)) + icc + exif, 9)
        data += _leb128(len(packed)) + packed
    return data


def write_header(header: Header) -> bytes:
    """The header alone."""
    flags = MODES.index(header.mode)
    flags |= header.lossless * _LOSSLESS | header.has_metadata * _METADATA
    flags |= (header.depth == 16) * _DEEP | header.mirrored * _MIRRORED
    flags |= EXCHANGES.index(header.green) << _EXCHANGED
    return (
        MAGIC
        + bytes([header.version << 4 | QUANTISED, flags])
        + header.model
        + header.checksum.to_bytes(4, "big")
        + _leb128(header.width)
        + _leb128(header.height)
        + _leb128(header.stream_bytes)
    )


def read(data: bytes) -> File:
    """Parse a file or a prefix that has at least the header.

    Raises FormatError if it is no .dfc file, of an unknown version, cut inside the header, or
    claims a size beyond MAX_PIXELS; nothing is allocated on what it claims.
    """
    header, start = read_header(data)
    end = start + header.stream_bytes
    stream = data[start:end]
    if not header.has_metadata:
        return File(header, start, stream, b"", b"", len(data) >= end, end)
    icc, exif, length = read_metadata(data[end:])
    total = end + (length or 0)
    return File(header, start, stream, icc, exif, length is not None and len(data) >= total, total)


def read_metadata(data: bytes) -> tuple[bytes, bytes, int | None]:
    """ICC profile, EXIF and length of the metadata that stand at the start of `data`.

    A prefix gives empty ones, and None for a length that it does not tell. Raises FormatError if
    they are corrupt.
    """
    try:
        length, begin = _read_leb128(data, 0)
    except IndexError:
        return b"", b"", None
    packed = data[begin : begin + length]
    icc, exif = _unpack(packed) if len(packed) == length else (b"", b"")
    return icc, exif, begin + length


def read_header(data: bytes) -> tuple[Header, int]:
    """The header and the offset of the stream; raises FormatError as `read` does."""
    if _codec(data) != QUANTISED:
        raise FormatError("The file holds a set of pictures; diffcodec.decode_set reads it.")
    flags = data[3]
    mode, exchange = MODES[flags & 3], flags >> _EXCHANGED
    if exchange >= (len(EXCHANGES) if mode.startswith("RGB") else 1):
        raise FormatError("The file's header has flags that this version does not know.")
    try:
        width, position = _read_leb128(data, _FIXED)
        height, position = _read_leb128(data, position)
        stream_bytes, position = _read_leb128(data, position)
    except IndexError as error:
        raise FormatError("The file ends inside its header.") from error
    check_size(width, height)
    return (
        Header(
            mode=mode,
            width=width,
            height=height,
            model=data[4:8],
            checksum=int.from_bytes(data[8:12], "big"),
            stream_bytes=stream_bytes,
            lossless=bool(flags & _LOSSLESS),
            has_metadata=bool(flags & _METADATA),
            depth=16 if flags & _DEEP else 8,
            mirrored=bool(flags & _MIRRORED),
            green=EXCHANGES[exchange],
            version=data[2] >> 4,
        ),
        position,
    )


@dataclass(frozen=True)
class SetHeader:
    """What the first bytes of a set say; fields as for `Header`.

    `sizes` are width and height of each picture, `untouched` as `entropy.Stack.to_bytes` gives it.
    """

    codec: int
    sizes: tuple[tuple[int, int], ...]
    model: bytes
    checksum: int
    untouched: int
    stream_bytes: int


def write_set_header(header: SetHeader) -> bytes:
    """The header of a set. Raises FormatError for pictures that are too many or too large."""
    _check_set(header.sizes)
    groups = [(len(list(group)), *size) for size, group in groupby(header.sizes)]
    numbers = [len(groups), *(n for group in groups for n in group)]
    return (
        MAGIC
        + bytes([VERSIONS[header.codec] << 4 | header.codec, 0])
        + header.model
        + header.checksum.to_bytes(4, "big")
        + b"".join(map(_leb128, [*numbers, header.untouched, header.stream_bytes]))
    )


def is_set(data: bytes) -> bool:
    """Whether these bytes begin a set of pictures; raises FormatError if they are no .dfc file."""
    return _codec(data) != QUANTISED


def read_set(data: bytes) -> tuple[SetHeader, bytes]:
    """The header of a set and as much of the stream as there is; raises as `read` does."""
    codec = _codec(data)
    if codec == QUANTISED:
        raise FormatError("The file holds one picture; diffcodec.decode reads it.")
    if data[3]:
        raise FormatError("The file's header has flags that this version does not know.")
    sizes: list[tuple[int, int]] = []
    try:
        groups, position = _read_leb128(data, _FIXED)
        for _ in range(groups):
            count, position = _read_leb128(data, position)
            width, position = _read_leb128(data, position)
            height, position = _read_leb128(data, position)
            _check_count(len(sizes) + count)
            sizes += [(width, height)] * count
        untouched, position = _read_leb128(data, position)
        length, position = _read_leb128(data, position)
    except IndexError as error:
        raise FormatError("The file ends inside its header.") from error
    _check_set(sizes)
    checksum = int.from_bytes(data[8:12], "big")
    header = SetHeader(codec, tuple(sizes), data[4:8], checksum, untouched, length)
    return header, data[position : position + length]


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


def _codec(data: bytes) -> int:
    """The codec of a file of a version that is known."""
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError("This is not a .dfc file.")
    if len(data) < _FIXED:
        raise FormatError("The file ends inside its header.")
    version, codec = data[2] >> 4, data[2] & 15
    if not 1 <= version <= VERSIONS.get(codec, 0):
        raise FormatError(
            f"The file has format version {version}, codec {codec}, "
            "which this version of diffcodec does not know."
        )
    return codec


def check_size(width: int, height: int) -> None:
    """Raise FormatError for a picture without pixels or beyond MAX_PIXELS."""
    if not (width and height):
        raise FormatError("A picture without pixels cannot be coded.")
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"A picture of {width} x {height} pixels is beyond the limit of {MAX_PIXELS:,} pixels."
        )


def _unpack(packed: bytes) -> tuple[bytes, bytes]:
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(packed, MAX_METADATA + 8)
        length, start = _read_leb128(raw, 0)
    except (zlib.error, IndexError) as error:
        raise FormatError("The file's metadata are corrupt.") from error
    if not unpacker.eof or start + length > len(raw):
        raise FormatError("The file's metadata are corrupt.")
    return raw[start : start + length], raw[start + length :]


def _leb128(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number and the offset after it. Raises IndexError past the end, FormatError if huge."""
    number = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise FormatError("The file's header holds an impossible number.")
