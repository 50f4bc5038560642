"""Crops as integers of luma and chroma that a decoder of JPEG makes RGB of.

Each plane goes through a JPEG file of its own, a grey one, with the table that a file of colours
has for it.
"""

import io
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from diffcodec.transforms.spaces import CONVERSIONS, Space
from diffcodec.transforms.wavelet import Transform

WORST, BEST = 75, 100
"""Of the qualities of JPEG files. The best divides by 1: other decoders' blocks are not JPEG's."""

BEST_SHARE = 1 / 3
"""The share of the crops that have the best quality; the others have all qualities alike."""


def _kept(image: Tensor) -> tuple[Tensor, Tensor]:
    low = image[..., ::2, ::2].contiguous()
    return low, low.new_zeros((*low.shape[:-2], 3, *low.shape[-2:]))


def _repeated(low: Tensor, details: Tensor, height: int, width: int) -> Tensor:
    return low.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]


JPEG_444 = CONVERSIONS[0]
JPEG_420 = replace(JPEG_444, chroma=Transform(_kept, _repeated))
"""With chroma that is repeated, not interpolated: what the networks see of both is the same."""


def convert(pixels: Tensor, space: Space | None, generator: torch.Generator) -> Tensor:
    """Y, Cr and Cb of pixels, uint8 [N, 3, H, W]; those themselves if there is no space.

    Of JPEG_420, H and W are even. Each crop has a random quality.
    """
    if space is None:
        return pixels
    best = torch.rand(len(pixels), generator=generator) < BEST_SHARE
    qualities = torch.randint(WORST, BEST + 1, (len(pixels),), generator=generator)
    qualities[best] = BEST
    pairs = zip(pixels, qualities.tolist(), strict=True)
    return torch.stack([_converted(crop, space, quality) for crop, quality in pairs])


def _converted(crop: Tensor, space: Space, quality: int) -> Tensor:
    image = Image.fromarray(crop.movedim(0, -1).numpy()).convert("YCbCr")
    luma, blue, red = (torch.from_numpy(np.array(band)) for band in image.split())
    chroma = torch.stack((red, blue))
    halved = space is JPEG_420
    if halved:
        chroma = F.avg_pool2d(chroma.float(), 2).round().byte()
    chroma = torch.stack([_through(plane, quality, 1) for plane in chroma])
    if halved:
        chroma = chroma.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return torch.cat((_through(luma, quality, 0)[None], chroma))


def _through(plane: Tensor, quality: int, table: int) -> Tensor:
    """A plane uint8 [H, W] as a grey JPEG file keeps it."""
    buffer = io.BytesIO()
    Image.fromarray(plane.numpy()).save(buffer, "JPEG", qtables=[_tables(quality)[table]])
    return torch.from_numpy(np.array(Image.open(buffer)))


@cache
def _tables(quality: int) -> dict[int, list[int]]:
    """What the coefficients of luma (0) and of chroma (1) are divided by."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return JpegImageFile(buffer).quantization
