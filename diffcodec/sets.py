"""The public API of sets of pictures, which the Gaussian process codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffcodec import api, container
from diffcodec.container import BITS_BACK, CHANNEL, SetHeader
from diffcodec.density import default, to_images, to_tensor
from diffcodec.errors import CorruptError, FormatError
from diffcodec.exact import files
from diffcodec.exact.backends import exact_arithmetic
from diffcodec.gaussian import bitsback, stream, tiles
from diffcodec.gaussian.chain import Chain, load
from diffcodec.gaussian.stream import Milestone, Show
from diffcodec.limits import MAX_PIXELS, Cut, Progress, check_pixels, ignore
from diffcodec.paths import StrPath
from diffcodec.streaming import GROWTH, Source, Stream

Method = Literal["bits-back", "channel"]

_CODECS = {"bits-back": BITS_BACK, "channel": CHANNEL}
_PRICE = 0.25
"""What a picture's own file takes more than bits-back coding, about, in bits/dim."""


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
        seeds: how many of the first pictures lend bits-back coding its first bits, and
        seed_bits: what of `net_bits` is theirs.
    """

    data: bytes
    samples: int
    net_bits: int
    initial_bits: int
    milestones: list[Milestone]
    seeds: int = 0
    seed_bits: int = 0

    @property
    def gross(self) -> float:
        """The file in bits/dim."""
        return 8 * len(self.data) / self.samples

    @property
    def net(self) -> float:
        """The pictures in bits/dim."""
        return self.net_bits / self.samples


@dataclass(frozen=True)
class SetPreview:
    """Pictures on the way, as the first `bytes_used` bytes of a set show them.

    `complete` says whether the whole set was there when they were made.
    """

    bytes_used: int
    images: list[Image.Image]
    complete: bool


@dataclass(frozen=True)
class SetGroup:
    """So many pictures of one size, one after the other."""

    count: int
    width: int
    height: int


@dataclass(frozen=True)
class SetInfo:
    """What a set says of itself.

    `pictures` is their number and `groups` their sizes in order; `exact` is as of `encode_set`, and
    the rest as in `Info`.
    """

    method: Method
    exact: bool
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
        exact=header.exact,
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
    exact: bool = False,
    model: StrPath | None = None,
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
        exact: `channel` sends samples of q, by the Poisson functional representation, in place of
            the best of 2^16 candidates, which takes less time and fewer bits.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Profiles and EXIF are not kept. Raises ImageError for other modes, FormatError for pictures
    that are too many or too large or a limit below the header, ModelError for an unusable model.
    """
    if bpp is not None and method != "channel":
        raise ValueError("bits-back coding is lossless: it has no limit")
    if exact and method != "channel":
        raise ValueError("exact goes with channel only")
    pictures = [to_tensor(image) for image in images]
    sizes = tuple((pixels.shape[2], pixels.shape[1]) for pixels in pictures)
    chain = load(model) if model else default(sizes)
    header = SetHeader(_CODECS[method], sizes, chain.id, 0, 0, 0, exact=exact)
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
        header.seeds,
        coded.seed_bits,
    )


@exact_arithmetic
def decode_set(
    data: bytes,
    *,
    bpp: float | None = None,
    show: Show = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
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
    header, start = container.read_set_header(data)
    chain, end = _chain(header, model, max_pixels), start + header.stream_bytes
    if header.codec == BITS_BACK:
        return to_images(_bits_back(chain, header, data[start:end], progress))
    limit = Cut(bpp).size(header.pixels)
    if limit is not None:
        end = min(end, max(start, limit))
    return to_images(stream.decode_channel(chain, header, data[start:end], show, seed, progress))


@exact_arithmetic
def decode_set_progressive(
    source: bytes | BinaryIO,
    *,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Iterator[SetPreview]:
    """Decode a set once and yield its pictures after each milestone, and after what is left.

    A pipe or the like is read as for `decode_progressive`. A bits-back set, which decodes from its
    end, gives all of them at once.

    Args and errors as of `decode_set`.
    """
    delivery = Source(source)
    header, start = _read_header(delivery)
    chain, sent = _chain(header, model, max_pixels), Stream(delivery, start, header.stream_bytes)
    if header.codec == BITS_BACK:
        pictures = _bits_back(chain, header, sent.wait_for(sent.size))
        yield SetPreview(start + sent.size, to_images(pictures), complete=True)
        return
    for used, pictures in stream.preview_channel(chain, header, sent):
        complete = len(delivery.data) >= start + sent.size
        yield SetPreview(start + used, to_images(pictures), complete)


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


def _read_header(delivery: Source) -> tuple[SetHeader, int]:
    """The header of a set that arrives, and the offset of its stream; raises as `read_set` does."""
    while True:
        try:
            return container.read_set_header(delivery.data)
        except FormatError:
            if delivery.ended:
                raise
            there = len(delivery.data)
            delivery.wait_for(there + 1 + int(GROWTH * there))


def _chain(header: SetHeader, model: StrPath | None, max_pixels: int | None) -> Chain:
    """The model of a set. Raises FormatError for too many pixels, ModelError."""
    check_pixels(header.pixels, max_pixels)
    chain = load(model or files.find(header.model))
    if model:
        files.check(header.model, chain.id, model)
    return chain


def _bits_back(
    chain: Chain, header: SetHeader, there: bytes, progress: Progress = ignore
) -> list[Tensor]:
    """The pictures of a bits-back set."""
    sizes = header.sizes[: header.seeds]
    return stream.decode_bits_back(
        chain, header, there, lambda seed: _seeded(seed, sizes), progress
    )
