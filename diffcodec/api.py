"""The public API: whole pictures and files, and nothing of how they are coded."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffcodec import bitstream
from diffcodec.bitstream import MODES, Header, check_size
from diffcodec.entropy import BitSampler, Coder, RangeDecoder, RangeEncoder, bytes_for
from diffcodec.errors import CorruptError, FormatError, ModelError
from diffcodec.imageio import from_planes, metadata, to_planes
from diffcodec.quantized import model as models
from diffcodec.quantized.codec import walk
from diffcodec.quantized.model import Model
from diffcodec.quantized.preview import picture
from diffcodec.quantized.schedule import FINISH
from diffcodec.quantized.state import State

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Preview:
    """A picture on the way: the first `bytes_used` bytes complete `rung`, which it shows."""

    bytes_used: int
    rung: int
    image: Image.Image


@dataclass(frozen=True)
class Rung:
    """Where a rung ends: bytes from the start of the file, and those in bits per pixel."""

    rung: int
    bytes: int
    bpp: float


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    `model` is the id of the weights in hexadecimal, `checksum` the CRC-32 of the pixels;
    `bytes` are there of `total_bytes` (which leave out the metadata while a prefix does not tell
    their length).
    """

    width: int
    height: int
    mode: str
    model: str
    checksum: int
    lossless: bool
    complete: bool
    bytes: int
    total_bytes: int
    rungs: list[Rung]


