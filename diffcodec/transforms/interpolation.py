"""One level of a reversible interpolation, in two dimensions: prediction without an update.

Of every square of four samples the low band keeps one as it is. The others are coded as differences
from means of what lies around them, so that a difference has no noise but that of its samples:
where noise is less than a step of the values, the update of a wavelet and its rounding cost a
seventh of the bits and more.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.transforms.doubling import Doubling, low_band
from diffcodec.transforms.wavelet import Transform, pack, predict, unpack


def forward(image: Tensor, *, halved: bool = False) -> tuple[Tensor, Tensor]:
    """As `wavelet.forward`.

    Args: the image; whether all means are of kept samples and a half is rounded up, as where an
    image of half the size has been interpolated: all differences are zero then.
    """
    low = image[..., 0::2, 0::2].clone()
    across, down, diagonal = (image[..., r::2, c::2] for r, c in ((0, 1), (1, 0), (1, 1)))
    beside, below = _beside(low, across, down, halved)
    amid = _corners(low, diagonal) if halved else _amid(across, down)
    return low, pack(low, (across - beside, down - below, diagonal - amid))


def inverse(
    low: Tensor, details: Tensor, height: int, width: int, *, halved: bool = False
) -> Tensor:
    """As `wavelet.inverse`; `halved` is as of `forward`."""
    across, down, diagonal = unpack(details, height, width)
    beside, below = _beside(low, across, down, halved)
    across, down = across + beside, down + below
    amid = _corners(low, diagonal) if halved else _amid(across, down)
    image = low.new_empty((*low.shape[:-2], height, width))
    image[..., 0::2, 0::2], image[..., 0::2, 1::2] = low, across
    image[..., 1::2, 0::2], image[..., 1::2, 1::2] = down, diagonal + amid
    return image


INTERPOLATION = Transform(forward, inverse)
_INTERPOLATED = Doubling((1, 0), (0.5, 0.5), lost=0)

HALVED = Transform(partial(forward, halved=True), partial(inverse, halved=True))


def halved(image: NDArray, known: NDArray) -> NDArray:
    """The low band int64 [ceil(H/2), ceil(W/2)] from which `HALVED` makes an image, where it does.

    Args: integers [H, W]; which of them are known, bool.
    """
    kept = image[::2, ::2].astype(np.int64)
    return np.where(known[::2, ::2], kept, low_band(image, known, _INTERPOLATED))


def _beside(low: Tensor, across: Tensor, down: Tensor, halved: bool) -> tuple[Tensor, Tensor]:
    """Means of the two samples of the low band beside those across, and above and below others."""
    count, rows = across.shape[-1], down.shape[-2]
    return predict(low, count, up=halved), predict(low.mT, rows, up=halved).mT


def _corners(low: Tensor, diagonal: Tensor) -> Tensor:
    """The mean of the four samples of the low band around each diagonal one; edges are repeated."""
    rows, columns = diagonal.shape[-2:]
    wide = torch.cat((low, low[..., -1:]), -1)
    wide = torch.cat((wide, wide[..., -1:, :]), -2)
    sums = wide[..., :-1, :-1] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., 1:, 1:]
    return (sums[..., :rows, :columns] + 2) >> 2


def _amid(across: Tensor, down: Tensor) -> Tensor:
    """The mean of the four samples around each diagonal one; what is missing is mirrored."""
    rows, columns = down.shape[-2], across.shape[-1]
    below = torch.cat((across[..., 1:, :], across[..., -1:, :]), -2)[..., :rows, :]
    right = torch.cat((down[..., 1:], down[..., -1:]), -1)[..., :columns]
    return (across[..., :rows, :] + below + down[..., :columns] + right + 2) >> 2
