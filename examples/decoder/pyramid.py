"""The pyramid: sizes of its bands, and the way back from coefficients to pixels.

Whatever has coefficients of a level is int64 [9, h, w]: HL, LH and HH of Y, of Co and of Cg, or
of a space's Y, Cr and Cb, each filled up with zeros to the size of the low band.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .model import LOW
from .spaces import Space


@dataclass(frozen=True)
class Pyramid:
    """The levels of pictures of one size.

    `interpolated` is as in `Model`; without a space there are Co and Cg.
    """

    height: int
    width: int
    depth: int
    interpolated: int
    space: Space | None = None

    @property
    def levels(self) -> int:
        """How many levels of the wavelet there are."""
        return min(5, (max(self.height, self.width) - 1).bit_length())

    @property
    def order(self) -> list[int]:
        """The levels of a rung, in the order of the stream."""
        return [LOW, *range(self.levels, 0, -1)]

    def low_size(self, level: int) -> tuple[int, int]:
        """Rows and columns of the low band after `level` levels."""
        return -(-self.height >> level), -(-self.width >> level)

    def size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's channels."""
        return self.low_size(self.levels if level == LOW else level)

    def exists(self, level: int) -> np.ndarray:
        """Which coefficients of a colour are real, bool [3, h, w]; the others are zero."""
        mask = np.zeros((3, *self.size(level)), bool)
        if level == LOW:
            mask[0] = True
        else:
            height, width = self.low_size(level - 1)
            mask[0, :, : width // 2] = True
            mask[1, : height // 2] = True
            mask[2, : height // 2, : width // 2] = True
        return mask

    def finer_low(self, low: np.ndarray, level: int, coefficients: np.ndarray) -> np.ndarray:
        """The low band after one level less, int64 [3, h', w'], from that after `level` levels."""
        if level == LOW:
            return coefficients[::3]
        size = self.low_size(level - 1)
        bands = coefficients.reshape(3, 3, *low.shape[1:])
        chroma = _wavelet
        if level <= self.interpolated:
            double = self.space.double if self.space is not None and level == 1 else None
            chroma = partial(_differences, double) if double else _interpolate
        ways = _wavelet, chroma, chroma
        return np.stack([way(*both, *size) for way, *both in zip(ways, low, bands, strict=True)])

    def picture(self, coefficients: dict[int, np.ndarray]) -> np.ndarray:
        """Red, green and blue, int64 [3, height, width], from the coefficients of all levels."""
        low = np.zeros((3, *self.size(LOW)), np.int64)
        for level in self.order:
            low = self.finer_low(low, level, coefficients[level])
        if self.space is not None:
            return self.space.picture(low)
        y, co, cg = low
        middle = y + (1 << self.depth - 1) - (cg >> 1)
        blue = middle - (co >> 1)
        return np.stack((blue + co, middle + cg, blue)).clip(0, (1 << self.depth) - 1)


def _real(bands: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HL, LH and HH without what fills them up."""
    rows, columns = height // 2, width // 2
    return bands[0][:, :columns], bands[1][:rows], bands[2][:rows, :columns]


def _wavelet(low: np.ndarray, bands: np.ndarray, height: int, width: int) -> np.ndarray:
    """One level of the 5/3 wavelet, back: columns first, then rows."""
    hl, lh, hh = _real(bands, height, width)
    return _merge(_merge(low.T, lh.T).T, _merge(hl.T, hh.T).T)


def _merge(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Rows of samples from their low and high halves [..., ceil(n / 2)] and [..., floor(n / 2)]."""
    count = low.shape[-1]
    if high.shape[-1]:
        padded = np.pad(high, ((0, 0), (1, 1)), "edge")
        low = low - ((padded[:, :count] + padded[:, 1 : count + 1] + 2) >> 2)
    rows = np.empty((len(low), count + high.shape[-1]), np.int64)
    rows[:, ::2], rows[:, 1::2] = low, high + _between(low, high.shape[-1])
    return rows


def _between(even: np.ndarray, count: int) -> np.ndarray:
    """Means of neighbours in a row, the last one's with itself."""
    following = np.concatenate((even[:, 1:], even[:, -1:]), 1)
    return (even[:, :count] + following[:, :count]) >> 1


def _interpolate(low: np.ndarray, bands: np.ndarray, height: int, width: int) -> np.ndarray:
    """One level of interpolation, back."""
    hl, lh, hh = _real(bands, height, width)
    rows, columns = hh.shape
    across, down = hl + _between(low, columns), lh + _between(low.T, rows).T
    below = np.concatenate((across[1:], across[-1:]))[:rows]
    right = np.concatenate((down[:, 1:], down[:, -1:]), 1)[:, :columns]
    plane = np.empty((height, width), np.int64)
    plane[::2, ::2], plane[::2, 1::2], plane[1::2, ::2] = low, across, down
    plane[1::2, 1::2] = hh + ((across[:rows] + below + down[:, :columns] + right + 2) >> 2)
    return plane


def _differences(
    double: Callable[[np.ndarray, int, int], np.ndarray],
    low: np.ndarray,
    bands: np.ndarray,
    height: int,
    width: int,
) -> np.ndarray:
    """One level of differences from the low band doubled, back."""
    hl, lh, hh = _real(bands, height, width)
    plane = double(low, height, width)
    plane[::2, 1::2] += hl
    plane[1::2, ::2] += lh
    plane[1::2, 1::2] += hh
    return plane
