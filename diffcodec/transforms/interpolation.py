"""One level of a reversible interpolation, in two dimensions: prediction without an update.

Of every square of four samples the low band keeps one as it is. The others are coded as differences
from means of what lies around them, so that a difference has no noise but that of its samples:
where noise is less than a step of the values, the update of a wavelet and its rounding cost a
seventh of the bits and more.
"""

import torch
from torch import Tensor

from diffcodec.transforms.wavelet import pack, predict, unpack


def forward(image: Tensor) -> tuple[Tensor, Tensor]:
    """As `wavelet.forward`."""
    low = image[..., 0::2, 0::2].clone()
    across, down, diagonal = (image[..., r::2, c::2] for r, c in ((0, 1), (1, 0), (1, 1)))
    differences = (
        across - predict(low, across.shape[-1]),
        down - predict(low.mT, down.shape[-2]).mT,
        diagonal - _amid(across, down),
    )
    return low, pack(low, differences)


def inverse(low: Tensor, details: Tensor, height: int, width: int) -> Tensor:
    """As `wavelet.inverse`."""
    across, down, diagonal = unpack(details, height, width)
    across = across + predict(low, across.shape[-1])
    down = down + predict(low.mT, down.shape[-2]).mT
    image = low.new_empty((*low.shape[:-2], height, width))
    image[..., 0::2, 0::2], image[..., 0::2, 1::2] = low, across
    image[..., 1::2, 0::2], image[..., 1::2, 1::2] = down, diagonal + _amid(across, down)
    return image


def _amid(across: Tensor, down: Tensor) -> Tensor:
    """The mean of the four samples around each diagonal one; what is missing is mirrored."""
    rows, columns = down.shape[-2], across.shape[-1]
    below = torch.cat((across[..., 1:, :], across[..., -1:, :]), -2)[..., :rows, :]
    right = torch.cat((down[..., 1:], down[..., -1:]), -1)[..., :columns]
    return (across[..., :rows, :] + below + down[..., :columns] + right + 2) >> 2
