"""The streams of pictures that the quantised process codes: encoding to limits, decoding prefixes.

A picture is coded as one state of its colours and, with alpha, one more that is grey.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec import container
from diffcodec.container import Boxes, Header
from diffcodec.entropy import BitSampler, Coder, RangeDecoder, RangeEncoder
from diffcodec.limits import Cut, Progress, ignore, part
from diffcodec.quality import psnr
from diffcodec.quantized import colour
from diffcodec.quantized import model as models
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.fitted import Fitted, Shifts
from diffcodec.quantized.model import Model
from diffcodec.quantized.preview import picture, plain
from diffcodec.quantized.pyramid import Pyramid
from diffcodec.quantized.sampling import Sampler
from diffcodec.quantized.schedule import DEPTH, FINISH
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.streaming import Stream, StreamDecoder

Fitter = Callable[[Model, Sequence[State], int, Progress], Shifts]
"""Fits biases to a picture of so many pixels, of which encoders' states have all or some tiles."""

PRECISION = 100
"""A stream that reaches a PSNR may be longer than the shortest by one part in so many."""


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
    """Encode a picture.

    Of the smallest pictures the mirror image is tried as well, and the shorter stream taken. Of
    others a few patches decide on the colour transform. Fitted biases are taken if they pay.

    Args:
        model: the model; None for the installed one that suits.
        header: of the lossless picture; what the stream decides of it comes back changed.
        planes: uint8 or uint16 [C, H, W].
        cut: where the file ends; of a PSNR, about the shortest stream that reaches it.
        boxes: what else goes into the file.
        progress: is called with the fraction of the work that is done.
        fit: what fits biases to the picture; None to leave them as they are.
        rgb: whether it is coded as RGB even if it was converted from another space.

    Returns: header and stream; None if the samples themselves take no more room. Raises
    FormatError if header and boxes exceed the limit.
    """
    model, headers, source = _candidates(model, header, planes, rgb=rgb)
    samples = torch.from_numpy(source.astype(np.int32))
    room, most, stored = rooms(headers[0], planes, cut, boxes)
    shares = len(headers) + (0 if fit is None else 2)
    written = [
        _encode(model, one, samples, planes, most, cut.psnr, part(progress, number, shares))
        for number, one in enumerate(headers)
    ]
    best = min(written, key=lambda one: (not one.whole, len(one.stream), one.stream))
    if fit is not None and best.whole:
        states = image_states(best.header, model, samples)[:1]
        shifts = fit(model, states, header.pixels, part(progress, shares - 2, shares))
        rest = part(progress, shares - 1, shares)
        if shifts:
            other = replace(best.header, fitted=True)
            fitted = _encode(model, other, samples, planes, most, cut.psnr, rest, shifts)
            if fitted.whole and len(fitted.stream) + 1 < len(best.stream):
                best = fitted
        rest(1.0)
    if stored and not (best.whole and len(best.stream) <= most):
        return None
    size = min(len(best.stream), room)
    if cut.psnr is not None:
        size = best.shortest(model, planes, cut.psnr, size)
    header, stream = best.header, best.stream[:size]
    if size < len(best.stream) or not best.whole:
        header = replace(header, lossless=False)
        header = replace(header, checksum=_checksum(header, best.decode(model, size)))
    return (header, stream) if size < planes.nbytes else None


def rooms(header: Header, planes: NDArray, cut: Cut, boxes: Boxes) -> tuple[int, int, bool]:
    """The most bytes that a stream may have and that are worth while; whether its samples fit.

    Where the samples themselves fit into the limit, only a shorter stream is worth while. Raises
    FormatError if header and boxes exceed the limit.
    """
    limit = cut.size(header.pixels)
    room = container.room(header, boxes, limit)
    raw = replace(header, codec=container.STORED, model=b"", colours=0, mirrored=False, tile=0)
    fit = cut.psnr is None and planes.nbytes <= container.room(raw, boxes, limit)
    return room, min(room, planes.nbytes) if fit else room, fit


def decode(
    model: Model,
    header: Header,
    stream: bytes,
    *,
    rung: int | None = None,
    seed: int | None = None,
    visual: bool = False,
    progress: Progress = ignore,
) -> NDArray:
    """Decode a stream or any prefix of one.

    Args:
        model: the model.
        header: of the file.
        stream: as much of it as is used.
        rung: stop where this rung is done.
        seed: of a sample of what the stream leaves open; None for its expectation.
        visual: whether the sample is drawn so that it looks best, not as likely as it is.
        progress: is called with the fraction of the work that is done.

    Returns: uint8 or uint16 [C, H, W]. Raises CorruptError if the stream is whole and its
    pixels do not match their checksum, FormatError for an unknown colour transform.
    """
    states = empty_states(header, model)
    decoder = _decoder(header, stream)
    coder = decoder if seed is None else Sampler(seed, decoder, visual=visual)
    for done in _rungs(model, header, states, coder, progress):
        if rung is not None and FINISH < done <= rung:
            break
    else:
        if header.lossless or seed is None:  # of a lossy file a sample is another picture
            _check(header, len(stream), states)
    return shown_planes(header, states)


