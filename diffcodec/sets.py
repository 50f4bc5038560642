"""The public API of the Gaussian process: sets of pictures, likelihood, samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffcodec import api, container
from diffcodec.container import BITS_BACK, CHANNEL, SetHeader
from diffcodec.errors import CorruptError, ImageError
from diffcodec.exact import files
from diffcodec.exact.backends import exact_arithmetic
from diffcodec.gaussian import bitsback, samplers, stream, tiles
from diffcodec.gaussian.chain import Chain, load
from diffcodec.gaussian.likelihood import Likelihood, likelihood
from diffcodec.gaussian.stream import Milestone, Show
from diffcodec.limits import MAX_PIXELS, Cut, Progress, check_pixels, ignore
from diffcodec.pictures.images import from_planes, to_pillow, to_planes

Method = Literal["bits-back", "channel"]
Sampler = Literal["ancestral", "ddim", "flow", "langevin", "predictor-corrector"]

_CODECS = {"bits-back": BITS_BACK, "channel": CHANNEL}
_PRICE = 0.25
"""What a picture's own file takes more than bits-back coding, about, in bits/dim."""

_SWEEPS = 5  # of Langevin dynamics at each level
_BATCH = 64  # pictures that are drawn together


@dataclass(frozen=True)
class CodedSet:
    """A file, and what became of its bits.

    Attributes:
        data: the file.
        samples: the numbers that it holds, height * width * 3 of each picture.
        net_bits: what the pictures cost. A chain of pictures that went on would add no more.
        initial_bits: of the stack's reserve that bits-back coding has borrowed, beyond what the
            first pictures' own files lend it; 0 for `channel`.
        milestones: of reverse channel coding; none for `bits-back`.
    """

    data: bytes
    samples: int
    net_bits: int
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
    header, there = container.read_set(data)
    return SetInfo(
        method="bits-back" if header.codec == BITS_BACK else "channel",
        pictures=len(header.sizes),
        groups=[SetGroup(len(list(alike)), *size) for size, alike in groupby(header.sizes)],
        model=header.model.hex(),
        checksum=header.checksum,
        complete=len(there) == header.stream_bytes,
        bytes=len(data),
        total_bytes=len(container.write_set_header(header)) + header.stream_bytes,
    )


