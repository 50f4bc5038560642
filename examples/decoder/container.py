"""The container of a picture: its header and its stream. Boxes of metadata are left out.

Features of the format, of which each adds to what follows the flags, would be read in `read`.
"""

from dataclasses import dataclass

QUANTISED, STORED = 0, 4
"""The codecs that this decoder knows."""

_MODES = ("L", "LA", "RGB", "RGBA")


@dataclass(frozen=True)
class File:
    """What a file or a prefix of one says.

    Attributes:
        codec: QUANTISED or STORED.
        mode: its letters are the picture's planes.
        depth: bits of a sample, 8 or 16.
        width, height: in pixels.
        lossless: whether the whole stream decodes to the original.
        mirrored: whether the stream has left and right exchanged.
        colours: the number of the colour transform.
        checksum: CRC-32 of the samples to which the whole stream decodes.
        model: the first bytes of the model file's digest.
        stream: as much of it as there is.
        whole: whether that is all of it.
    """

    codec: int
    mode: str
    depth: int
    width: int
    height: int
    lossless: bool
    mirrored: bool
    colours: int
    checksum: int
    model: bytes
    stream: bytes
    whole: bool


def read(data: bytes) -> File:
    """Parse a file or a prefix that has the header. Raises ValueError for anything else."""
    try:
        return _read(data)
    except IndexError as error:
        raise ValueError("The file ends inside its header.") from error


def _read(data: bytes) -> File:
    if data[:2] != b"\xd1\xfc" or data[2] >> 4 != 3:
        raise ValueError("This is no .dfc file of version 3.")
    codec, flags = data[2] & 15, data[3]
    if codec not in (QUANTISED, STORED):
        raise ValueError(f"This decoder does not know codec {codec}.")
    if flags & 128:
        raise ValueError("The file uses features, which this decoder does not know.")
    mode = _MODES[flags & 3]
    start = 12 if codec == QUANTISED else 8
    width, position = _leb128(data, start)
    height, position = _leb128(data, position)
    colours, position = _leb128(data, position) if flags & 32 else (0, position)
    length, position = _leb128(data, position)
    if not 1 <= width * height <= 1 << 27:
        raise ValueError("The file has no pixels, or too many.")
    if codec == STORED and flags & (16 | 32):
        raise ValueError("Stored samples are neither mirrored nor transformed.")
    if colours > (2 if mode.startswith("RGB") else 0):
        raise ValueError(f"There is no colour transform {colours} of {mode} pictures.")
    return File(
        codec=codec,
        mode=mode,
        depth=16 if flags & 8 else 8,
        width=width,
        height=height,
        lossless=bool(flags & 4),
        mirrored=bool(flags & 16),
        colours=colours,
        checksum=int.from_bytes(data[4:8], "big"),
        model=data[8:start],
        stream=data[position : position + length],
        whole=len(data) >= position + length,
    )


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number and the place after it: seven bits to a byte, the lowest first."""
    number = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise ValueError("The header has a number of more than five bytes.")