def encode(
    image: Image.Image,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    model: Path | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Encode a picture, bit for bit lossless unless one of the limits is given.

    Args:
        image: a picture of mode L, LA, RGB, RGBA, P or 1.
        bpp, max_bytes: the file, header and metadata included, is at most so large.
        psnr: the file is about the shortest whose picture reaches this quality, in dB over all
            samples.
        model: a model file in place of the default one.
        progress: is called with the fraction of the work that is done.

    Raises ImageError for other modes, FormatError for a picture beyond the size limit or a byte
    limit that the header alone exceeds, ModelError for an unusable model file.
    """
    mode, planes = to_planes(image)
    icc, exif = metadata(image)
    weights = models.load(model) if model else models.load()
    header = Header(
        mode=mode,
        width=planes.shape[2],
        height=planes.shape[1],
        model=weights.id,
        checksum=_checksum(planes),
        stream_bytes=0,
        lossless=True,
        has_metadata=bool(icc or exif),
    )
    check_size(header.width, header.height)
    encoder = RangeEncoder()
    parts = torch.tensor(planes).split(_parts(mode))
    states = [State.of_image(part) for part in parts]
    limit = _limit(header, bpp, max_bytes)
    budget = None if limit is None else _stream_budget(header, icc, exif, limit)
    for rung in walk(weights, states, encoder, progress or _ignore):
        # A walk that is broken off is not whole, however short its bytes turn out.
        if budget is not None and rung != FINISH and bytes_for(encoder.bits_used) > budget:
            header = replace(header, lossless=False)
            break
    stream = encoder.to_bytes()
    size = len(stream) if budget is None else min(budget, len(stream))
    if psnr is not None:
        enough = _budget_for_psnr(weights, header, stream, planes, psnr)
        size = min(size, enough)
    if size < len(stream) or not header.lossless:
        stream = stream[:size]
        header = replace(header, lossless=False)
        shown = _decode(weights, header, _decoder(header, stream))
        header = replace(header, checksum=_checksum(shown))
    header = replace(header, stream_bytes=len(stream))
    return bitstream.write(header, stream, icc, exif)


def decode(
    data: bytes,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    detail: str = "mean",
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> Image.Image:
    """Decode a file or any prefix of one that has the header.

    Args:
        data: the bytes.
        bpp, max_bytes: use only so much of the file.
        detail: "mean" shows what a prefix leaves open as its expectation; "sample" draws it from
            the model's conditionals, with `seed`.
        model: the model file that the file was made with, if it is not an installed one.
        progress: is called with the fraction of the work that is done.

    Raises FormatError if this is no .dfc file, ModelError if its model is not there, CorruptError
    if a complete file does not decode to the pixels of its checksum.
    """
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
    planes = _decode(_model(header, model), header, decoder, progress)
    whole = len(file.stream) == header.stream_bytes
    told = header.lossless or detail == "mean"  # of a lossy file a sample is another picture
    if whole and told and _checksum(planes) != header.checksum:
        raise CorruptError("The file is corrupt: its pixels do not match its checksum.")
    return from_planes(header.mode, planes, file.icc, file.exif)


def decode_progressive(source: bytes | BinaryIO, *, model: Path | None = None) -> Iterator[Preview]:
    """Decode once and yield the picture after each rung, and after what is left of a prefix.

    The last picture of a complete file is the original. Raises as `decode` does.
    """
    data = source if isinstance(source, bytes) else source.read()
    file = bitstream.read(data)
    header, weights = file.header, _model(file.header, model)
    decoder = _decoder(header, file.stream, track=True)
    states = _empty_states(header)
    for rung in walk(weights, states, decoder):
        planes = _planes(weights, states)
        used = file.start + min(bytes_for(decoder.bits_used), len(file.stream))
        if rung == FINISH and header.lossless and _checksum(planes) != header.checksum:
            raise CorruptError("The file is corrupt: its pixels do not match its checksum.")
        yield Preview(used, rung, from_planes(header.mode, planes, file.icc, file.exif))
    if decoder.ended:
        planes = _planes(weights, states)
        whole = len(file.stream) == header.stream_bytes
        if whole and _checksum(planes) != header.checksum:
            raise CorruptError("The file is corrupt: its pixels do not match its checksum.")
        rung = max(states[0].rungs.values())
        image = from_planes(header.mode, planes, file.icc, file.exif)
        yield Preview(file.start + len(file.stream), rung, image)


def info(data: bytes, *, rungs: bool = True, model: Path | None = None) -> Info:
    """Read what a file says of itself; with `rungs`, decode it to find where its rungs end.

    Raises FormatError if this is no .dfc file, ModelError if `rungs` needs a model that is not
    there.
    """
    file = bitstream.read(data)
    header = file.header
    ends = []
    if rungs:
        decoder = _decoder(header, file.stream, track=True)
        for rung in walk(_model(header, model), _empty_states(header), decoder):
            end = file.start + min(bytes_for(decoder.bits_used), len(file.stream))
            ends.append(Rung(rung, end, 8 * end / (header.width * header.height)))
    return Info(
        width=header.width,
        height=header.height,
        mode=header.mode,
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
    weights = models.load(model) if model else models.load()
    states = [State.empty(height, width, colours) for colours in _parts(mode)]
    for _ in walk(weights, states, BitSampler(seed), progress or _ignore):
        pass
    return from_planes(mode, _planes(weights, states))


def _checksum(planes: NDArray[np.uint8]) -> int:
    return zlib.crc32(planes.tobytes())


def _ignore(_: float) -> None:
    pass


def _model(header: Header, path: Path | None) -> Model:
    if path is None:
        return models.find(header.model)
    model = models.load(path)
    if model.id != header.model:
        raise ModelError(
            f"The file was made with the model {header.model.hex()}, "
            f"but {path} holds {model.id.hex()}."
        )
    return model


def _parts(mode: str) -> list[int]:
    """Colours of the pictures that a mode is coded as: alpha is a grey picture of its own."""
    colours = 3 if mode.startswith("RGB") else 1
    return [colours, 1] if mode.endswith("A") else [colours]


def _empty_states(header: Header) -> list[State]:
    return [State.empty(header.height, header.width, colours) for colours in _parts(header.mode)]


def _decoder(header: Header, stream: bytes, *, track: bool = False) -> RangeDecoder:
    complete = header.lossless and len(stream) == header.stream_bytes
    return RangeDecoder(stream, complete=complete, track=track)


def _planes(model: Model, states: list[State]) -> NDArray[np.uint8]:
    return torch.cat([picture(model.table, state) for state in states]).numpy()


def _decode(
    model: Model, header: Header, coder: Coder, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """The planes [C, H, W] that a stream gives."""
    states = _empty_states(header)
    for _ in walk(model, states, coder, progress or _ignore):
        pass
    return _planes(model, states)


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
    model: Model, header: Header, stream: bytes, original: NDArray[np.uint8], target: float
) -> int:
    """About the fewest bytes of the stream whose picture has the target PSNR."""

    def good(planes: NDArray[np.uint8]) -> bool:
        error = np.mean(np.square(planes.astype(np.float32) - original), dtype=np.float64)
        return bool(error <= 255**2 / 10 ** (target / 10))

    header = replace(header, stream_bytes=len(stream))
    decoder, states = _decoder(header, stream, track=True), _empty_states(header)
    low, high = 0, len(stream)
    for _ in walk(model, states, decoder):
        end = min(bytes_for(decoder.bits_used), len(stream))
        if good(_planes(model, states)):
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
