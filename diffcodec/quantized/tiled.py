"""Streams of large pictures: tiles, each coded by itself, whose rungs interleave.

A tile is coded as a picture of its own, in `segments`. So any tile can be decoded without the
others, and memory is that of one.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec import container
from diffcodec.container import Boxes, Header
from diffcodec.entropy import RangeEncoder
from diffcodec.limits import Cut, Place, Progress, Region, ignore, part
from diffcodec.quality import squared_error
from diffcodec.quantized import colour, rows, segments
from diffcodec.quantized.fitted import Fitted
from diffcodec.quantized.model import Model
from diffcodec.quantized.parallel import each
from diffcodec.quantized.sampling import Sampler
from diffcodec.quantized.schedule import FINISH
from diffcodec.quantized.segments import Segment, parts, places
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.quantized.stream import Fitter, image_states, rooms, shown_planes
from diffcodec.quantized.tile_state import Relay, Tile
from diffcodec.streaming import Stream

SIDE = 512
"""The longest side of a tile, unless a caller asks for another."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole parts, are spread as evenly as can be."""

LOOKED_AT = 1 << 21
"""Pixels of the tiles that a model is fitted to, at most, unless one tile has more; they bound its
time and memory."""


def side(header: Header, wanted: int | None) -> int:
    """The side of the tiles of a picture, as a caller wants them (None: by its size); 0: none.

    Raises FormatError if the caller wants none and it needs them.
    """
    if wanted is None:
        return SIDE if header.pixels > container.UNTILED else 0
    if wanted == 0:
        container.check_untiled(header.pixels)
    return wanted if max(header.width, header.height) > wanted > 0 else 0


def encode(
    model: Model | None,
    header: Header,
    planes: NDArray,
    cut: Cut,
    boxes: Boxes,
    progress: Progress = ignore,
    fit: Fitter | None = None,
    *,
    rgb: bool = False,
) -> tuple[Header, bytes] | None:
    """Encode a picture; arguments and results as of `stream.encode`.

    A model is fitted to some of the tiles, and what has paid there is taken.
    """
    model, header, source = colour.prepare(model, header, planes, rgb=rgb)
    fitted, told = None, list[bytes]()
    if fit is not None:
        states = [_states(model, header, source, place)[0] for place in _looked_at(header)]
        shifts = fit(model, states, header.pixels, part(progress, 0, 2))
        progress = part(progress, 1, 2)
        if shifts:
            header = replace(header, fitted=True)
            fitted, told = rows.write(model, header, shifts)
    room, most, stored = rooms(header, planes, cut, boxes)
    tiles, last = list[_Written](), FINISH
    sizes = dict.fromkeys(segments.rungs(header), 0)
    sizes |= {rung: len(segment) for rung, segment in zip(sizes, told, strict=False)}

    def work(place: Place, progress: Progress) -> _Written:
        states = _states(model, header, source, place, fitted)
        original = None if cut.psnr is None else planes[:, *place]
        return _encode(model, _header_of(header, place), states, last, progress, original)

    for tile in each(work, places(header), progress):
        tiles.append(tile)
        for rung, segment in zip(sizes, tile.segments, strict=False):
            sizes[rung] += len(segment)
        if stored and sum(sizes.values()) > most:
            return None
        # No rung after the first that does not fit is in the file.
        ends = zip(sizes, accumulate(sizes.values()), strict=True)
        last = next((rung for rung, end in ends if end > most), FINISH)
    columns = [tile.segments for tile in tiles]
    stream = segments.join([told, *columns] if header.fitted else columns)
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
    shown = colour.blank(header, box.height, box.width)
    checked = box == whole and rung is None and len(stream) == header.stream_bytes
    checked &= header.lossless or seed is None  # of a lossy file a sample is another picture
    exact = shown.copy() if checked and not header.lossless else shown
    there, (told, columns) = places(header), segments.split(header, stream)
    fitted = rows.read(model, header, told)
    shares = [(n, box.shared(place)) for n, place in enumerate(there)]
    wanted = [(n, own) for n, own in shares if own and (columns[n] or seed is not None)]

    def work(one: tuple[int, tuple[Place, Place]], progress: Progress) -> None:
        number, (inside, outside) = one
        sampler = None if seed is None else Sampler((seed, number), visual=visual)
        own = copy(fitted)  # a sampler is asked for rows that are missing
        tile = Tile(model, _header_of(header, there[number]), own, sampler)
        tile.take_all(columns[number], rung, progress)
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
    there, tiles, position = places(header), list[Tile](), 0
    fitted = rows.start(model, header)
    for rung in segments.rungs(header):
        ended = False
        if fitted is not None:
            segment, position = segments.wait_for(stream, position)
            ended = not rows.take(model, header, fitted, rung, segment)
        for number, place in enumerate([] if ended else there):
            if number == len(tiles):
                own = None if visual is None else (visual, number)
                tiles.append(Tile(model, _header_of(header, place), fitted, visual=own))
            segment, position = segments.wait_for(stream, position)
            tiles[number].take(*segment)
            ended = tiles[number].ended
            if ended:
                break
        last = rung == FINISH or ended
        if last and position == header.stream_bytes:
            known = _joined(header, (tile.known for tile in tiles))
            container.check(header.checksum, container.checksum(known))
        shown = _joined(header, (tile.shown for tile in tiles))
        yield position, rung + ended, last, shown
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


