"""The public API: whole pictures and files, and nothing of how they are coded."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcodec import bitstream
from diffcodec.arrival import Arrival, ArrivingDecoder
from diffcodec.bitstream import MODES, File, Header, check_size
from diffcodec.entropy import BitSampler, Coder, RangeDecoder, RangeEncoder, bytes_for
from diffcodec.errors import CorruptError, FormatError
from diffcodec.exact import files
from diffcodec.imageio import Picture, from_planes, metadata, to_pillow, to_planes
from diffcodec.quality import plane_psnr
from diffcodec.quantized import model as models
from diffcodec.quantized import trial
from diffcodec.quantized.codec import walk
from diffcodec.quantized.model import Model
from diffcodec.quantized.preview import picture, plain
from diffcodec.quantized.schedule import DEPTH, FINISH
from diffcodec.quantized.state import State
from diffcodec.quantized.versions import RULES
from diffcodec.transforms.colour import EXCHANGES, GREEN, exchanged

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Preview:
    """A picture on the way: the first `bytes_used` bytes complete `rung`, which it shows.

    `picture` is a Pillow image, or a DeepImage where there are colours of 16 bits; `complete` says
    whether the whole file was there when it was made.
    """

    bytes_used: int
    rung: int
    picture: Picture
    complete: bool

    @property
    def image(self) -> Image.Image:
        """The picture as Pillow's; raises ImageError for a DeepImage."""
        return to_pillow(self.picture)


@dataclass(frozen=True)
class Rung:
    """Where a rung ends: bytes from the start of the file, and those in bits per pixel."""

    rung: int
    bytes: int
    bpp: float


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    `depth` is the bits per sample, `model` the id of the weights in hexadecimal, `checksum` the
    CRC-32 of the pixels; `bytes` are there of `total_bytes` (which leave out the metadata while a
    prefix does not tell their length).
    """

    width: int
    height: int
    mode: str
    depth: int
    model: str
    checksum: int
    lossless: bool
    complete: bool
    bytes: int
    total_bytes: int
    rungs: list[Rung]


def encode(
    image: Picture | NDArray,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    model: Path | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Encode a picture, bit for bit lossless unless one of the limits is given.

    Of the smallest pictures the mirror image is tried as well, and the shorter stream taken. Of
    others a few patches tell whether two colours had better be exchanged.

    Args:
        image: a picture of mode L, LA, RGB, RGBA, P, 1 or I;16, or an array uint8 or uint16
            [H, W] or [H, W, C] of grey, grey and alpha, RGB or RGBA, or a DeepImage, which is
            an array with metadata.
        bpp, max_bytes: the file, header and metadata included, is at most so large.
        psnr: the file is about the shortest whose picture reaches this quality, in dB over all
            samples.
        model: a model file in place of the default one for pictures of that size.
        progress: is called with the fraction of the work that is done.

    Raises ImageError for other modes, FormatError for a picture beyond the size limit or a byte
    limit that the header alone exceeds, ModelError for an unusable model file.
    """
    mode, planes = to_planes(image)
    icc, exif = (b"", b"") if isinstance(image, np.ndarray) else metadata(image)
    weights = models.load(model or models.default(*planes.shape[1:]))
    header = Header(
        mode=mode,
        width=planes.shape[2],
        height=planes.shape[1],
        model=weights.id,
        checksum=zlib.crc32(planes.astype(f"<u{planes.itemsize}").tobytes()),
        stream_bytes=0,
        lossless=True,
        has_metadata=bool(icc or exif),
        depth=8 * planes.itemsize,
    )
    check_size(header.width, header.height)
    limit = _limit(header, bpp, max_bytes)
    budget = None if limit is None else _stream_budget(header, icc, exif, limit)
    samples = torch.from_numpy(planes.astype(np.int32))
    ways = _ways(weights, header, samples)
    written = (
        _encode(weights, way, samples, budget, _part(progress or _ignore, number, len(ways)))
        for number, way in enumerate(ways)
    )
    header, stream = min(written, key=lambda way: (len(way[1]), way[1]))
    size = len(stream) if budget is None else min(budget, len(stream))
    if psnr is not None:
        enough = _budget_for_psnr(weights, header, stream, planes, psnr)
        size = min(size, enough)
    if size < len(stream) or not header.lossless:
        stream = stream[:size]
        header = replace(header, lossless=False)
        states = _decode(weights, header, _decoder(header, stream))
        header = replace(header, checksum=_checksum(header, states))
    header = replace(header, stream_bytes=len(stream))
    return bitstream.write(header, stream, icc, exif)


