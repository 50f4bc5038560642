"""Streams of large pictures: tiles, each coded by itself, whose rungs interleave.

A segment is a rung of a tile: a LEB128 length, and so many bytes of a range coder of its own. The
segments of a rung come tile by tile, row by row, and rungs downwards. So any tile can be decoded
without the others, and memory is that of one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec import container
from diffcodec.container import Boxes, Header
from diffcodec.entropy import (
    Bits,
    Coder,
    Probabilities,
    RangeDecoder,
    RangeEncoder,
)
from diffcodec.limits import Cut, Place, Progress, Region, ignore
from diffcodec.quality import squared_error
from diffcodec.quantized import colour
from diffcodec.quantized.model import Model
from diffcodec.quantized.parallel import each
from diffcodec.quantized.pyramid import mid_grey
from diffcodec.quantized.sampling import Sampler
from diffcodec.quantized.schedule import DEPTH, FINISH, TOP_RUNG
from diffcodec.quantized.step import walk
from diffcodec.quantized.stream import (
    empty_states,
    image_states,
    known_planes,
    rooms,
    shown_planes,
    textured,
)
from diffcodec.streaming import Stream

SIDE = 512
"""The longest side of a tile, unless a caller asks for another."""

COARSE = 4
"""A tile of which only levels from this one on are significant is shown without the denoiser: a
few bytes for each tile of a huge picture must not cost minutes."""

Segment = tuple[bytes, bool]
"""What there is of a segment, without its length, and whether that is all."""


def side(header: Header, wanted: int | None) -> int:
    """The side of the tiles of a picture, as a caller wants them (None: by its size); 0: none.

    Raises FormatError if the caller wants none and it needs them.
    """
    if wanted is None:
        return SIDE if header.pixels > container.UNTILED else 0
    if wanted == 0:
        container.check_untiled(header.pixels)
    return wanted if max(header.width, header.height) > wanted > 0 else 0


def places(header: Header) -> list[Place]:
    """Where the tiles of a picture are, row by row: as few as may be, and nearly alike."""
    rows, columns = (
        [slice(start, end) for start, end in pairwise(edges)]
        for edges in (_edges(header.height, header.tile), _edges(header.width, header.tile))
    )
    return [(down, right) for down in rows for right in columns]


def _edges(length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [length * number // count for number in range(count + 1)]


def encode(
    model: Model,
    header: Header,
    planes: NDArray,
    cut: Cut,
    boxes: Boxes,
    progress: Progress = ignore,
    *,
    rgb: bool = False,
) -> tuple[Header, bytes] | None:
    """Encode a picture; arguments and results as of `stream.encode`."""
    header, source = colour.prepare(model, replace(header, model=model.id), planes, rgb=rgb)
    room, most, stored = rooms(header, planes, cut, boxes)
    tiles, last = list[_Written](), FINISH
    sizes = dict.fromkeys(_rungs(header), 0)

    def work(place: Place, progress: Progress) -> _Written:
        own = _header_of(header, place)
        original = None if cut.psnr is None else planes[:, *place]
        return _encode(model, own, source[:, *place], last, progress, original)

    for tile in each(work, places(header), progress):
        tiles.append(tile)
        for rung, segment in zip(sizes, tile.segments, strict=False):
            sizes[rung] += len(segment)
        if stored and sum(sizes.values()) > most:
            return None
        # No rung after the first that does not fit is in the file.
        ends = zip(sizes, accumulate(sizes.values()), strict=True)
        last = next((rung for rung, end in ends if end > most), FINISH)
    stream = b"".join(
        segment
        for segments in zip(*(tile.segments for tile in tiles), strict=False)
        for segment in segments
    )
    size = min(len(stream), room)
    if cut.psnr is not None:
        size = min(size, _shortest(header, tiles, cut.psnr))
    if last > FINISH or size < len(stream):
        checksum = container.checksum(_known(model, header, stream[:size]))
        header = replace(header, lossless=False, checksum=checksum)
    return (header, stream[:size]) if size < planes.nbytes else None


def decode(
    model: Model,
    header: Header,
    stream: bytes,
    *,
    rung: int | None = None,
    seed: int | None = None,
    visual: bool = False,
    region: Region | None = None,
    progress: Progress = ignore,
) -> NDArray:
    """Decode a stream or any prefix of one; arguments and results as of `stream.decode`.

    Args: `region`: what is wanted of the picture; only its tiles are decoded, and not checked.
    """
    whole = Region(0, 0, header.width, header.height)
    box = region or whole
    shown = _grey(header, box.height, box.width)
    checked = box == whole and rung is None and len(stream) == header.stream_bytes
    checked &= header.lossless or seed is None  # of a lossy file a sample is another picture
    exact = shown.copy() if checked and not header.lossless else shown
    there, segments = places(header), _segments(header, stream)
    shares = [(n, box.shared(place)) for n, place in enumerate(there)]
    wanted = [(n, own) for n, own in shares if own and (segments[n] or seed is not None)]

    def work(one: tuple[int, tuple[Place, Place]], progress: Progress) -> None:
        number, (inside, outside) = one
        sampler = None if seed is None else Sampler((seed, number), visual=visual)
        tile = _Tile(model, _header_of(header, there[number]), sampler)
        tile.take_all(segments[number], rung, progress)
        shown[:, *outside] = tile.shown[:, *inside]
        if exact is not shown:
            exact[:, *outside] = tile.known[:, *inside]

    for _ in each(work, wanted, progress):
        pass
    if checked:
        container.check(header.checksum, container.checksum(exact))
    return shown


def previews(
    model: Model, header: Header, stream: Stream, *, visual: int | None = None
) -> Iterator[tuple[int, int, bool, NDArray]]:
    """Decode a stream once, while it arrives; arguments and results as of `stream.previews`."""
    there, tiles, position = places(header), list[_Tile](), 0
    for rung in _rungs(header):
        for number, place in enumerate(there):
            if number == len(tiles):
                own = None if visual is None else (visual, number)
                tiles.append(_Tile(model, _header_of(header, place), visual=own))
            tile = tiles[number]
            position = tile.take_next(stream, position)
            if tile.ended:
                break
        last = rung == FINISH or tile.ended
        if last and position == header.stream_bytes:
            known = _joined(header, (tile.known for tile in tiles))
            container.check(header.checksum, container.checksum(known))
        shown = _joined(header, (tile.shown for tile in tiles))
        yield position, rung + tile.ended, last, shown
        if last:
            return


def cuts(
    model: Model,
    header: Header,
    stream: bytes,
    sizes: Iterable[int],
    *,
    visual: int | None = None,
) -> Iterator[NDArray]:
    """What prefixes of so many bytes show, smaller ones first, as `decode` returns it."""
    how: dict[str, Any] = {"seed": visual, "visual": visual is not None}
    return (decode(model, header, stream[: max(size, 0)], **how) for size in sorted(sizes))


def ends(header: Header, stream: bytes) -> Iterator[tuple[int, int]]:
    """Each rung that a stream or a prefix of one completes, and the bytes of it that it needs."""
    segments, end = _segments(header, stream), 0
    for rung, *row in zip(_rungs(header), *segments, strict=False):
        if all(whole for _, whole in row):
            end += sum(len(data) + len(container.write_numbers([len(data)])) for data, _ in row)
            yield rung, end


class _Relay:
    """Passes bits to the coder of a segment, and what that does not give to a sampler."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.coder: Coder = RangeDecoder(b"", complete=False)
        self.sampler = sampler

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """As of `Coder`."""
        bits = self.coder.code(probabilities, truth)
        if self.sampler is None or len(bits) == len(probabilities):
            return bits
        return np.concatenate([bits, self.sampler.code(probabilities[len(bits) :])])

    def begin(self, colour: int) -> None:
        """As of `Sampler`."""
        if self.sampler is not None:
            self.sampler.begin(colour)


