"""The triangle filter by which decoders of JPEG and WebP double chroma, reversibly and back.

A doubled sample is 9/16 of the nearest sample of the low band, 3/16 of each next one across and
down, and 1/16 of the diagonal one, at the edges of themselves ("fancy upsampling": libjpeg's
jdsample.c, libwebp's upsampling.c). Details are differences from that; of every square of four the
first sample has none, as the low band is such that it comes out right. Of an image that was doubled
in this way the other three have none either, if the low band is found that it was doubled from:
nearly, by least squares; and exactly, by a search around each place that does not come out right.
"""

from functools import partial

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


def forward(image: Tensor, *, odd: int) -> tuple[Tensor, Tensor]:
    """As `wavelet.forward`.

    Args: the image; what is added to the sixteenths of odd columns before they are cut off, 7 in
    JPEG and 8 in WebP (to those of even ones 8).
    """
    planes = image.flatten(0, -3).numpy().astype(np.int64)
    lows = torch.from_numpy(np.stack([_low_of(plane, odd) for plane in planes]))
    low = lows.to(image.dtype).unflatten(0, image.shape[:-2])
    height, width = image.shape[-2:]
    rest = image - _doubled(low, height, width, odd)
    return low, pack(low, (rest[..., ::2, 1::2], rest[..., 1::2, ::2], rest[..., 1::2, 1::2]))


def inverse(low: Tensor, details: Tensor, height: int, width: int, *, odd: int) -> Tensor:
    """As `wavelet.inverse`; `odd` is as of `forward`."""
    image = _doubled(low, height, width, odd)
    across, down, diagonal = unpack(details, height, width)
    image[..., ::2, 1::2] += across
    image[..., 1::2, ::2] += down
    image[..., 1::2, 1::2] += diagonal
    return image


def halved(image: NDArray, known: NDArray, *, odd: int) -> NDArray:
    """The low band int64 [ceil(H/2), ceil(W/2)] that an image was doubled from, where it was.

    Args: integers [H, W]; which of them are known, bool; `odd` as of `forward`.
    """
    found, image = low_band(image, known, _doubling(odd)), image.astype(np.int64)
    if _wrong(found, image, known, odd) < _HOPELESS * found.size:
        _repair(found, image, known, odd, _WINDOWS, _TRIED, _MOST)
    return found


JPEG, WEBP = (Transform(partial(forward, odd=odd), partial(inverse, odd=odd)) for odd in (7, 8))
JPEG_HALVED, WEBP_HALVED = (partial(halved, odd=odd) for odd in (7, 8))


def _doubled(low: Tensor, height: int, width: int, odd: int) -> Tensor:
    rows, columns = torch.arange(height, device="cpu"), torch.arange(width, device="cpu")
    near, far = low[..., rows >> 1, :], low[..., _next(rows, low.shape[-2]), :]
    tall = 3 * near + far
    wide = 3 * tall[..., columns >> 1] + tall[..., _next(columns, low.shape[-1])]
    bias = torch.where(columns % 2 == 1, odd, 8).to(low.dtype)
    return (wide + bias) >> 4


def _next(places: Tensor, count: int) -> Tensor:
    """The second sample of the low band that a sample is made of."""
    return ((places >> 1) + torch.where(places % 2 == 1, 1, -1)).clamp(0, count - 1)


def _doubling(odd: int) -> Doubling:
    return Doubling((0.75, 0.25), (0.75, 0.25), lost=(1 - (8 + odd) / 16) / 2)


def _low_of(image: NDArray, odd: int) -> NDArray:
    """The low band, int64, of an image int64 [H, W]."""
    found = halved(image, np.ones(image.shape, bool), odd=odd)
    _settle(found, image, odd)
    return found


@njit(cache=True)
def _sixteenths(low, i, j, odd):  # type: ignore[no-untyped-def]
    """Those of sample (i, j) before they are cut off."""
    a, b = i >> 1, j >> 1
    a2 = min(max(a + 2 * (i & 1) - 1, 0), low.shape[0] - 1)
    b2 = min(max(b + 2 * (j & 1) - 1, 0), low.shape[1] - 1)
    near, far = 3 * low[a, b] + low[a2, b], 3 * low[a, b2] + low[a2, b2]
    return 3 * near + far + (odd if j & 1 else 8)


@njit(cache=True)
def _fails(low, image, known, a, b, odd):  # type: ignore[no-untyped-def]
    """Whether a known sample between those of the low band before and at (a, b) is wrong."""
    for i in range(max(2 * a - 1, 0), min(2 * a + 1, image.shape[0])):
        for j in range(max(2 * b - 1, 0), min(2 * b + 1, image.shape[1])):
            if known[i, j] and _sixteenths(low, i, j, odd) >> 4 != image[i, j]:
                return True
    return False


@njit(cache=True)
def _wrong(low, image, known, odd):  # type: ignore[no-untyped-def]
    """How many places between samples of the low band fail."""
    count = 0
    for a in range(low.shape[0] + 1):
        for b in range(low.shape[1] + 1):
            count += _fails(low, image, known, a, b, odd)
    return count


@njit(cache=True)
def _repair(low, image, known, odd, windows, tried, most):  # type: ignore[no-untyped-def]
    """Search windows around each place that fails for samples with which nothing in them fails."""
    height, width = low.shape
    for a in range(height + 1):
        for b in range(width + 1):
            for down, across in windows:
                rows, columns = min(down, height), min(across, width)
                for shift in range(9):
                    if not _fails(low, image, known, a, b, odd):
                        break
                    top = a - (rows // 2, 1, rows - 1)[shift // 3]
                    left = b - (columns // 2, 1, columns - 1)[shift % 3]
                    top = min(max(top, 0), height - rows)
                    left = min(max(left, 0), width - columns)
                    _search(low, image, known, odd, top, left, rows, columns, tried, most)


@njit(cache=True)
def _search(low, image, known, odd, top, left, rows, columns, tried, most):  # type: ignore[no-untyped-def]
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
            fits = not _fails(low, image, known, a, b, odd)
            if fits and column == columns - 1:
                fits = not _fails(low, image, known, a, b + 1, odd)
            if fits and row == rows - 1:
                fits = not _fails(low, image, known, a + 1, b, odd)
                if fits and column == columns - 1:
                    fits = not _fails(low, image, known, a + 1, b + 1, odd)
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
def _settle(low, image, odd):  # type: ignore[no-untyped-def]
    """Make the first sample of each square come out right, by the least changes, row by row."""
    for a in range(low.shape[0]):
        for b in range(low.shape[1]):
            while True:
                over = (_sixteenths(low, 2 * a, 2 * b, odd) >> 4) - image[2 * a, 2 * b]
                if over == 0:
                    break
                low[a, b] -= 1 if over > 0 else -1
