"""Pictures made smaller: how much of a file they need, and their pixels."""

import numpy as np
from numpy.typing import NDArray

from diffcodec.container import QUANTISED, Header

FINE_RUNG = 2
"""The rung whose error nobody sees in a photograph of 8 bits per sample; each rung halves it."""


def rung(header: Header, factor: int) -> int:
    """The rung down to which a picture must be decoded that is shown reduced by a factor.

    Of a photograph, reducing both sides by 2^n averages the error, which is about white, down by
    2^n; of other pictures, whose rungs are grids, a pixel is the mean of four known ones or more.
    """
    halvings = factor.bit_length() - 1
    if header.codec == QUANTISED:
        return FINE_RUNG + header.depth - 8 + halvings
    return max(1, halvings)


def reduced(planes: NDArray, factor: int) -> NDArray:
    """Planes [C, H, W] of means of squares of pixels, of their type; smaller ones at the edges."""
    if factor == 1:
        return planes
    sums = planes
    for axis in (1, 2):
        starts = np.arange(0, planes.shape[axis], factor)
        sums = np.add.reduceat(sums, starts, axis, dtype=np.float64)
    heights, widths = (np.diff([*range(0, side, factor), side]) for side in planes.shape[1:])
    return np.rint(sums / np.outer(heights, widths)).astype(planes.dtype)