class _Tile:
    """What a decoder knows of a tile.

    Args: the model; the header of the tile as a picture of its own; what draws where bits are
    missing, if anything does; else the seed of the texture that is shown at the ends of rungs.
    Attributes: `rung` is the last one that is done; `ended` says if the data ended in the next.
    """

    def __init__(
        self,
        model: Model,
        header: Header,
        sampler: Sampler | None = None,
        *,
        visual: tuple[int, int] | None = None,
    ) -> None:
        self._model, self._header, self._visual = model, header, visual
        self._states = empty_states(header, model)
        self._relay = _Relay(sampler)
        self._walk = walk(model, self._states, self._relay, begin=self._relay.begin)
        self.rung, self.ended = self._states[0].pyramid.top, False

    def take(self, data: bytes, whole: bool) -> None:
        """Decode the next rung from as much of its segment as there is."""
        self._relay.coder = RangeDecoder(data, complete=whole)
        self._advance()

    def take_all(self, segments: Sequence[Segment], rung: int | None, progress: Progress) -> None:
        """Decode as much as there is of all segments, and as is wanted; draw what is left."""
        for done, segment in enumerate(segments):
            progress(done / len(segments))
            self.take(*segment)
            if self.ended or FINISH < self.rung <= (rung or 0):
                return
        sampler, extra_bits = self._relay.sampler, self._header.depth - DEPTH
        while sampler is not None and self.rung > max(rung or 0, FINISH):
            if sampler.drawn and not sampler.visible(self.rung, extra_bits):
                return
            self._relay.coder = sampler
            self._advance()

    def take_next(self, stream: Stream, start: int) -> int:
        """Decode the next rung from a segment at some place of a stream; return its end.

        It waits until all of the segment is there, or the stream ends.
        """
        size = start + 1
        while True:
            there = stream.wait_for(size)
            try:
                length, begin = container.read_number(there, start)
            except IndexError:
                if len(there) < size:
                    self.ended = True
                    return len(there)
                size = len(there) + 1
                continue
            there = stream.wait_for(begin + length)
            data = there[begin : begin + length]
            self.take(data, len(data) == length)
            return begin + len(data)

    @property
    def shown(self) -> NDArray:
        """As it is shown, uint8 or uint16 [C, h, w]."""
        header = self._header
        levels = [level for state in self._states for level in state.significant]
        if not levels:
            return _grey(header, header.height, header.width)
        if min(levels) >= COARSE:
            return known_planes(header, self._states)
        if self._visual is None or self.ended:
            return shown_planes(header, self._states)
        return shown_planes(header, textured(self._model, header, self._states, self._visual))

    @property
    def known(self) -> NDArray:
        """As its cells alone describe it."""
        return known_planes(self._header, self._states)

    def _advance(self) -> None:
        done = next(self._walk, None)
        self.ended = done is None
        self.rung = self.rung if done is None else done