def previews(
    model: Model, header: Header, stream: Stream, *, visual: int | None = None
) -> Iterator[tuple[int, int, bool, NDArray]]:
    """Decode a stream once, while it arrives.

    Args: the model; the header; the stream; the seed of what `visual` pictures, as of `decode`,
    have drawn; None for expectations.

    Yields for each rung, and for what is left of a prefix: bytes of the stream that it needs,
    its number, whether it is the last one, and the picture as of `decode`. Raises as `decode`
    does.
    """
    states = empty_states(header, model)
    decoder = StreamDecoder(stream, complete=header.lossless)
    for rung in walk(model, states, decoder):
        if rung == FINISH and header.lossless:
            _check(header, stream.size, states)
        shown = states if visual is None else textured(model, header, states, visual)
        yield decoder.bytes_used, rung, rung == FINISH, shown_planes(header, shown)
    if decoder.ended:
        data = stream.wait_for(stream.size)
        _check(header, len(data), states)
        planes = (
            shown_planes(header, states)
            if visual is None
            else decode(model, header, data, seed=visual, visual=True)
        )
        yield len(data), max(states[0].rungs.values()), True, planes


def cuts(
    model: Model,
    header: Header,
    stream: bytes,
    sizes: Iterable[int],
    *,
    visual: int | None = None,
) -> Iterator[NDArray]:
    """What prefixes of so many bytes show, smaller ones first, as `decode` returns it.

    `visual` is as for `previews`. Each is decoded from the last end of a rung that it has, so that
    many cost little.
    """
    pending, states = sorted(sizes), empty_states(header, model)
    decoder = _decoder(header, stream, track=True)
    rungs = walk(model, states, decoder)
    while pending:
        mark, known = decoder.clone(), [state.clone() for state in states]
        ended = next(rungs, None) is None
        while pending and (ended or pending[0] < decoder.bytes_used):
            size, shown = pending.pop(0), states
            if size < len(stream):
                shown, prefix = [state.clone() for state in known], mark.cut(size)
                assert prefix is not None
                coder = prefix if visual is None else Sampler(visual, prefix, visual=True)
                for _ in _rungs(model, header, shown, coder):
                    pass
            yield shown_planes(header, shown)


def ends(model: Model, header: Header, stream: bytes) -> Iterator[tuple[int, int]]:
    """Each rung that a stream or a prefix of one completes, and the bytes of it that it needs."""
    decoder = _decoder(header, stream, track=True)
    for rung in walk(model, empty_states(header, model), decoder):
        yield rung, decoder.bytes_used


def sample(
    model: Model, mode: str, height: int, width: int, seed: int, progress: Progress = ignore
) -> NDArray:
    """A picture drawn from the model: what a decoder finds in an empty prefix, uint8 [C, H, W]."""
    pyramid = model.process.pyramid(height, width)
    states = [
        State.empty(pyramid, colours, Corrections.of_model(model)) for colours in _parts(mode)
    ]
    for _ in walk(model, states, BitSampler(seed), progress):
        pass
    return _samples(torch.cat([picture(state) for state in states]), DEPTH)


@dataclass
class _Mark:
    """Where an encoder stood at the end of a rung, for decoders to start from."""

    encoder: RangeEncoder
    states: list[State]