@dataclass
class _Written:
    """What an encoder has made of a tile.

    Attributes: the segments of its rungs, with their lengths; if asked for, the squared errors
    of what it shows before the first and after each.
    """

    segments: list[bytes] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def _states(
    model: Model, header: Header, planes: NDArray, place: Place, fitted: Fitted | None = None
) -> list[State]:
    """The states of an encoder of a tile of planes as `colour.prepare` gives them."""
    samples = torch.from_numpy(planes[:, *place].astype(np.int32))
    states = image_states(_header_of(header, place), model, samples)
    states[0].fitted = fitted
    return states


def _looked_at(header: Header) -> list[Place]:
    """The tiles that a model is fitted to: of all, row by row, one of each of equal stretches.

    Where in its stretch each is changes, so that they are not of one column.
    """
    there = places(header)
    count = min(len(there), max(1, LOOKED_AT * len(there) // header.pixels))
    fractions = [number * GOLDEN % 1 for number in range(count)]
    stretches = zip(parts(len(there), count), fractions, strict=True)
    return [there[own.start + int(at * (own.stop - own.start))] for own, at in stretches]


def _encode(
    model: Model,
    header: Header,
    states: list[State],
    last: int,
    progress: Progress,
    original: NDArray | None,
) -> _Written:
    """Encode the rungs of a tile down to the last one that is wanted.

    Args: the model; the tile's header and states; the tile, if errors are asked for.
    """
    relay, written = Relay(), _Written()
    if original is not None:
        grey = colour.blank(header, header.height, header.width)
        written.errors.append(squared_error(grey, original))
    relay.coder = encoder = RangeEncoder()
    for rung in walk(model, states, relay, progress):
        written.segments.append(segments.write(encoder.to_bytes()))
        relay.coder = encoder = RangeEncoder()
        if original is not None:
            written.errors.append(squared_error(shown_planes(header, states), original))
        if rung == last:
            break
    return written


def _known(model: Model, header: Header, stream: bytes) -> NDArray:
    """The picture as the cells of a stream alone describe it, uint8 or uint16 [C, H, W]."""

    told, columns = segments.split(header, stream)
    fitted = rows.read(model, header, told)

    def work(one: tuple[Place, list[Segment]], progress: Progress) -> NDArray:
        place, column = one
        tile = Tile(model, _header_of(header, place), fitted)
        tile.take_all(column, None, progress)
        return tile.known

    return _joined(header, each(work, zip(places(header), columns, strict=True)))


def _shortest(header: Header, tiles: Sequence[_Written], quality: float) -> int:
    """About the fewest bytes that reach a PSNR in dB: whole segments."""
    peak = (1 << header.depth) - 1
    enough = peak**2 * header.pixels * len(header.mode) / 10 ** (quality / 10)
    error, size = sum(tile.errors[0] for tile in tiles), 0
    for before, rung in enumerate(zip(*(tile.segments for tile in tiles), strict=False)):
        for tile, segment in zip(tiles, rung, strict=True):
            if error <= enough:
                return size
            error += tile.errors[before + 1] - tile.errors[before]
            size += len(segment)
    return size


def _header_of(header: Header, place: Place) -> Header:
    """The header of a tile as a picture of its own."""
    down, right = place
    return replace(
        header,
        height=down.stop - down.start,
        width=right.stop - right.start,
        tile=0,
        fitted=False,
    )


def _joined(header: Header, tiles: Iterable[NDArray]) -> NDArray:
    """The picture, uint8 or uint16 [C, H, W], of planes of its first tiles; the rest is grey."""
    whole = colour.blank(header, header.height, header.width)
    for place, planes in zip(places(header), tiles, strict=False):
        whole[:, *place] = planes
    return whole
