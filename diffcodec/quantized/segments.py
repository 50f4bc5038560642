"""Segments: what the stream of a picture in tiles is made of.

A segment is a rung of a tile: a LEB128 length, and so many bytes of a range coder of its own. The
segments of a rung come tile by tile, row by row, and rungs downwards. In a fitted file each rung
begins with a segment of what it tells of the networks (`rows`). So segments lie in columns, of
which each tile has one.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from diffcodec import container
from diffcodec.container import Header
from diffcodec.limits import Place
from diffcodec.quantized.schedule import DEPTH, FINISH, TOP_RUNG
from diffcodec.streaming import Stream

Segment = tuple[bytes, bool]
"""What there is of a segment, without its length, and whether that is all."""


def places(header: Header) -> list[Place]:
    """Where the tiles of a picture are, row by row: as few as may be, and nearly alike."""
    rows, columns = (
        parts(length, -(-length // header.tile)) for length in (header.height, header.width)
    )
    return [(down, right) for down in rows for right in columns]


def parts(length: int, count: int) -> list[slice]:
    """So many parts of a length, nearly alike."""
    edges = [length * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def rungs(header: Header) -> range:
    """The rungs of every tile, downwards."""
    return range(TOP_RUNG + header.depth - DEPTH - 1, FINISH - 1, -1)


def write(data: bytes) -> bytes:
    """A segment with its length."""
    return container.write_numbers([len(data)]) + data


def join(columns: Iterable[Sequence[bytes]]) -> bytes:
    """The stream of columns of segments, as far down as all of them go."""
    return b"".join(segment for row in zip(*columns, strict=False) for segment in row)


def split(header: Header, stream: bytes) -> tuple[list[Segment], list[list[Segment]]]:
    """What there is of the segments of rows, of which only fitted files have any, and of each
    tile's."""
    rows, tiles = list[Segment](), [list[Segment]() for _ in places(header)]
    position = 0
    for _ in rungs(header):
        for column in [rows, *tiles] if header.fitted else tiles:
            try:
                length, begin = container.read_number(stream, position)
            except IndexError:
                return rows, tiles
            position = begin + length
            data = stream[begin:position]
            column.append((data, len(data) == length))
    return rows, tiles


def ends(header: Header, stream: bytes) -> Iterator[tuple[int, int]]:
    """Each rung that a stream or a prefix of one completes, and the bytes of it that it needs."""
    rows, tiles = split(header, stream)
    end = 0
    for rung, *row in zip(rungs(header), *([rows] if header.fitted else []), *tiles, strict=False):
        if all(whole for _, whole in row):
            end += sum(len(write(data)) for data, _ in row)
            yield rung, end


def wait_for(stream: Stream, start: int) -> tuple[Segment, int]:
    """The segment at some place of a stream, and its end.

    It waits until all of the segment is there, or the stream ends.
    """
    size = start + 1
    while True:
        there = stream.wait_for(size)
        try:
            length, begin = container.read_number(there, start)
        except IndexError:
            if len(there) < size:
                return (b"", False), len(there)
            size = len(there) + 1
            continue
        there = stream.wait_for(begin + length)
        data = there[begin : begin + length]
        return (data, len(data) == length), begin + len(data)
