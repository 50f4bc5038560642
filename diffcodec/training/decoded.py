"""Crops as decoders of JPEG have them: integers of luma and chroma, not yet RGB.

Each plane goes through a JPEG file of its own, a grey one, with the tables that a file of colours
has for it.
"""

import io
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcodec.transforms import spaces
from diffcodec.transforms.wavelet import Transform

QUALITIES = 75, 100
"""Of the files, from the first to before the last."""


def _kept(image: Tensor) -> tuple[Tensor, Tensor]:
    """Every second sample both ways; the rest, which repeats them, has no details."""
    low = image[..., ::2, ::2].contiguous()
    return low, low.new_zeros((*low.shape[:-2], 3, *low.shape[-2:]))


def _repeated(low: Tensor, details: Tensor, height: int, width: int) -> Tensor:
    doubled = low.repeat_interleave(2, -2).repeat_interleave(2, -1)
    return doubled[..., :height, :width]


FULL = spaces.CONVERSIONS[0]
"""JPEG's 4:4:4."""

HALVED = replace(FULL, chroma=Transform(_kept, _repeated))
"""JPEG's 4:2:0, with samples of chroma in place of what a decoder doubles them to: what the networks
see of both is the same."""


def planes(pixels: Tensor, space: spaces.Space, generator: torch.Generator) -> Tensor:
    """Y, Cr and Cb uint8 [N, 3, H, W] of pixels of that shape; of HALVED, H and W are even.

    Each crop has a random quality.
    """
    qualities = torch.randint(*QUALITIES, (len(pixels),), generator=generator).tolist()
    made = [_decoded(crop, space, q) for crop, q in zip(pixels, qualities, strict=True)]
    return torch.stack(made)


def _decoded(crop: Tensor, space: spaces.Space, quality: int) -> Tensor:
    image = Image.fromarray(crop.movedim(0, -1).numpy()).convert("YCbCr")
    luma, blue, red = (torch.from_numpy(np.array(band)) for band in image.split())
    through = [_through(luma, quality, 0)]
    for chroma in (red, blue):
        if space is HALVED:
            halved = F.avg_pool2d(chroma[None].float(), 2)[0].round().byte()
            through.append(_through(halved, quality, 1).repeat_interleave(2, 0).repeat_interleave(2, 1))
        else:
            through.append(_through(chroma, quality, 1))
    return torch.stack(through)


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
    return Image.open(buffer).quantization
