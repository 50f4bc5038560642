"""Crops as integers of luma and chroma of which a decoder makes RGB.

They are saved as files of a format, and the pixels that these decode to are brought back to its
space as an encoder brings a picture there, with colours that were clipped and all. Photo CD's files
can only be read: for it, crops are rounded to its integers.
"""

import io
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcodec.transforms.clipping import unclip
from diffcodec.transforms.spaces import SPACES, Space, from_rgb
from diffcodec.transforms.wavelet import Transform, pack, unpack

WORST, BEST = 75, 100
"""Of the qualities of files, all alike."""


def _split(image: Tensor) -> tuple[Tensor, Tensor]:
    low, across = image[..., ::2, ::2].contiguous(), image[..., ::2, 1::2]
    return low, pack(low, (across, image[..., 1::2, ::2], image[..., 1::2, 1::2]))


def _joined(low: Tensor, details: Tensor, height: int, width: int) -> Tensor:
    image = low.new_empty((*low.shape[:-2], height, width))
    image[..., ::2, ::2] = low
    across, down, diagonal = unpack(details, height, width)
    image[..., ::2, 1::2], image[..., 1::2, ::2], image[..., 1::2, 1::2] = across, down, diagonal
    return image


SPLIT = Transform(_split, _joined)
"""The low band and the details of a plane, each in their places of it: of each square of four the
first is of the low band. What has no transform on a device is done before, and kept so."""

_JPEG_444, _, _PHOTO_CD, _JPEG_420, _WEBP_420 = SPACES[:5]


class Conversion(Enum):
    """What crops went through. It is the same in other processes, as a space is not."""

    JPEG_444 = "JPEG 4:4:4"
    JPEG_420 = "JPEG 4:2:0"
    WEBP_420 = "WebP 4:2:0"
    PHOTO_CD = "Photo CD"

    @property
    def space(self) -> Space:
        """Of the crops, for a pyramid: chroma that a file had doubled is as SPLIT has it."""
        return _SPACES[self]


_SPACES = {
    Conversion.JPEG_444: _JPEG_444,
    Conversion.JPEG_420: replace(_JPEG_420, chroma=SPLIT),
    Conversion.WEBP_420: replace(_WEBP_420, chroma=SPLIT),
    Conversion.PHOTO_CD: _PHOTO_CD,
}


_FILES: dict[Conversion, tuple[Space, dict[str, Any]]] = {
    Conversion.JPEG_444: (_JPEG_444, {"format": "JPEG", "subsampling": "4:4:4"}),
    Conversion.JPEG_420: (_JPEG_420, {"format": "JPEG", "subsampling": "4:2:0"}),
    Conversion.WEBP_420: (_WEBP_420, {"format": "WEBP", "method": 2}),
}
"""The spaces of what files decode to, and how Pillow saves them."""


def convert(pixels: Tensor, how: Conversion | None, generator: torch.Generator) -> Tensor:
    """Y, Cr and Cb uint8 of pixels, uint8 [N, 3, H, W]; those themselves without a conversion.

    What one of SPLIT lacks of eight bits is cut off, as there is next to none.

    Args: the pixels, of even height and width; what they go through; of the qualities of files,
    which each crop has one of.
    """
    if how is None:
        return pixels
    if how is Conversion.PHOTO_CD:
        return torch.from_numpy(np.stack([_rounded(crop, how.space) for crop in pixels.numpy()]))
    qualities = torch.randint(WORST, BEST + 1, (len(pixels),), generator=generator).tolist()
    pairs = zip(pixels.numpy(), qualities, strict=True)
    made = [_through_file(crop, *_FILES[how], quality) for crop, quality in pairs]
    return torch.from_numpy(np.stack(made))


def _through_file(crop: NDArray, space: Space, options: dict[str, Any], quality: int) -> NDArray:
    """Y, Cr and Cb uint8 [3, H, W] of what a file of a crop decodes to."""
    buffer, pixels = io.BytesIO(), np.ascontiguousarray(crop.transpose(1, 2, 0))
    Image.fromarray(pixels).save(buffer, quality=quality, **options)
    rgb = np.ascontiguousarray(np.asarray(Image.open(buffer).convert("RGB")).transpose(2, 0, 1))
    planes = from_rgb(space, rgb)
    assert planes is not None, "Pillow's decoders are those whose spaces are known"
    if space.halved is not None:
        unclip(space, rgb, planes)
        whole = torch.from_numpy(planes[1:].astype(np.int32))
        low, details = space.chroma.forward(whole)
        chroma = _joined(low, details + 128, *whole.shape[-2:])
        planes[1:] = chroma.clamp_(0, 255).numpy()
    return planes


def _rounded(crop: NDArray, space: Space) -> NDArray:
    """Y, Cr and Cb uint8 [3, H, W] nearest to a crop, with chroma that is interpolated."""
    tables = space.luma, space.red, *space.green, space.blue
    luma, red, of_blue, of_red, blue = (
        (int(table[-1]) - int(table[0])) / (255 << space.shift) for table in tables
    )
    to_rgb = np.array([[luma, red, 0], [luma, of_red, of_blue], [luma, 0, blue]])
    planes = np.einsum("ij,jhw->ihw", np.linalg.inv(to_rgb), crop.astype(np.float64))
    planes[1:] += np.array(space.grey[::-1])[:, None, None]
    y, (_, height, width) = planes[0], planes.shape
    squares = planes[1:].reshape(2, height // 2, 2, width // 2, 2).mean((2, 4))
    low = torch.from_numpy(np.rint(squares).clip(0, 255).astype(np.int32))
    chroma = space.doubled(low, height, width).numpy()
    return np.concatenate((np.rint(y)[None], chroma)).clip(0, 255).astype(np.uint8)
