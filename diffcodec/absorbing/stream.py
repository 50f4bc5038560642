"""The streams of drawings: encoding, cutting, decoding of prefixes."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from numpy.typing import NDArray

from diffcodec import container
from diffcodec.absorbing.model import Model
from diffcodec.absorbing.state import State, planes
from diffcodec.absorbing.step import walk
from diffcodec.container import Boxes, Header
from diffcodec.entropy import BitSampler, Coder, RangeDecoder, RangeEncoder
from diffcodec.limits import Cut, Progress, ignore
from diffcodec.quality import psnr
from diffcodec.streaming import Stream, StreamDecoder

PRECISION = 100
"""A stream that reaches a PSNR may be longer than the shortest by one part in so many."""


def encode(
    model: Model, header: Header, samples: NDArray, most: int, progress: Progress = ignore
) -> tuple[Header, bytes] | None:
    """Encode a picture, losslessly.

    Args:
        model: the model.
        header: of the lossless picture; what the stream decides of it comes back changed.
        samples: uint8 or uint16 [C, H, W].
        most: bytes; it gives up where the stream is longer.
        progress: is called with the fraction of the work that is done.

    Returns: header and stream; None if it gave up.
    """
    encoder, state = RangeEncoder(), State.of_image(model, header.mode, samples)
    for _ in walk(model.curves, state, encoder, progress):
        if encoder.bits_used > 8 * most:
            return None
    stream = encoder.to_bytes()
    if len(stream) > most:
        return None
    return replace(header, codec=container.ABSORBING, model=model.id), stream


def cut(
    model: Model, header: Header, stream: bytes, samples: NDArray, limit: Cut, boxes: Boxes
) -> tuple[Header, bytes]:
    """Header and stream of a lossy picture: the first bytes of a lossless stream.

    Args: the model; header and stream of the lossless picture; its samples; where it is cut; what
    else goes into the file. Raises FormatError if header and boxes exceed the limit.
    """
    room = container.room(header, boxes, limit.size(header.pixels))
    low, high = 0, min(len(stream), room)
    while limit.psnr is not None and high - low > max(1, high // PRECISION):
        middle = (low + high) // 2
        good = psnr(_shown(model, header, stream[:middle]), samples) >= limit.psnr
        low, high = (low, middle) if good else (middle, high)
    if high == len(stream):
        return header, stream
    found = container.checksum(_shown(model, header, stream[:high]))
    return replace(header, lossless=False, checksum=found), stream[:high]


def decode(
    model: Model,
    header: Header,
    stream: bytes,
    *,
    rung: int | None = None,
    seed: int | None = None,
    progress: Progress = ignore,
) -> NDArray:
    """Decode a stream or any prefix of one.

    Args:
        model: the model.
        header: of the file.
        stream: as much of it as is used.
        rung: stop where this grid is known.
        seed: of a sample of what the stream leaves open; None for its likeliest colours.
        progress: is called with the fraction of the work that is done.

    Returns: uint8 or uint16 [C, H, W]. Raises CorruptError if the stream is whole and its pixels do
    not match their checksum.
    """
    state = _empty(model, header)
    complete = header.lossless and len(stream) == header.stream_bytes
    decoder: Coder = RangeDecoder(stream, complete=complete)
    if seed is not None:
        decoder = BitSampler(seed, decoder)
    for done in walk(model.curves, state, decoder, progress):
        if rung is not None and done <= rung and not state.finished:
            return planes(state, header.depth)
    shown = planes(state, header.depth)
    whole = len(stream) == header.stream_bytes
    if whole and (header.lossless or seed is None):
        container.check(header.checksum, container.checksum(shown))
    return shown


def previews(
    model: Model, header: Header, stream: Stream
) -> Iterator[tuple[int, int, bool, NDArray]]:
    """Decode a stream once, while it arrives.

    Yields for each grid, and for what is left of a prefix: bytes of the stream that it needs, its
    rung, whether it is the last one, and the picture as of `decode`. Raises as `decode` does.
    """
    state = _empty(model, header)
    decoder = StreamDecoder(stream, complete=header.lossless)
    for rung in walk(model.curves, state, decoder):
        shown = planes(state, header.depth)
        if state.finished and header.lossless:
            container.check(header.checksum, container.checksum(shown))
        yield decoder.bytes_used, rung, state.finished, shown
    if decoder.ended:
        size, shown = len(stream.wait_for(stream.size)), planes(state, header.depth)
        if size == header.stream_bytes:
            container.check(header.checksum, container.checksum(shown))
        yield size, state.rungs[0] if state.rung is None else state.rung, True, shown


def cuts(model: Model, header: Header, stream: bytes, sizes: Iterable[int]) -> Iterator[NDArray]:
    """What prefixes of so many bytes show, smaller ones first, as `decode` returns it."""
    return (decode(model, header, stream[: max(size, 0)]) for size in sorted(sizes))


def ends(model: Model, header: Header, stream: bytes) -> Iterator[tuple[int, int]]:
    """Each rung that a stream or a prefix of one completes, and the bytes of it that it needs."""
    complete = header.lossless and len(stream) == header.stream_bytes
    decoder = RangeDecoder(stream, complete=complete, track=True)
    for rung in walk(model.curves, _empty(model, header), decoder):
        yield rung, decoder.bytes_used


def _shown(model: Model, header: Header, part: bytes) -> NDArray:
    """What a part of a stream shows."""
    return decode(model, replace(header, lossless=False, stream_bytes=len(part) + 1), part)


def _empty(model: Model, header: Header) -> State:
    return State.empty(model, header.mode, header.height, header.width, header.depth)
