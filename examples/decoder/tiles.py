"""The tiles of a large picture: their places, and their segments of the stream."""

from collections.abc import Iterator
from itertools import pairwise

from .coder import RangeDecoder
from .container import File, leb128


def of(file: File) -> Iterator[tuple[slice, slice, list[RangeDecoder]]]:
    """Rows and columns of each tile, and a decoder for each of its rungs that has begun."""
    rows, columns = _parts(file.height, file.tile), _parts(file.width, file.tile)
    places = [(down, right) for down in rows for right in columns]
    segments, period = list(_segments(file.stream)), len(places) + file.fitted
    for number, (down, right) in enumerate(places, start=int(file.fitted)):
        yield down, right, segments[number::period]


def fitted(file: File) -> list[RangeDecoder]:
    """A decoder for each rung that has begun of what a fitted file says of the networks."""
    count = len(_parts(file.height, file.tile)) * len(_parts(file.width, file.tile))
    return list(_segments(file.stream))[:: count + 1]


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
