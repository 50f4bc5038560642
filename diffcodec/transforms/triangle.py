"""The triangle filter by which decoders of JPEG and WebP double chroma, reversibly and back.

A doubled sample is 9/16 of the nearest sample of the low band, 3/16 of each next one across and
down, and 1/16 of the diagonal one, at the edges of themselves ("fancy upsampling": libjpeg's
jdsample.c, libwebp's upsampling.c). Of an image that was cut out afterwards the first row or column
may be the second of its pair. Details are differences from that; of every square of four the
first sample has none, as the low band is such that it comes out right. Of an image that was doubled
in this way the other three have none either, if the low band is found that it was doubled from:
nearly, by least squares; and exactly, by a search around each place that does not come out right.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.transforms.doubling import Doubling, low_band
from diffcodec.transforms.wavelet import Transform, pack, unpack

_HOPELESS = 1 / 8  # of squares that do not come out right: the image was not doubled
_WINDOWS = np.array([(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (3, 8), (8, 3)])
_TRIED = np.array([0, 1, -1, 2, -2])  # changes of a sample
_MOST = 2_000  # samples that are tried in a window


class Filter(NamedTuple):
    """What a decoder did.

    Attributes:
        odd: what is added to the sixteenths of the second of two columns before they are cut off,
            7 in JPEG and 8 in WebP (to those of the first 8).
        down, across: 1 where the image begins with the second of two rows, or columns; else 0.
    """

    odd: int
    down: int = 0
    across: int = 0


def forward(image: Tensor, *, how: Filter) -> tuple[Tensor, Tensor]:
    """As `wavelet.forward`."""
    planes = image.flatten(0, -3).numpy().astype(np.int64)
    lows = torch.from_numpy(np.stack([_low_of(plane, how) for plane in planes]))
    low = lows.to(image.dtype).unflatten(0, image.shape[:-2])
    height, width = image.shape[-2:]
    rest = image - _doubled(low, height, width, how)
    return low, pack(low, (rest[..., ::2, 1::2], rest[..., 1::2, ::2], rest[..., 1::2, 1::2]))


def inverse(low: Tensor, details: Tensor, height: int, width: int, *, how: Filter) -> Tensor:
    """As `wavelet.inverse`."""
    image = _doubled(low, height, width, how)
    across, down, diagonal = unpack(details, height, width)
    image[..., ::2, 1::2] += across
    image[..., 1::2, ::2] += down
    image[..., 1::2, 1::2] += diagonal
    return image


def halved(image: NDArray, known: NDArray, *, how: Filter) -> NDArray:
    """The low band int64 [ceil(H/2), ceil(W/2)] that an image was doubled from, where it was.

    Args: integers [H, W]; which of them are known, bool; what the decoder did.
    """
    rows, columns = (-(-side // 2) for side in image.shape)
    before = (how.down, 0), (how.across, 0)
    whole, there = np.pad(image, before, mode="edge"), np.pad(known, before)
    found = np.ascontiguousarray(low_band(whole, there, _doubling(how))[:rows, :columns])
    # The low band lacks what a last row or column, the first of its pair, was made of.
    inside = known.copy()
    inside[2 * rows - how.down :], inside[:, 2 * columns - how.across :] = False, False
    image = image.astype(np.int64)
    if _wrong(found, image, inside, how) < _HOPELESS * found.size:
        _repair(found, image, inside, how, _WINDOWS, _TRIED, _MOST)
    return found


def transform(how: Filter) -> Transform:
    """The reversible transform of what was doubled so."""
    return Transform(partial(forward, how=how), partial(inverse, how=how))


JPEG, WEBP = Filter(7), Filter(8)


def cut(how: Filter) -> list[Filter]:
    """The same of images that were cut out at an odd row, an odd column, or both."""
    return [how._replace(down=i, across=j) for i, j in product((0, 1), repeat=2) if i or j]


def _doubled(low: Tensor, height: int, width: int, how: Filter) -> Tensor:
    rows, columns = (
        torch.arange(first, first + count, device="cpu")
        for first, count in ((how.down, height), (how.across, width))
    )
    near, far = _made_of(rows, low.shape[-2])
    tall = 3 * low[..., near, :] + low[..., far, :]
    near, far = _made_of(columns, low.shape[-1])
    wide = 3 * tall[..., near] + tall[..., far]
    bias = torch.where(columns % 2 == 1, how.odd, 8).to(low.dtype)
    return (wide + bias) >> 4


def _made_of(places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The two samples of the low band that a sample is made of, the nearer one first."""
    near = places >> 1
    far = near + torch.where(places % 2 == 1, 1, -1)
    return near.clamp(max=count - 1), far.clamp(0, count - 1)