@dataclass
class _Written:
    """What an encoder has made of a tile.

    Attributes: the segments of its rungs, with their lengths; if asked for, the squared errors
    of what it shows before the first and after each.
    """

    segments: list[bytes] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def _encode(
    model: Model,
    header: Header,
    planes: NDArray,
    last: int,
    progress: Progress,
    original: NDArray | None,
) -> _Written:
    """Encode the rungs of a tile [C, h, w] down to the last one that is wanted.

    Args: `planes` as `colour.prepare` gives them; the picture, if errors are asked for.
    """
    relay, written = _Relay(), _Written()
    states = image_states(header, model, torch.from_numpy(planes.astype(np.int32)))
    if original is not None:
        grey = np.full_like(original, mid_grey(header.depth))
        written.errors.append(squared_error(grey, original))
    relay.coder = encoder = RangeEncoder()
    for rung in walk(model, states, relay, progress):
        data = encoder.to_bytes()
        written.segments.append(container.write_numbers([len(data)]) + data)
        relay.coder = encoder = RangeEncoder()
        if original is not None:
            written.errors.append(squared_error(shown_planes(header, states), original))
        if rung == last:
            break
    return written


def _known(model: Model, header: Header, stream: bytes) -> NDArray:
    """The picture as the cells of a stream alone describe it, uint8 or uint16 [C, H, W]."""

    def work(one: tuple[Place, list[Segment]], progress: Progress) -> NDArray:
        place, segments = one
        tile = _Tile(model, _header_of(header, place))
        tile.take_all(segments, None, progress)
        return tile.known

    tiles = zip(places(header), _segments(header, stream), strict=True)
    return _joined(header, each(work, tiles))


def _shortest(header: Header, tiles: Sequence[_Written], quality: float) -> int:
    """About the fewest bytes that reach a PSNR in dB: whole segments."""
    peak = (1 << header.depth) - 1
    enough = peak**2 * header.pixels * len(header.mode) / 10 ** (quality / 10)
    error, size = sum(tile.errors[0] for tile in tiles), 0
    for before, segments in enumerate(zip(*(tile.segments for tile in tiles), strict=False)):
        for tile, segment in zip(tiles, segments, strict=True):
            if error <= enough:
                return size
            error += tile.errors[before + 1] - tile.errors[before]
            size += len(segment)
    return size


def _segments(header: Header, stream: bytes) -> list[list[Segment]]:
    """What there is of each tile's segments."""
    found: list[list[Segment]] = [[] for _ in places(header)]
    position = 0
    for _ in _rungs(header):
        for own in found:
            try:
                length, begin = container.read_number(stream, position)
            except IndexError:
                return found
            position = begin + length
            data = stream[begin:position]
            own.append((data, len(data) == length))
    return found


def _rungs(header: Header) -> range:
    """The rungs of every tile, downwards."""
    return range(TOP_RUNG + header.depth - DEPTH - 1, FINISH - 1, -1)


def _header_of(header: Header, place: Place) -> Header:
    """The header of a tile as a picture of its own."""
    rows, columns = place
    return replace(
        header, height=rows.stop - rows.start, width=columns.stop - columns.start, tile=0
    )


def _joined(header: Header, tiles: Iterable[NDArray]) -> NDArray:
    """The picture, uint8 or uint16 [C, H, W], of planes of its first tiles; the rest is grey."""
    whole = _grey(header, header.height, header.width)
    for (rows, columns), planes in zip(places(header), tiles, strict=False):
        whole[:, rows, columns] = planes
    return whole


def _grey(header: Header, height: int, width: int) -> NDArray:
    """What is shown where nothing is known, uint8 or uint16 [C, height, width]."""
    shape = len(header.mode), height, width
    return np.full(shape, mid_grey(header.depth), f"<u{header.depth // 8}")
