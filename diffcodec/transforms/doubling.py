"""The low band that an image was doubled from, by least squares.

Along each axis a sample of the low band and the one before it make the first of two samples, and it
and the one after it make the second.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Doubling(NamedTuple):
    """How an image was doubled.

    Attributes:
        first, second: shares of a sample of the low band, and of the one before or after it; at an
            edge, of itself.
        lost: what rounding cuts off on average.
    """

    first: tuple[float, float]
    second: tuple[float, float]
    lost: float

    def gains(self) -> tuple[float, float]:
        """The least and the largest squared gain of an image, of both axes together."""
        pairs = self.first, self.second
        least, most = (sum((a + sign * b) ** 2 for a, b in pairs) for sign in (-1, 1))
        return least * least, most * most


_UNKNOWN = 1 / 64  # what the squared error of a sample that is not known counts
_STEPS = 12


def low_band(image: NDArray, known: NDArray, how: Doubling) -> NDArray:
    """The low band, nearly, rounded to int64 [ceil(H/2), ceil(W/2)].

    Args: the image, integers [H, W]; which of its samples are known, bool; how it was doubled.
    """
    height, width = image.shape
    missing = (0, height % 2), (0, width % 2)
    counted = np.pad(np.where(known, np.float32(1), np.float32(_UNKNOWN)), missing)
    wanted = np.pad(image, missing, mode="edge").astype(np.float32) + np.float32(how.lost)
    rows, columns = (side // 2 for side in wanted.shape)
    total, count = (
        part.reshape(rows, 2, columns, 2).sum((1, 3)) for part in (counted * wanted, counted)
    )
    low: NDArray = total / count
    step = np.zeros_like(low)
    for share, kept in _chebyshev(*how.gains()):
        away = counted * (wanted - _doubled(_doubled(low, how).T, how).T)
        step = _adjoint(_adjoint(away, how).T, how).T + np.float32(kept) * step
        low += np.float32(share) * step
    return np.rint(low).astype(np.int64)


def _chebyshev(least: float, most: float) -> Iterator[tuple[float, float]]:
    """Of each step: its share of the direction, and that of the one before in it.

    Chebyshev's iteration, for eigenvalues between the two: no sum over the image decides, which
    machines would round in different ways (Saad, 2003: Iterative methods, algorithm 12.1).
    """
    middle, reach = (most + least) / 2, (most - least) / 2
    share, kept = 1 / middle, 0.0
    for number in range(_STEPS):
        yield share, kept
        kept = (reach * share / 2) ** 2 * (1 if number else 2)
        share = 1 / (middle - kept / share)


def _doubled(low: NDArray, how: Doubling) -> NDArray:
    """Twice as many rows, float [2 H, W], of [H, W]."""
    before, after = np.concatenate((low[:1], low[:-1])), np.concatenate((low[1:], low[-1:]))
    (own, beside), (own2, beside2) = how.first, how.second
    both = np.stack((own * low + beside * before, own2 * low + beside2 * after), 1)
    return both.reshape(-1, low.shape[1])


def _adjoint(image: NDArray, how: Doubling) -> NDArray:
    """The transpose of `_doubled`."""
    first, second = image[::2], image[1::2]
    (own, beside), (own2, beside2) = how.first, how.second
    low = own * first + own2 * second
    low[:-1] += beside * first[1:]
    low[1:] += beside2 * second[:-1]
    low[0] += beside * first[0]
    low[-1] += beside2 * second[-1]
    return low
