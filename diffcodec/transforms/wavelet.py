"""One level of the reversible LeGall 5/3 wavelet (ISO/IEC 15444-1, annex F), in two dimensions.

Signals are extended by mirroring at their ends, so that any size has a perfect inverse without
padding: a side of n samples splits into ceil(n/2) low and floor(n/2) high ones. The three
detail bands are filled up with zeros to the shape of the low band; `details_shape` says how
much of each is real.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Transform(NamedTuple):
    """One level of a reversible transform: what splits as `forward` does, and what undoes that."""

    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor, Tensor, int, int], Tensor]


def details_shape(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Sizes (rows, columns) of the real part of HL, LH and HH for an image of this size."""
    low_h, low_w, high_h, high_w = (height + 1) // 2, (width + 1) // 2, height // 2, width // 2
    return (low_h, high_w), (high_h, low_w), (high_h, high_w)


def forward(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split integers [..., H, W] into low [..., h, w] and details [..., 3, h, w].

    h = ceil(H/2), w = ceil(W/2). The details are HL (horizontal differences), LH and HH.
    """
    left, right = _split(image)
    low, vertical = (t.mT for t in _split(left.mT))
    horizontal, diagonal = (t.mT for t in _split(right.mT))
    return low, pack(low, (horizontal, vertical, diagonal))


def inverse(low: Tensor, details: Tensor, height: int, width: int) -> Tensor:
    """Invert `forward` exactly; (height, width) is the size of the image it was given."""
    horizontal, vertical, diagonal = unpack(details, height, width)
    left = _merge(low.mT, vertical.mT).mT
    right = _merge(horizontal.mT, diagonal.mT).mT
    return _merge(left, right)


WAVELET = Transform(forward, inverse)


def pack(low: Tensor, bands: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """HL, LH and HH as one [..., 3, h, w], filled up with zeros to the shape of the low band."""
    details = low.new_zeros((*low.shape[:-2], 3, *low.shape[-2:]))
    for number, band in enumerate(bands):
        details[..., number, : band.shape[-2], : band.shape[-1]] = band
    return details


def unpack(details: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Undo `pack` for an image of this size."""
    across, down, diagonal = (
        details[..., number, :rows, :columns]
        for number, (rows, columns) in enumerate(details_shape(height, width))
    )
    return across, down, diagonal


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    even, odd = x[..., 0::2], x[..., 1::2]
    high = odd - predict(even, odd.shape[-1])
    return even + _update(high, even.shape[-1]), high


def _merge(low: Tensor, high: Tensor) -> Tensor:
    even = low - _update(high, low.shape[-1])
    x = low.new_empty((*low.shape[:-1], low.shape[-1] + high.shape[-1]))
    x[..., 0::2] = even
    x[..., 1::2] = high + predict(even, high.shape[-1])
    return x


def predict(even: Tensor, count: int, *, up: bool = False) -> Tensor:
    """The mean of each odd sample's two even neighbours; a half is rounded down, or up."""
    following = torch.cat((even[..., 1:], even[..., -1:]), -1)
    return (even[..., :count] + following[..., :count] + up) >> 1


def _update(high: Tensor, count: int) -> Tensor:
    """A quarter of the sum of each even sample's two details; nothing if there are none."""
    if high.shape[-1] == 0:
        return high.new_zeros((*high.shape[:-1], count))
    padded = torch.cat((high[..., :1], high, high[..., -1:]), -1)
    return (padded[..., :count] + padded[..., 1 : count + 1] + 2) >> 2
