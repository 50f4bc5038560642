"""The public API of the Gaussian process: sets of pictures, likelihood, samples.

The model sees pictures in tiles of the size that it was trained on; smaller ones at their right
and lower borders, where they are padded to multiples of 4.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffcodec import bitstream
from diffcodec.bitstream import BITS_BACK, CHANNEL, SetHeader
from diffcodec.entropy import RESERVE_WORDS, RangeDecoder, RangeEncoder, Stack, bytes_for
from diffcodec.errors import CorruptError, FormatError, ImageError
from diffcodec.exact import files
from diffcodec.gaussian import bitsback, channel, samplers
from diffcodec.gaussian.chain import Chain, load
from diffcodec.gaussian.decoder import to_pixels
from diffcodec.gaussian.likelihood import Likelihood, likelihood
from diffcodec.gaussian.network import ALIGNMENT
from diffcodec.imageio import from_planes, to_pillow, to_planes

Method = Literal["bits-back", "channel"]
Detail = Literal["mean", "sample", "flow"]
Sampler = Literal["ancestral", "ddim", "flow", "langevin"]
Progress = Callable[[float], None]

SMALL, LARGE = (files.WEIGHTS / f"gaussian-{side}.safetensors" for side in (32, 64))
"""The model for pictures of at most 32 x 32 pixels, and that for all others."""

_CODECS = {"bits-back": BITS_BACK, "channel": CHANNEL}
_SWEEPS = 5  # of Langevin dynamics at each level
_LENGTH_BYTES = 4  # by which a stream's length may make the header longer


@dataclass(frozen=True)
class Milestone:
    """Where a step of reverse channel coding ends.

    The bytes of the file so far; their information and the relative entropy that is the ideal,
    both in bits.
    """

    bytes: int
    bits: float
    ideal_bits: float


@dataclass(frozen=True)
class CodedSet:
    """A file, and what became of its bits.

    Attributes:
        data: the file.
        samples: the numbers that it tells, height * width * 3 of each picture.
        net_bits: what the pictures cost. A chain of pictures that went on would add no more.
        initial_bits: of the stack's reserve that bits-back coding has borrowed; 0 for `channel`.
        milestones: of reverse channel coding; none for `bits-back`.
    """

    data: bytes
    samples: int
    net_bits: float
    initial_bits: int
    milestones: list[Milestone]

    @property
    def gross(self) -> float:
        """The file in bits/dim."""
        return 8 * len(self.data) / self.samples

    @property
    def net(self) -> float:
        """The pictures in bits/dim."""
        return self.net_bits / self.samples


@dataclass(frozen=True)
class SetGroup:
    """So many pictures of one size, one after the other."""

    count: int
    width: int
    height: int


@dataclass(frozen=True)
class SetInfo:
    """What a set says of itself.

    `pictures` is their number and `groups` their sizes in order; the rest is as in `Info`.
    """

    method: Method
    pictures: int
    groups: list[SetGroup]
    model: str
    checksum: int
    complete: bool
    bytes: int
    total_bytes: int


def set_info(data: bytes) -> SetInfo:
    """Read what a set, or a prefix that has the header, says of itself.

    Raises FormatError if this is no set.
    """
    header, stream = bitstream.read_set(data)
    return SetInfo(
        method="bits-back" if header.codec == BITS_BACK else "channel",
        pictures=len(header.sizes),
        groups=[SetGroup(len(list(alike)), *size) for size, alike in groupby(header.sizes)],
        model=header.model.hex(),
        checksum=header.checksum,
        complete=len(stream) == header.stream_bytes,
        bytes=len(data),
        total_bytes=len(bitstream.write_set_header(header)) + header.stream_bytes,
    )


def encode_set(
    images: Sequence[Image.Image],
    *,
    method: Method = "bits-back",
    bpp: float | None = None,
    model: Path | None = None,
    progress: Progress | None = None,
) -> CodedSet:
    """Encode RGB pictures with samples of 8 bits, of any sizes, to one file.

    Args:
        method: "bits-back" is lossless, and has no prefixes; "channel" is progressive, from all
            pictures rough to all of them fine.
        bpp: the file of `channel` is at most so large, in bits per pixel; without a limit it goes
            to the end of the chain, where noise of half a pixel's value is left.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.

    Profiles and EXIF are not kept. Raises ImageError for other modes, FormatError for pictures
    that are too many or too large or a limit below the header, ModelError for an unusable model.
    """
    if bpp is not None and method != "channel":
        raise ValueError("bits-back coding is lossless: it has no limit")
    pictures = [_pixels(image) for image in images]
    sizes = tuple((pixels.shape[2], pixels.shape[1]) for pixels in pictures)
    chain = load(model) if model else _default(sizes)
    header = SetHeader(_CODECS[method], sizes, chain.id, _checksum(pictures), 0, 0)
    bitstream.write_set_header(header)  # refuses what is too large
    encode = _encode_bits_back if method == "bits-back" else _encode_channel
    return encode(chain, header, pictures, bpp, progress or _ignore)


def decode_set(
    data: bytes,
    *,
    bpp: float | None = None,
    detail: Detail = "mean",
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """Decode a set.

    Args:
        data: the bytes; of a `channel` set any prefix that has the header.
        bpp: use only so many bits per pixel of a `channel` set.
        detail: what a `channel` set shows of the state that it reaches: its expectation, a sample
            of what it may have been (DiffC-A), or where the probability flow takes it (DiffC-F).
        seed: of the sample.
        model: the model file that the set was made with, if it is not an installed one.
        progress: is called with the fraction of the work that is done.

    Raises FormatError if this is no set or a cut bits-back one, ModelError if its model is not
    there, CorruptError if a complete set does not decode to the pixels of its checksum.
    """
    header, stream = bitstream.read_set(data)
    chain = load(model or files.find(header.model))
    if model:
        files.check(header.model, chain.id, model)
    if header.codec == BITS_BACK:
        return _images(_decode_bits_back(chain, header, stream, progress or _ignore))
    cut = stream if bpp is None else stream[: max(0, _limit(header, bpp))]
    tiles = _decode_channel(chain, header, cut, progress or _ignore)
    pictures = _joined(header, [_expected(chain, tile) for tile in tiles], chain.side)
    if len(cut) == header.stream_bytes and _checksum(pictures) != header.checksum:
        raise CorruptError("The file is corrupt: its pixels do not match its checksum.")
    if detail != "mean":
        pictures = _joined(header, _detailed(chain, tiles, detail, seed), chain.side)
    return _images(pictures)


def model_likelihood(
    images: Sequence[Image.Image],
    *,
    steps: int | None = None,
    draws: int = 32,
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> Likelihood:
    """The negative ELBO of pictures in bits/dim, with standard errors over their tiles.

    Args:
        images: RGB pictures; what is left of whole tiles at their borders does not count.
        steps: of the chain; None for the limit of infinitely many.
        draws: at how many times each tile is measured.
        seed: of the noise.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.

    Raises ImageError for other modes or less than two tiles, ModelError for an unusable model.
    """
    pictures = [_pixels(image) for image in images]
    chain = load(model) if model else _default([pixels.shape[:0:-1] for pixels in pictures])
    whole = torch.Size((3, chain.side, chain.side))
    tiles = [t for pixels in pictures for t in _tiles(pixels, chain.side) if t.shape == whole]
    if len(tiles) < 2:
        raise ImageError(f"A likelihood needs two tiles of {chain.side} x {chain.side} pixels.")
    generator = torch.Generator().manual_seed(seed)
    return likelihood(
        chain.model(),
        torch.stack(tiles),
        steps,
        draws=draws,
        generator=generator,
        progress=progress or _ignore,
    )


def sample_set(
    count: int,
    *,
    sampler: Sampler = "ancestral",
    steps: int = 100,
    seed: int = 0,
    model: Path | None = None,
    progress: Progress | None = None,
) -> Image.Image:
    """Pictures drawn from the model alone, in a grid that is about square.

    Args:
        sampler: "ancestral", "ddim", "flow" (the probability-flow ODE by Heun's method) or
            "langevin" (annealed; five sweeps at each level).
        steps: of equal time.
        progress: is called with the fraction of the work that is done.
    """
    chain = load(model or SMALL)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((count, 3, chain.side, chain.side), generator=generator)
    denoiser = chain.model()
    log_snrs = denoiser.schedule.grid(steps)
    if progress is not None:
        calls = {"flow": 2 * steps, "langevin": _SWEEPS * (steps + 1)}.get(sampler, steps)
        calls += 1  # the decoder's
        fractions = (number / calls for number in range(1, calls + 1))
        denoiser.register_forward_hook(lambda *_: progress(next(fractions)))
    match sampler:
        case "ancestral":
            z = samplers.ancestral(denoiser, z, log_snrs, generator)
        case "ddim":
            z = samplers.ddim(denoiser, z, log_snrs, generator)
        case "flow":
            z = samplers.heun(denoiser, z, log_snrs)
        case "langevin":
            z = samplers.langevin(denoiser, z, log_snrs, generator, sweeps=_SWEEPS)
    columns = math.ceil(math.sqrt(count))
    drawn = F.pad(denoiser.most_likely(z), (0, 0, 0, 0, 0, 0, 0, -count % columns))
    return _images([samplers.mosaic(drawn, columns)])[0]


# --- bits-back ------------------------------------------------------------------------------------


def _encode_bits_back(
    chain: Chain, header: SetHeader, pictures: list[Tensor], _: float | None, progress: Progress
) -> CodedSet:
    stack = Stack()
    start = stack.bits
    tiles = [tile for pixels in pictures for tile in _tiles(pixels, chain.side)]
    for number, tile in enumerate(tiles, 1):
        bitsback.push(stack, chain, tile)
        progress(number / len(tiles))
    stream, untouched = stack.to_bytes()
    header = replace(header, untouched=untouched, stream_bytes=len(stream))
    data = bitstream.write_set_header(header) + stream
    samples = sum(pixels.numel() for pixels in pictures)
    return CodedSet(data, samples, stack.bits - start, 32 * (RESERVE_WORDS - untouched), [])


def _decode_bits_back(
    chain: Chain, header: SetHeader, stream: bytes, progress: Progress
) -> list[Tensor]:
    if len(stream) < header.stream_bytes:
        raise FormatError(
            f"The set is cut, {len(stream):,} of {header.stream_bytes:,} bytes: "
            "bits-back coding decodes from its end, so it has no previews."
        )
    stack = Stack.from_bytes(stream, header.untouched)
    shapes = _shapes(header, chain.side)
    tiles = []
    for number, shape in enumerate(reversed(shapes), 1):
        tiles.append(bitsback.pop(stack, chain, shape))
        progress(number / len(shapes))
    pictures = _joined(header, tiles[::-1], chain.side)
    if not stack.is_fresh or _checksum(pictures) != header.checksum:
        raise CorruptError("The file is corrupt: its pixels do not match its checksum.")
    return pictures


# --- reverse channel coding -----------------------------------------------------------------------


def _encode_channel(
    chain: Chain, header: SetHeader, pictures: list[Tensor], bpp: float | None, progress: Progress
) -> CodedSet:
    budget = math.inf if bpp is None else _limit(header, bpp)
    if budget < 0:
        raise FormatError(f"The limit of {bpp} bits per pixel is too small: the header takes more.")
    encoder, ends = RangeEncoder(), []
    cut = [tile for pixels in pictures for tile in _tiles(pixels, chain.side)]
    tiles = [channel.Tile(pixels.shape, pixels) for pixels in cut]
    for row in channel.walk(chain, tiles, encoder):
        ends.append((encoder.bits_used, sum(tile.ideal_bits for tile in tiles)))
        progress(1 - row / chain.steps)
        if bytes_for(encoder.bits_used) >= budget:
            break
    size = int(min(budget, bytes_for(encoder.bits_used)))
    stream = encoder.to_bytes()
    stream = (stream + b"\0" * (size - len(stream)))[:size]
    header = replace(header, stream_bytes=size)
    decoded = _decode_channel(chain, header, stream, _ignore)
    expected = _joined(header, [_expected(chain, tile) for tile in decoded], chain.side)
    header = replace(header, checksum=_checksum(expected))
    start = bitstream.write_set_header(header)
    milestones = [Milestone(len(start) + bytes_for(bits), bits, ideal) for bits, ideal in ends]
    samples = sum(pixels.numel() for pixels in pictures)
    return CodedSet(start + stream, samples, encoder.bits_used, 0, milestones)


def _decode_channel(
    chain: Chain, header: SetHeader, stream: bytes, progress: Progress
) -> list[channel.Tile]:
    tiles = [channel.Tile(shape) for shape in _shapes(header, chain.side)]
    for row in channel.walk(chain, tiles, RangeDecoder(stream, complete=False)):
        progress(1 - row / chain.steps)
    return tiles


def _expected(chain: Chain, tile: channel.Tile) -> Tensor:
    """E[x | z] as pixels; mid-grey where nothing is known."""
    if tile.z is None or tile.row is None:
        return to_pixels(torch.zeros(tile.shape))
    return to_pixels(chain.predict(tile.z[None], tile.row)[0])


def _detailed(chain: Chain, tiles: list[channel.Tile], detail: Detail, seed: int) -> list[Tensor]:
    """What may have been the pixels of tiles."""
    model, generator = chain.model(), torch.Generator().manual_seed(seed)
    method: samplers.Method = "ancestral" if detail == "sample" else "flow"
    shown = []
    for tile in tiles:
        row = chain.steps if tile.row is None else tile.row
        z = torch.randn(tile.shape, generator=generator) if tile.z is None else tile.z.float()
        steps = max(1, row if detail == "sample" else row // 2)
        shown.append(
            samplers.decode(
                model, z[None], row / chain.steps, method, steps=steps, generator=generator
            )[0]
        )
    return shown


# --- pictures and tiles ---------------------------------------------------------------------------


def _pixels(image: Image.Image) -> Tensor:
    """uint8 [3, H, W]."""
    mode, planes = to_planes(image)
    if mode != "RGB" or planes.dtype != np.uint8:
        raise ImageError(
            f"The Gaussian process codes RGB pictures with samples of 8 bits, not {image.mode}: "
            "convert them, or use the default method."
        )
    return torch.from_numpy(planes.copy())


def _images(pictures: list[Tensor]) -> list[Image.Image]:
    return [to_pillow(from_planes("RGB", pixels.numpy())) for pixels in pictures]


def _places(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _tiles(pixels: Tensor, side: int) -> list[Tensor]:
    """The tiles of a picture, padded with its edge."""
    tiles = []
    for rows, columns in _places(pixels.shape[1], pixels.shape[2], side):
        tile = pixels[:, rows, columns]
        padding = (0, -tile.shape[2] % ALIGNMENT, 0, -tile.shape[1] % ALIGNMENT)
        tiles.append(F.pad(tile[None].float(), padding, mode="replicate")[0].to(torch.uint8))
    return tiles


def _shapes(header: SetHeader, side: int) -> list[torch.Size]:
    """The shapes of all tiles of a set."""
    return [
        torch.Size((3, *(-(-(part.stop - part.start) // ALIGNMENT) * ALIGNMENT for part in place)))
        for width, height in header.sizes
        for place in _places(height, width, side)
    ]


def _joined(header: SetHeader, tiles: list[Tensor], side: int) -> list[Tensor]:
    """Pictures from the tiles of a set, without their padding."""
    left, pictures = iter(tiles), []
    for width, height in header.sizes:
        pixels = torch.empty((3, height, width), dtype=torch.uint8)
        for rows, columns in _places(height, width, side):
            part = pixels[:, rows, columns]
            part.copy_(next(left)[:, : part.shape[1], : part.shape[2]])
        pictures.append(pixels)
    return pictures


def _checksum(pictures: list[Tensor]) -> int:
    checksum = 0
    for pixels in pictures:
        checksum = zlib.crc32(pixels.numpy().tobytes(), checksum)
    return checksum


def _limit(header: SetHeader, bpp: float) -> int:
    """Bytes that a limit leaves for the stream."""
    pixels = sum(width * height for width, height in header.sizes)
    return int(bpp * pixels / 8) - len(bitstream.write_set_header(header)) - _LENGTH_BYTES


def _default(sizes: Sequence[Sequence[int]]) -> Chain:
    return load(SMALL if max(map(max, sizes), default=0) <= 32 else LARGE)


def _ignore(_: float) -> None:
    pass
