"""The container of a picture: its header and its stream. Boxes of metadata are left out."""

from dataclasses import dataclass

from . import spaces

QUANTISED, STORED = 0, 4
"""The codecs that this decoder knows."""

_FITTED, _TILES, _STEPS = 1, 1 << 1, 1 << 3

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
        tile: the longest side of a tile; 0: there are none.
        step: how many values of a colour's sample count as one.
        fitted: whether the stream has biases that were fitted to the picture.
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
    tile: int = 0
    step: int = 1
    fitted: bool = False


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
    mode, depth = _MODES[flags & 3], 16 if flags & 8 else 8
    features, start = leb128(data, 4) if flags & 128 else (0, 4)
    if features & ~(_FITTED | _TILES | _STEPS):
        raise ValueError("The file uses features that this decoder does not know.")
    tile, start = leb128(data, start) if features & _TILES else (0, start)
    step, start = leb128(data, start) if features & _STEPS else (1, start)
    end = start + (8 if codec == QUANTISED else 4)
    width, position = leb128(data, end)
    height, position = leb128(data, position)
    colours, position = leb128(data, position) if flags & 32 else (0, position)
    length, position = leb128(data, position)
    if not 1 <= width * height <= 1 << 27:
        raise ValueError("The file has no pixels, or too many.")
    if features & _TILES and not (codec == QUANTISED and 64 <= tile <= 2048):
        raise ValueError("The file has impossible tiles.")
    if features & _FITTED and codec != QUANTISED:
        raise ValueError("Only pictures of codec 0 have fitted biases.")
    if features & _STEPS and not (step % 2 and 3 <= step < 1 << depth):
        raise ValueError("The file has impossible steps.")
    if codec == STORED and flags & (16 | 32):
        raise ValueError("Stored samples are neither mirrored nor transformed.")
    last = (spaces.LAST if depth == 8 else spaces.FIRST - 1) if mode.startswith("RGB") else 0
    if colours > last:
        raise ValueError(f"There is no colour transform {colours} of {mode}, {depth} bits.")
    return File(
        codec=codec,
        mode=mode,
        depth=depth,
        width=width,
        height=height,
        lossless=bool(flags & 4),
        mirrored=bool(flags & 16),
        colours=colours,
        checksum=int.from_bytes(data[start : start + 4], "big"),
        model=data[start + 4 : end],
        stream=data[position : position + length],
        whole=len(data) >= position + length,
        tile=tile,
        step=step,
        fitted=bool(features & _FITTED),
    )


def leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number and the place after it: seven bits to a byte, the lowest first."""
    number = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise ValueError("The header has a number of more than five bytes.")
