"""The reversible colour transform YCoCg-R (Malvar and Sullivan, 2003), and colours exchanged."""

import torch
from torch import Tensor

GREENS = (1, 0, 2)
"""Which of red, green and blue takes green's place in YCoCg-R, and green its own, by the number of
the colour transform. YCoCg-R alone is number 0."""


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


def exchanged(planes: Tensor, number: int) -> Tensor:
    """Planes [C, H, W] with the colour of a number in GREENS in green's place, and back."""
    if number == 0:
        return planes
    order = list(range(len(planes)))
    order[1], order[GREENS[number]] = order[GREENS[number]], order[1]
    return planes[order]
