"""The tiles of a large picture: their places, and their segments of the stream."""

from collections.abc import Iterator
from itertools import pairwise

from .coder import RangeDecoder
from .container import File, leb128


def of(file: File) -> Iterator[tuple[slice, slice, list[RangeDecoder]]]:
    """Rows and columns of each tile, and a decoder for each of its rungs that has begun."""
    rows, columns = _parts(file.height, file.tile), _parts(file.width, file.tile)
    segments = list(_segments(file.stream))
    count = len(rows) * len(columns)
    for number in range(count):
        row, column = divmod(number, len(columns))
        yield rows[row], columns[column], segments[number::count]


def _parts(length: int, side: int) -> list[slice]:
    count = -(-length // side)
    edges = [length * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def _segments(stream: bytes) -> Iterator[RangeDecoder]:
    position = 0
    while True:
        try:
            length, start = leb128(stream, position)
        except IndexError:
            return
        position = start + length
        data = stream[start:position]
        yield RangeDecoder(data, complete=len(data) == length)