@dataclass
class _Written:
    """What an encoder has written, `whole` or the part that matters; marks the last ends of rungs.

    The first mark is the start of the stream.
    """

    header: Header
    stream: bytes
    whole: bool
    marks: list[_Mark]

    def decode(self, model: Model, size: int) -> list[State]:
        """What the first bytes of the stream decode to, if nothing follows them."""
        for mark in reversed(self.marks):
            decoder = self._decoder(mark).cut(size)
            if decoder is not None:
                states = [state.clone() for state in mark.states]
                for _ in walk(model, states, decoder):
                    pass
                return states
        raise AssertionError("any bytes determine the start")

    def shortest(self, model: Model, original: NDArray, quality: float, most: int) -> int:
        """About the fewest bytes that reach a PSNR in dB; `most` if no fewer ones do."""
        low, high = min(self._decoder(self.marks[-1]).bytes_used, most), most
        while high - low > max(1, high // PRECISION):
            middle = (low + high) // 2
            if psnr(shown_planes(self.header, self.decode(model, middle)), original) >= quality:
                high = middle
            else:
                low = middle
        return high

    def _decoder(self, mark: _Mark) -> RangeDecoder:
        """A decoder of the stream that stands at a mark."""
        return RangeDecoder.after(mark.encoder, self.stream, complete=self.whole)


def _encode(
    model: Model,
    header: Header,
    samples: Tensor,
    planes: NDArray,
    most: int,
    quality: float | None,
    progress: Progress,
    shifts: Shifts | None = None,
) -> _Written:
    """Encode int32 [C, H, W], the same as `planes`, up to where a limit is left behind."""
    encoder, states = RangeEncoder(), image_states(header, model, samples, shifts)
    finest = states[0].pyramid.finest
    marks = [_mark(encoder, states)]
    for rung in walk(model, states, encoder, progress):
        if encoder.bits_used > 8 * most:
            break
        if rung != FINISH:
            if quality is not None and psnr(shown_planes(header, states), planes) >= quality:
                break
            marks[1:] = [_mark(encoder, states)]
    whole = all(state.rungs[finest] == FINISH for state in states)
    return _Written(header, encoder.to_bytes(complete=whole), whole, marks)


def _mark(encoder: RangeEncoder, states: list[State]) -> _Mark:
    return _Mark(encoder.clone(), [replace(state, values=None).clone() for state in states])


def _candidates(
    model: Model | None, header: Header, planes: NDArray, *, rgb: bool
) -> tuple[Model, list[Header], NDArray]:
    """As of `colour.prepare`, but with headers of all streams of which the shortest is taken."""
    if max(header.height, header.width) <= models.LARGEST_THUMBNAIL:
        model = model or models.load(models.default(header.height, header.width))
        header = replace(header, model=model.id)
        return model, [header, replace(header, mirrored=True)], planes
    model, header, planes = colour.prepare(model, header, planes, rgb=rgb)
    return model, [header], planes


def _parts(mode: str) -> list[int]:
    """Colours of the states of a mode."""
    colours = 3 if mode.startswith("RGB") else 1
    return [colours, 1] if mode.endswith("A") else [colours]


def _pyramids(model: Model, header: Header) -> list[tuple[int, Pyramid]]:
    """The colours of each state of a picture, and its pyramid."""
    return [
        (
            colours,
            model.process.pyramid(
                header.height,
                header.width,
                header.depth,
                colour.space(header) if colours == 3 else None,
            ),
        )
        for colours in _parts(header.mode)
    ]


def image_states(
    header: Header, model: Model, samples: Tensor, shifts: Shifts | None = None
) -> list[State]:
    """The states of an encoder of int32 [C, H, W] at its start; shifts are for a fitted stream."""
    pyramids = _pyramids(model, header)
    parts = colour.turned(samples, header).split([colours for colours, _ in pyramids])
    states = [
        State.of_image(pyramid, part, Corrections.of_model(model))
        for (_, pyramid), part in zip(pyramids, parts, strict=True)
    ]
    return _fitted(states, header, model, shifts or {})


def _fitted(
    states: list[State], header: Header, model: Model, shifts: Shifts | None
) -> list[State]:
    """The states of a stream: that of the colours has fitted biases if the header says so."""
    if header.fitted:
        states[0].fitted = Fitted(model.network, shifts)
    return states


def empty_states(header: Header, model: Model) -> list[State]:
    """The states of a decoder at its start. Raises FormatError for an unknown transform."""
    colour.check(header)
    states = [
        State.empty(pyramid, colours, Corrections.of_model(model))
        for colours, pyramid in _pyramids(model, header)
    ]
    return _fitted(states, header, model, None)


def _decoder(header: Header, stream: bytes, *, track: bool = False) -> RangeDecoder:
    complete = header.lossless and len(stream) == header.stream_bytes
    return RangeDecoder(stream, complete=complete, track=track)


def textured(
    model: Model, header: Header, states: list[State], seed: int | tuple[int, ...]
) -> list[State]:
    """States at the end of a rung, or others with the texture that these may have."""
    sampler = Sampler(seed, visual=True)
    if sampler.visible(states[0].rungs[states[0].pyramid.finest], header.depth - DEPTH):
        states = [state.clone() for state in states]
        for _ in _rungs(model, header, states, sampler):
            pass
    return states


def _rungs(
    model: Model,
    header: Header,
    states: list[State],
    coder: Coder,
    progress: Progress = ignore,
) -> Iterator[int]:
    """The rungs of a walk; that of a sampler ends where it has drawn what can be seen."""
    if not isinstance(coder, Sampler):
        yield from walk(model, states, coder, progress)
        return
    for rung in walk(model, states, coder, progress, coder.begin):
        yield rung
        if coder.drawn and not coder.visible(rung, header.depth - DEPTH):
            return


def shown_planes(header: Header, states: list[State]) -> NDArray:
    """The picture that is shown, uint8 or uint16 [C, H, W]."""
    return _picture(header, [picture(state) for state in states])


def _samples(planes: Tensor, depth: int) -> NDArray:
    """Planes [C, H, W] as samples of so many bits."""
    return planes.numpy().astype(f"<u{depth // 8}")


def known_planes(header: Header, states: list[State]) -> NDArray:
    """The picture as the cells alone give it, uint8 or uint16 [C, H, W]."""
    return _picture(header, [plain(state) for state in states])


def _picture(header: Header, parts: list[Tensor]) -> NDArray:
    """The picture of what its states show, uint8 or uint16 [C, H, W]."""
    return _samples(colour.turned(torch.cat(parts), header), header.depth)


def _checksum(header: Header, states: list[State]) -> int:
    """The checksum of the picture as the cells alone give it."""
    return container.checksum(known_planes(header, states))


def _check(header: Header, size: int, states: list[State]) -> None:
    """Raise CorruptError if a whole stream did not give the pixels of its checksum."""
    if size == header.stream_bytes:
        container.check(header.checksum, _checksum(header, states))
