"""The stored form: the samples themselves, in an order whose every prefix is a whole picture.

Pixels come grid by grid, each of half the spacing of the one before and without the pixels of
that, row by row. A pixel's samples lie together; of 16 bits the low byte comes first. It is for
pictures that no model makes smaller, such as noise.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffcodec import container
from diffcodec.container import Header
from diffcodec.streaming import Stream

FINISH = 1
"""The number of the last grid. Coarser ones count up, as rungs do."""


def encode(planes: NDArray) -> bytes:
    """The stream of a picture, uint8 or uint16 [C, H, W]."""
    pixels = np.moveaxis(planes, 0, -1).astype(_samples(8 * planes.itemsize))
    grids = _grids(*planes.shape[1:])
    return b"".join(pixels[::spacing, ::spacing][new].tobytes() for spacing, new in grids)


def decode(header: Header, stream: bytes) -> NDArray:
    """The picture of a stream or of a prefix of one, uint8 or uint16 [C, H, W].

    Where a pixel is missing the nearest one above and to the left of a coarser grid stands in, and
    grey if there is none at all. Raises CorruptError if the stream is whole and its pixels do not
    match their checksum.
    """
    size, kind = _pixel_bytes(header), _samples(header.depth)
    left = np.frombuffer(stream, kind, len(stream) // size * len(header.mode))
    left = left.reshape(-1, len(header.mode))
    pixels = np.full((1, 1, len(header.mode)), 1 << header.depth - 1, kind)
    for _, new in _grids(header.height, header.width):
        rows, columns = new.shape
        pixels = pixels.repeat(2, 0).repeat(2, 1)[:rows, :columns]
        new[new] = np.arange(np.count_nonzero(new)) < len(left)
        count = np.count_nonzero(new)
        pixels[new], left = left[:count], left[count:]
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    if len(stream) == header.stream_bytes:
        container.check(header.checksum, container.checksum(planes))
    return planes


def previews(header: Header, stream: Stream) -> Iterator[tuple[int, int, bool, NDArray]]:
    """Decode a stream while it arrives.

    Yields for each grid, and for what is left of a prefix: bytes of the stream that it needs, its
    number, whether it is the last one, and the picture as of `decode`. Raises as `decode` does.
    """
    rung = _grid_ends(header)[0][0]
    for number, end in _grid_ends(header):
        there = stream.wait_for(end)
        if len(there) < end:
            yield len(there), rung, True, decode(header, there)
            return
        rung = number
        yield end, rung, rung == FINISH, decode(header, there[:end])


def ends(header: Header, stream: bytes) -> Iterator[tuple[int, int]]:
    """Each grid that a stream or a prefix of one completes, and the bytes of it that it needs."""
    return ((number, end) for number, end in _grid_ends(header) if end <= len(stream))


def _grid_ends(header: Header) -> list[tuple[int, int]]:
    return [
        (
            FINISH + spacing.bit_length() - 1,
            _pixel_bytes(header) * -(-header.height // spacing) * -(-header.width // spacing),
        )
        for spacing in _spacings(header.height, header.width)
    ]


def _pixel_bytes(header: Header) -> int:
    return len(header.mode) * header.depth // 8


def _spacings(height: int, width: int) -> list[int]:
    return [1 << power for power in reversed(range((max(height, width) - 1).bit_length() + 1))]


def _grids(height: int, width: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Spacing of each grid, and which of its places are not in the one before, [rows, columns]."""
    coarsest = _spacings(height, width)[0]
    for spacing in _spacings(height, width):
        new = np.ones((-(-height // spacing), -(-width // spacing)), np.bool_)
        new[::2, ::2] = spacing == coarsest
        yield spacing, new


def _samples(depth: int) -> np.dtype:
    return np.dtype(f"<u{depth // 8}")
