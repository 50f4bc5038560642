"""The reversible colour transform YCoCg-R (Malvar and Sullivan, 2003), and colours exchanged."""

import torch
from torch import Tensor

RED, GREEN, BLUE = range(3)

EXCHANGES = (GREEN, RED, BLUE)
"""The colours that can stand in green's place."""


def rgb_to_ycocg(rgb: Tensor) -> Tensor:
    """Map integer RGB [..., 3, H, W] to (Y, Co, Cg) of the same shape and dtype.

    For inputs in 0..255, Y stays in 0..255; Co and Cg lie in -255..255, so the dtype must be
    signed and wider than 8 bits.
    """
    red, green, blue = rgb.unbind(-3)
    co = red - blue
    mid = blue + (co >> 1)
    cg = green - mid
    return torch.stack((mid + (cg >> 1), co, cg), -3)


def ycocg_to_rgb(ycocg: Tensor) -> Tensor:
    """Invert `rgb_to_ycocg` exactly."""
    luma, co, cg = ycocg.unbind(-3)
    mid = luma - (cg >> 1)
    blue = mid - (co >> 1)
    return torch.stack((blue + co, cg + mid, blue), -3)


def exchanged(planes: Tensor, one: int, other: int) -> Tensor:
    """Planes [C, H, W] with two of them in each other's place."""
    order = list(range(len(planes)))
    order[one], order[other] = other, one
    return planes[order]
