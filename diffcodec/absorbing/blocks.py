"""Blocks of one colour: whether all of a square has the colour that its corners share.

That is asked before the phase which fills the square; one decision then stands for all its pixels.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.absorbing.mixing import HALF, ONE, PRECISION, SHARPEST, adapt
from diffcodec.entropy import PROBABILITY_BITS, Probabilities

SIDES, AROUND = 8, 9
"""Sides of blocks, by their logarithm; and how many of the eight neighbours have such corners."""

CASES = SIDES * AROUND

LEAST = 16
"""The least side: smaller blocks cost more than their pixels."""

SET = 256
"""Blocks that are asked at a time."""

_LIMIT = 255
_SHIFT = PRECISION - PROBABILITY_BITS
_RAREST = SHARPEST << _SHIFT  # of a probability


@dataclass(frozen=True)
class Blocks:
    """The blocks of one side that may have one colour.

    Attributes:
        side: in pixels.
        corners: colour of the first corner of every block, [rows, columns].
        open: which blocks have corners of one colour and something masked.
        cases: of those, int64 [n].
    """

    side: int
    corners: NDArray[np.int32]
    open: NDArray[np.bool_]
    cases: NDArray[np.int64]

    @classmethod
    def of(cls, image: NDArray[np.int32], masked: NDArray[np.bool_], side: int) -> "Blocks":
        """Those of a picture [H, W] whose grid of that spacing is known."""
        corners = image[::side, ::side]
        edged = np.pad(corners, ((0, 1), (0, 1)), "edge")
        alike = np.ones(corners.shape, np.bool_)
        for other in (edged[1:, :-1], edged[:-1, 1:], edged[1:, 1:]):
            alike &= other == corners
        padded = np.pad(np.where(alike, corners, -1), 1, constant_values=-1)
        rows, columns = corners.shape
        around = np.zeros(corners.shape, np.int64)
        for down in range(3):
            for across in range(3):
                around += padded[down : down + rows, across : across + columns] == corners
        around -= alike  # the block itself
        case = min(side.bit_length() - 1, SIDES - 1) * AROUND + around
        chosen = alike & _any(masked, side)
        return cls(side, corners, chosen, case[chosen])

    def uniform(self, truth: NDArray[np.int32]) -> NDArray[np.int32]:
        """Which of the open ones have one colour in the picture [H, W], 0 or 1 each."""
        different = truth != self.spread(self.corners, truth.shape)
        return (~_any(different, self.side))[self.open].astype(np.int32)

    def spread(self, values: NDArray, shape: tuple[int, ...]) -> NDArray:
        """A value of each block, [rows, columns], at each of its pixels, [H, W]."""
        return values.repeat(self.side, 0).repeat(self.side, 1)[: shape[0], : shape[1]]


def probabilities(table: NDArray[np.int32], cases: NDArray[np.int64]) -> Probabilities:
    """That blocks of these cases have one colour."""
    most = 2 * HALF - _RAREST
    return (table[cases].clip(_RAREST, most) >> _SHIFT) / ONE


@njit(cache=True, nogil=True)
def learn(table, seen, cases, bits):  # type: ignore[no-untyped-def]
    """Learn from the answers."""
    for k in range(len(bits)):
        adapt(table, seen, cases[k], bits[k], _LIMIT)


def _any(pixels: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Whether a block has any of these pixels, [rows, columns]."""
    starts = [np.arange(0, length, side) for length in pixels.shape]
    rows = np.logical_or.reduceat(pixels, starts[0], 0)
    return np.logical_or.reduceat(rows, starts[1], 1)