def _doubling(how: Filter) -> Doubling:
    return Doubling((0.75, 0.25), (0.75, 0.25), lost=(1 - (8 + how.odd) / 16) / 2)


def _low_of(image: NDArray, how: Filter) -> NDArray:
    """The low band, int64, of an image int64 [H, W]."""
    found = halved(image, np.ones(image.shape, bool), how=how)
    _settle(found, image, how)
    return found


@njit(cache=True)
def _sixteenths(low, i, j, how):  # type: ignore[no-untyped-def]
    """Those of sample (i, j) before they are cut off."""
    i, j = i + how.down, j + how.across
    last, right = low.shape[0] - 1, low.shape[1] - 1
    a, b = min(i >> 1, last), min(j >> 1, right)
    a2 = min(max((i >> 1) + 2 * (i & 1) - 1, 0), last)
    b2 = min(max((j >> 1) + 2 * (j & 1) - 1, 0), right)
    near, far = 3 * low[a, b] + low[a2, b], 3 * low[a, b2] + low[a2, b2]
    return 3 * near + far + (how.odd if j & 1 else 8)


@njit(cache=True)
def _fails(low, image, known, a, b, how):  # type: ignore[no-untyped-def]
    """Whether a known sample between those of the low band before and at (a, b) is wrong."""
    top, left = 2 * a - how.down, 2 * b - how.across
    for i in range(max(top - 1, 0), min(top + 1, image.shape[0])):
        for j in range(max(left - 1, 0), min(left + 1, image.shape[1])):
            if known[i, j] and _sixteenths(low, i, j, how) >> 4 != image[i, j]:
                return True
    return False


@njit(cache=True)
def _wrong(low, image, known, how):  # type: ignore[no-untyped-def]
    """How many places between samples of the low band fail."""
    count = 0
    for a in range(low.shape[0] + 1):
        for b in range(low.shape[1] + 1):
            count += _fails(low, image, known, a, b, how)
    return count


@njit(cache=True)
def _repair(low, image, known, how, windows, tried, most):  # type: ignore[no-untyped-def]
    """Search windows around each place that fails for samples with which nothing in them fails."""
    height, width = low.shape
    for a in range(height + 1):
        for b in range(width + 1):
            for down, across in windows:
                rows, columns = min(down, height), min(across, width)
                for shift in range(9):
                    if not _fails(low, image, known, a, b, how):
                        break
                    top = a - (rows // 2, 1, rows - 1)[shift // 3]
                    left = b - (columns // 2, 1, columns - 1)[shift % 3]
                    top = min(max(top, 0), height - rows)
                    left = min(max(left, 0), width - columns)
                    _search(low, image, known, how, top, left, rows, columns, tried, most)


@njit(cache=True)
def _search(low, image, known, how, top, left, rows, columns, tried, most):  # type: ignore[no-untyped-def]
    """Try changes of the samples of a window, one after the other, and keep them if all fit."""
    before = low[top : top + rows, left : left + columns].copy()
    number, count = np.zeros(rows * columns, np.int64), 0
    place = 0
    while 0 <= place < len(number) and count < most:
        row, column = divmod(place, columns)
        a, b = top + row, left + column
        fits = False
        while not fits and number[place] < len(tried):
            low[a, b] = before[row, column] + tried[number[place]]
            number[place] += 1
            count += 1
            fits = not _fails(low, image, known, a, b, how)
            if fits and column == columns - 1:
                fits = not _fails(low, image, known, a, b + 1, how)
            if fits and row == rows - 1:
                fits = not _fails(low, image, known, a + 1, b, how)
                if fits and column == columns - 1:
                    fits = not _fails(low, image, known, a + 1, b + 1, how)
        if fits:
            place += 1
            if place < len(number):
                number[place] = 0
        else:
            low[a, b] = before[row, column]
            place -= 1
    if place < len(number):
        low[top : top + rows, left : left + columns] = before


@njit(cache=True)
def _settle(low, image, how):  # type: ignore[no-untyped-def]
    """Make the first sample of each square come out right, by the least changes, one by one.

    Each is made of its own sample of the low band, and of some that come before in this order.
    """
    height, width = low.shape
    for row in range(height):
        a = height - 1 - row if how.down else row
        for column in range(width):
            b = width - 1 - column if how.across else column
            while True:
                over = (_sixteenths(low, 2 * a, 2 * b, how) >> 4) - image[2 * a, 2 * b]
                if over == 0:
                    break
                low[a, b] -= 1 if over > 0 else -1