@exact_arithmetic
def encode_set(
    images: Sequence[Image.Image],
    *,
    method: Method = "bits-back",
    bpp: float | None = None,
    model: Path | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> CodedSet:
    """Encode RGB pictures with samples of 8 bits, of any sizes, to one file.

    Args:
        method: "bits-back" is lossless, and has no prefixes; "channel" is progressive, from all
            pictures rough to all of them fine.
        bpp: the file of `channel` is at most so large, in bits per pixel; without a limit it goes
            to the end of the chain, where noise of half a pixel's value is left.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Profiles and EXIF are not kept. Raises ImageError for other modes, FormatError for pictures
    that are too many or too large or a limit below the header, ModelError for an unusable model.
    """
    if bpp is not None and method != "channel":
        raise ValueError("bits-back coding is lossless: it has no limit")
    pictures = [_pixels(image) for image in images]
    sizes = tuple((pixels.shape[2], pixels.shape[1]) for pixels in pictures)
    chain = load(model) if model else _default(sizes)
    header = SetHeader(_CODECS[method], sizes, chain.id, 0, 0, 0)
    container.write_set_header(header)  # refuses what is too large
    if method == "bits-back":
        seeds = _seeds(chain, pictures)
        header = replace(header, seeds=len(seeds))
        coded = stream.encode_bits_back(chain, header, pictures, b"".join(seeds), progress)
    else:
        coded = stream.encode_channel(chain, header, pictures, Cut(bpp), progress)
    return CodedSet(
        container.write_set_header(coded.header) + coded.stream,
        3 * header.pixels,
        coded.net_bits,
        coded.initial_bits,
        coded.milestones,
    )


@exact_arithmetic
def decode_set(
    data: bytes,
    *,
    bpp: float | None = None,
    show: Show = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: Path | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> list[Image.Image]:
    """Decode a set.

    Args:
        data: the bytes; of a `channel` set any prefix that has the header.
        bpp: use only so many bits per pixel of a `channel` set.
        show: what a `channel` set shows of the state that it reaches: its expectation, a sample
            of what it may have been (DiffC-A), or where the probability flow takes it (DiffC-F).
        seed: of the sample.
        max_pixels: a set that claims more, in all pictures together, is refused; None for no limit
            but the format's.
        model: the model file that the set was made with, if it is not an installed one.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises FormatError if this is no set, has too many pixels or is a cut bits-back one, ModelError
    if its model is not there, CorruptError if a complete set does not decode to the pixels of its
    checksum.
    """
    header, there = container.read_set(data)
    check_pixels(header.pixels, max_pixels)
    chain = load(model or files.find(header.model))
    if model:
        files.check(header.model, chain.id, model)
    if header.codec == BITS_BACK:
        seeded = header.sizes[: header.seeds]
        return _images(
            stream.decode_bits_back(
                chain, header, there, lambda seed: _seeded(seed, seeded), progress
            )
        )
    limit = Cut(bpp).size(header.pixels)
    if limit is not None:
        there = there[: max(0, limit - len(container.write_set_header(header)))]
    return _images(stream.decode_channel(chain, header, there, show, seed, progress))


@exact_arithmetic
def model_likelihood(
    images: Sequence[Image.Image],
    *,
    steps: int | None = None,
    draws: int = 32,
    seed: int = 0,
    model: Path | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> Likelihood:
    """The negative ELBO of pictures in bits/dim, with standard errors over their tiles.

    Args:
        images: RGB pictures; what is left of whole tiles at their borders does not count.
        steps: of the chain; None for the limit of infinitely many.
        draws: at how many times each tile is measured.
        seed: of the noise.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises ImageError for other modes or less than two tiles, ModelError for an unusable model.
    """
    pictures = [_pixels(image) for image in images]
    chain = load(model) if model else _default([pixels.shape[:0:-1] for pixels in pictures])
    whole = torch.Size((3, chain.side, chain.side))
    counted = [t for pixels in pictures for t in tiles.cut(pixels, chain.side) if t.shape == whole]
    if len(counted) < 2:
        raise ImageError(f"A likelihood needs two tiles of {chain.side} x {chain.side} pixels.")
    generator = torch.Generator().manual_seed(seed)
    return likelihood(
        chain.model(),
        torch.stack(counted),
        steps,
        draws=draws,
        generator=generator,
        progress=progress,
    )


@exact_arithmetic
def sample_set(
    count: int,
    *,
    sampler: Sampler = "ancestral",
    steps: int = 100,
    eta: float = 0.0,
    seed: int = 0,
    model: Path | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> list[Image.Image]:
    """Pictures drawn from the model alone.

    Args:
        sampler: "ancestral", "ddim", "flow" (the probability-flow ODE by Heun's method), "langevin"
            (annealed; five sweeps at each level) or "predictor-corrector" (ancestral, and a sweep
            after each step).
        steps: of equal time.
        eta: of "ddim", from 0, no noise on the way, to 1, as much as the ancestral one draws.
        seed: of all noise.
        model: a model file in place of the default one.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises ModelError for an unusable model.
    """
    chain = load(model or files.GAUSSIAN_32)
    generator = torch.Generator().manual_seed(seed)
    denoiser = chain.model()
    log_snrs = denoiser.schedule.grid(steps)
    calls = {
        "flow": 2 * steps,
        "langevin": _SWEEPS * (steps + 1),
        "predictor-corrector": 2 * steps,
    }.get(sampler, steps)
    calls = (calls + 1) * math.ceil(count / _BATCH)  # one more is the decoder's
    fractions = (number / calls for number in range(1, calls + 1))
    denoiser.register_forward_hook(lambda *_: progress(next(fractions)))
    drawn: list[Tensor] = []
    for start in range(0, count, _BATCH):
        shape = (min(_BATCH, count - start), 3, chain.side, chain.side)
        z = torch.randn(shape, generator=generator, dtype=torch.float32)
        match sampler:
            case "ancestral":
                z = samplers.ancestral(denoiser, z, log_snrs, generator)
            case "ddim":
                z = samplers.ddim(denoiser, z, log_snrs, generator, eta)
            case "flow":
                z = samplers.heun(denoiser, z, log_snrs)
            case "langevin":
                z = samplers.langevin(denoiser, z, log_snrs, generator, sweeps=_SWEEPS)
            case "predictor-corrector":
                z = samplers.predictor_corrector(denoiser, z, log_snrs, generator)
        drawn += denoiser.most_likely(z)
    return _images(drawn)


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size and mode, one or more, in rows of one that is about square."""
    columns = math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    shown = Image.new(images[0].mode, (columns * width, -(-len(images) // columns) * height))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        shown.paste(image, (column * width, row * height))
    return shown


def _pixels(image: Image.Image) -> Tensor:
    """uint8 [3, H, W]."""
    mode, planes = to_planes(image)
    if mode != "RGB" or planes.dtype != np.uint8:
        raise ImageError(
            f"The Gaussian process codes RGB pictures with samples of 8 bits, not {image.mode}: "
            "convert them, or use the default method."
        )
    return torch.from_numpy(planes.copy())


def _seeds(chain: Chain, pictures: Sequence[Tensor]) -> list[bytes]:
    """Files of the first pictures, as many as it pays to seed a stack with.

    They lend the stack what it would borrow from its reserve, and send, for nothing. What a
    picture's own file takes more than bits-back coding is the price.
    """
    sizes = [(pixels.shape[2], pixels.shape[1]) for pixels in pictures]
    lacking = max(bitsback.initial_bits(chain, shape) for shape in tiles.shapes(sizes, chain.side))
    seeds = []
    for pixels in pictures:
        if lacking <= _PRICE * pixels.numel():
            break
        seeds.append(api.encode(pixels.permute(1, 2, 0).numpy()))
        lacking -= 8 * len(seeds[-1])
    return seeds


def _seeded(seed: bytes, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The pictures of these sizes whose files are in a seed, one after the other.

    Raises CorruptError if others are there, and what `decode_array` raises.
    """
    pictures, position = [], 0
    for width, height in sizes:
        file = container.read(seed[position:])
        if (file.header.width, file.header.height) != (width, height):
            raise CorruptError("The file is corrupt: its pictures have other sizes.")
        data = seed[position : position + file.total_bytes]
        decoded = api.decode_array(data, max_pixels=None)  # as the set has no more
        if decoded.shape[2:] != (3,) or decoded.dtype != np.uint8:
            raise CorruptError("The file is corrupt: its pictures are of other kinds.")
        pictures.append(torch.from_numpy(decoded).permute(2, 0, 1).contiguous())
        position += file.total_bytes
    return pictures


def _images(pictures: list[Tensor]) -> list[Image.Image]:
    return [to_pillow(from_planes("RGB", pixels.numpy())) for pixels in pictures]


def _default(sizes: Sequence[Sequence[int]]) -> Chain:
    """The model for pictures of at most 32 x 32 pixels, or that for all others."""
    small = max(map(max, sizes), default=0) <= 32
    return load(files.GAUSSIAN_32 if small else files.GAUSSIAN_64)