def decode(
    data: bytes,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    rung: int | None = None,
    detail: str = "mean",
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> Image.Image:
    """Decode a file or any prefix of one that has the header.

    Args:
        data: the bytes.
        bpp, max_bytes: use only so much of the file.
        rung: stop where this rung is done and show what it tells.
        detail: "mean" shows what a prefix leaves open as its expectation; "sample" draws it from
            the model's conditionals, with `seed`.
        model: the model file that the file was made with, if it is not an installed one.
        progress: is called with the fraction of the work that is done.

    Raises FormatError if this is no .dfc file, ModelError if its model is not there, CorruptError
    if a complete file does not decode to the pixels of its checksum, ImageError for 16-bit samples
    in a mode that Pillow lacks (see `decode_picture` and `decode_array`).
    """
    planes, file = _read(data, bpp, max_bytes, rung, detail, seed, model, progress)
    return to_pillow(_picture(file, planes))


def decode_picture(data: bytes, **options: Any) -> Picture:
    """Decode as `decode` does, with its options; colours of 16 bits come as a DeepImage."""
    planes, file = _read(data, **options)
    return _picture(file, planes)


def decode_array(data: bytes, **options: Any) -> NDArray:
    """Decode as `decode` does, with its options, to uint8 or uint16 [H, W] or [H, W, C]."""
    planes, _ = _read(data, **options)
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def _read(
    data: bytes,
    bpp: float | None = None,
    max_bytes: int | None = None,
    rung: int | None = None,
    detail: str = "mean",
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray, File]:
    """The planes [C, H, W] of as much of a file as the limits allow, and that."""
    if detail not in ("mean", "sample"):
        raise ValueError(f"detail is 'mean' or 'sample', not {detail!r}")
    header, start = bitstream.read_header(data)
    limit = _limit(header, bpp, max_bytes)
    if limit is not None:
        data = data[: max(limit, start)]  # without its header there is no picture at all
    file = bitstream.read(data)
    decoder: Coder = _decoder(header, file.stream)
    if detail == "sample":
        decoder = BitSampler(seed, decoder)
    weights = _model(header, model)
    states = _empty_states(header, weights)
    for done in walk(weights, states, decoder, progress or _ignore):
        if rung is not None and FINISH < done <= rung:
            break
    else:
        if header.lossless or detail == "mean":  # of a lossy file a sample is another picture
            _check(file, states)
    return _planes(header, states), file


def decode_progressive(source: bytes | BinaryIO, *, model: Path | None = None) -> Iterator[Preview]:
    """Decode once and yield the picture after each rung, and after what is left of a prefix.

    A pipe, a socket's file or an HTTP response is read as its bytes arrive, and each picture
    comes as soon as its bytes are there, at the latest when an eighth more than those are: that
    is when a decoder that has run dry tries again. The network computes each step once; of
    range decoding, which is quick, a slow source may cause up to nine times as much.

    The last picture of a complete file is the original, with its metadata, which it waits for.
    Raises as `decode` does.
    """
    arrival = Arrival(source)
    header, start = bitstream.read_header(arrival.wait_for(bitstream.MAX_HEADER))
    weights = _model(header, model)
    end = start + header.stream_bytes
    decoder = ArrivingDecoder(arrival, start, end, partial(_decoder, header, track=True))
    states = _empty_states(header, weights)
    for rung in walk(weights, states, decoder):
        if rung == FINISH:
            _wait_for_metadata(arrival)
        file = bitstream.read(arrival.data)
        if rung == FINISH and header.lossless:
            _check(file, states)
        shown = _picture(file, _planes(header, states))
        yield Preview(_end(file, decoder), rung, shown, file.complete)
    if decoder.ended:
        _wait_for_metadata(arrival)
        file = bitstream.read(arrival.data)
        _check(file, states)
        rung = max(states[0].rungs.values())
        used = file.start + len(file.stream)
        shown = _picture(file, _planes(header, states))
        yield Preview(used, rung, shown, file.complete)


def info(data: bytes, *, rungs: bool = True, model: Path | None = None) -> Info:
    """Read what a file says of itself; with `rungs`, decode it to find where its rungs end.

    Raises FormatError if this is no .dfc file, ModelError if `rungs` needs a model that is not
    there.
    """
    file = bitstream.read(data)
    header = file.header
    ends = []
    if rungs:
        decoder, weights = _decoder(header, file.stream, track=True), _model(header, model)
        for rung in walk(weights, _empty_states(header, weights), decoder):
            end = _end(file, decoder)
            ends.append(Rung(rung, end, 8 * end / (header.width * header.height)))
    return Info(
        width=header.width,
        height=header.height,
        mode=header.mode,
        depth=header.depth,
        model=header.model.hex(),
        checksum=header.checksum,
        lossless=header.lossless,
        complete=file.complete,
        bytes=len(data),
        total_bytes=file.total_bytes,
        rungs=ends,
    )


def sample(
    width: int,
    height: int,
    mode: str = "RGB",
    seed: int = 0,
    *,
    model: Path | None = None,
    progress: Progress | None = None,
) -> Image.Image:
    """Draw a picture from the model: what a decoder finds in an empty prefix.

    Raises FormatError for a size beyond the limit, ValueError for a mode that is not coded.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    check_size(width, height)
    weights = models.load(model or models.default(height, width))
    states = [
        State.empty(height, width, colours, interpolated=weights.interpolated)
        for colours in _parts(mode)
    ]
    for _ in walk(weights, states, BitSampler(seed), progress or _ignore):
        pass
    planes = _samples(torch.cat([picture(state) for state in states]), DEPTH)
    return to_pillow(from_planes(mode, planes))


def _ignore(_: float) -> None:
    pass


def _model(header: Header, path: Path | None) -> Model:
    if path is None:
        return models.find(header.model)
    model = models.load(path)
    files.check(header.model, model.id, path)
    return model


def _wait_for_metadata(arrival: Arrival) -> None:
    """Read a source up to the end of the file in it."""
    while not arrival.ended and not (file := bitstream.read(arrival.data)).complete:
        arrival.wait_for(max(file.total_bytes, len(arrival.data) + 1))


def _ways(model: Model, header: Header, samples: Tensor) -> list[Header]:
    """Headers of the ways round in which a stream of int32 [C, H, W] is written (see `encode`)."""
    if max(header.height, header.width) <= models.LARGEST_THUMBNAIL:
        return [header, replace(header, mirrored=True)]
    if not header.mode.startswith("RGB"):
        return [header]
    mosaic = trial.patches(samples)
    ways = [replace(header, green=green) for green in EXCHANGES]
    best = trial.shortest(model, [_turned(mosaic, way)[:3] for way in ways], header.depth)
    return [ways[best]]


def _part(progress: Progress, number: int, parts: int) -> Progress:
    """The progress of one of some equal parts of the work, as that of the whole."""
    return lambda done: progress((number + done) / parts)


def _encode(
    model: Model, header: Header, samples: Tensor, budget: int | None, progress: Progress
) -> tuple[Header, bytes]:
    """The stream of int32 [C, H, W]; a walk that leaves the budget of bytes ends early."""
    encoder, turned = RangeEncoder(), _turned(samples, header)
    states = [
        State.of_image(part, header.depth, model.interpolated)
        for part in turned.split(_parts(header.mode))
    ]
    for rung in walk(model, states, encoder, progress):
        # A walk that is broken off is not whole, however short its bytes turn out.
        if budget is not None and rung != FINISH and bytes_for(encoder.bits_used) > budget:
            header = replace(header, lossless=False)
            break
    return header, encoder.to_bytes()


def _parts(mode: str) -> list[int]:
    """Colours of the pictures that a mode is coded as: alpha is a grey picture of its own."""
    colours = 3 if mode.startswith("RGB") else 1
    return [colours, 1] if mode.endswith("A") else [colours]


def _empty_states(header: Header, model: Model) -> list[State]:
    size, rules = (header.height, header.width), RULES[header.version]
    return [
        State.empty(*size, colours, header.depth, rules, model.interpolated)
        for colours in _parts(header.mode)
    ]


def _decoder(header: Header, stream: bytes, *, track: bool = False) -> RangeDecoder:
    complete = header.lossless and len(stream) == header.stream_bytes
    return RangeDecoder(stream, complete=complete, track=track)


def _decode(model: Model, header: Header, coder: Coder) -> list[State]:
    """What a stream tells."""
    states = _empty_states(header, model)
    for _ in walk(model, states, coder):
        pass
    return states


def _planes(header: Header, states: list[State]) -> NDArray:
    """The picture that is shown, uint8 or uint16 [C, H, W]."""
    return _samples(_turned(torch.cat([picture(state) for state in states]), header), header.depth)


def _picture(file: File, planes: NDArray) -> Picture:
    return from_planes(file.header.mode, planes, file.icc, file.exif)


def _turned(planes: Tensor, header: Header) -> Tensor:
    """Planes [C, H, W] of the picture as those that the stream tells, and the other way round."""
    if header.mirrored:
        planes = planes.flip(-1)
    if header.green != GREEN:
        planes = exchanged(planes, GREEN, header.green)
    return planes


def _samples(planes: Tensor, depth: int) -> NDArray:
    """Planes [C, H, W] as samples of so many bits."""
    return planes.numpy().astype(f"<u{depth // 8}")


def _checksum(header: Header, states: list[State]) -> int:
    """CRC-32 of the picture as the cells alone tell it."""
    planes = _turned(torch.cat([plain(state) for state in states]), header)
    return zlib.crc32(_samples(planes, header.depth).tobytes())


def _check(file: File, states: list[State]) -> None:
    """Raise CorruptError if a whole stream did not give the pixels of its checksum."""
    header = file.header
    if len(file.stream) == header.stream_bytes and _checksum(header, states) != header.checksum:
        raise CorruptError("The file is corrupt: its pixels do not match its checksum.")


def _end(file: File, decoder: RangeDecoder | ArrivingDecoder) -> int:
    """Bytes of a file that a decoder has needed so far."""
    return file.start + min(bytes_for(decoder.bits_used), len(file.stream))


def _limit(header: Header, bpp: float | None, max_bytes: int | None) -> int | None:
    """The lower of two limits on the bytes of a file."""
    limits = [] if max_bytes is None else [max_bytes]
    if bpp is not None:
        limits.append(int(bpp * header.width * header.height / 8))
    return min(limits, default=None)


def _stream_budget(header: Header, icc: bytes, exif: bytes, limit: int) -> int:
    """Bytes that a limit on the file leaves for the stream."""
    overhead = len(bitstream.write(replace(header, stream_bytes=limit), b"", icc, exif))
    if overhead > limit:
        raise FormatError(
            f"The limit of {limit:,} bytes is too small: header and metadata take {overhead:,}."
        )
    return limit - overhead


def _budget_for_psnr(
    model: Model, header: Header, stream: bytes, original: NDArray, target: float
) -> int:
    """About the fewest bytes of the stream whose picture has the target PSNR."""

    def good(states: list[State]) -> bool:
        return plane_psnr(_planes(header, states), original) >= target

    header = replace(header, stream_bytes=len(stream))
    decoder, states = _decoder(header, stream, track=True), _empty_states(header, model)
    low, high = 0, len(stream)
    for _ in walk(model, states, decoder):
        end = min(bytes_for(decoder.bits_used), len(stream))
        if good(states):
            high = end
            break
        low = end
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if good(_decode(model, header, _decoder(header, stream[:middle]))):
            high = middle
        else:
            low = middle
    return high
