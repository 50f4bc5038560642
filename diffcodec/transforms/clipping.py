"""Colours that were clipped, of pictures whose chroma was doubled.

A clipped colour comes from many integers of its space. Those with the chroma that was doubled cost
next to nothing, as the details are zero then; what it was doubled from is found from the colours
around that are not clipped.
"""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.transforms import spaces
from diffcodec.transforms.interpolation import HALVED
from diffcodec.transforms.spaces import Space, interval, pixel

_BLOCK, _AROUND = 256, 16  # sides of what is looked at at a time, and of what is around it
_FARTHEST = 16  # steps from the chroma that is wanted
_REACHES = (1, 2, 4, 8)  # of searches, one after the other


def unclip(space: Space, rgb: NDArray, planes: NDArray) -> None:
    """Give clipped colours the nearest chroma to that which was doubled, in place.

    Args: a space of doubled chroma; uint8 [3, H, W]; Y, Cr and Cb uint8 [3, H, W] of which
    `spaces.to_rgb` makes that, which it still does afterwards.
    """
    clipped = spaces.clipped(rgb)
    _approach(space, rgb, planes, clipped, _expected)
    if space.chroma is HALVED:
        for reach in _REACHES:
            _search(rgb, planes, clipped, reach, *_tables(space))
    _approach(space, rgb, planes, clipped, _kept)


def _tables(space: Space) -> tuple[int, NDArray, NDArray, NDArray, NDArray]:
    return space.shift, space.luma, space.red, space.green, space.blue


def _approach(
    space: Space,
    rgb: NDArray,
    planes: NDArray,
    clipped: NDArray,
    low_bands: Callable[[Space, NDArray, NDArray], Tensor],
) -> None:
    """Bring clipped colours as near as can be to the chroma that low bands give when doubled."""
    for corner in np.ndindex(*(-(-side // _BLOCK) for side in clipped.shape)):
        block = tuple(slice(at * _BLOCK, (at + 1) * _BLOCK) for at in corner)
        if not clipped[block].any():
            continue
        starts = [max(own.start - _AROUND, 0) for own in block]
        wide = tuple(slice(at, own.stop + _AROUND) for at, own in zip(starts, block, strict=True))
        height, width = clipped[wide].shape
        low = low_bands(space, planes[1:, *wide], clipped[wide])
        chroma = space.doubled(low, height, width).clamp_(0, 255).numpy()
        down, across = (own.start - at for at, own in zip(starts, block, strict=True))
        inside = chroma[:, down:, across:]
        _choose(rgb[:, *block], planes[:, *block], clipped[block], inside, *_tables(space))


def _expected(space: Space, chroma: NDArray, clipped: NDArray) -> Tensor:
    """The low bands int32 [2, h, w] that colours which are not clipped come from."""
    return space.low_bands(chroma, ~clipped).to(torch.int32).clamp_(0, 255)


def _kept(space: Space, chroma: NDArray, _: NDArray) -> Tensor:
    """The low bands int32 [2, h, w] that are coded."""
    return space.chroma.forward(torch.from_numpy(chroma.astype(np.int32)))[0]


@njit(cache=True)
def _lumas(r, g, b, cr, cb, shift, luma, red, green, blue):  # type: ignore[no-untyped-def]
    """From which Y on, and before which, these make RGB; none if the first is not less."""
    if not (0 <= cr <= 255 and 0 <= cb <= 255):
        return 0, 0
    low, high = interval(luma, np.int64(red[cr]), r, shift)
    low2, high2 = interval(luma, np.int64(green[0, cb] + green[1, cr]), g, shift)
    low3, high3 = interval(luma, np.int64(blue[cb]), b, shift)
    return max(low, low2, low3), min(high, high2, high3)


@njit(cache=True)
def _ring(step, away):  # type: ignore[no-untyped-def]
    """One of the steps in two directions that are so many in all, a quarter around at a time."""
    turn, part = divmod(step, max(away, 1))
    rest = away - part
    return ((rest, part), (-part, rest), (-rest, -part), (part, -rest))[turn]


@njit(cache=True)
def _choose(  # type: ignore[no-untyped-def]
    rgb, planes, chosen, chroma, shift, luma, red, green, blue
):
    """Give chosen pixels the nearest to a chroma int32 [2, H, W] that makes their RGB with some Y.

    Of several, that with the Y which is nearest to the one there is.
    """
    for row in range(chosen.shape[0]):
        for column in range(chosen.shape[1]):
            if not chosen[row, column]:
                continue
            r, g, b = pixel(rgb, row, column)
            y0, cr0, cb0 = pixel(planes, row, column)
            cr1, cb1 = chroma[0, row, column], chroma[1, row, column]
            for away in range(min(abs(cr0 - cr1) + abs(cb0 - cb1), _FARTHEST)):
                least = 256
                for step in range(4 * away + (away == 0)):
                    across, down = _ring(step, away)
                    cr, cb = cr1 + across, cb1 + down
                    low, high = _lumas(r, g, b, cr, cb, shift, luma, red, green, blue)
                    y = min(max(y0, low), high - 1)
                    if low < high and abs(y - y0) < least:
                        least = abs(y - y0)
                        planes[0, row, column] = y
                        planes[1, row, column] = cr
                        planes[2, row, column] = cb
                if least < 256:
                    break


@njit(cache=True)
def _search(  # type: ignore[no-untyped-def]
    rgb, planes, clipped, reach, shift, luma, red, green, blue
):
    """Change interpolated chroma's kept samples, where they are clipped, so that more is zero.

    Of those around each the fewest shall have details.
    """
    for row in range(0, clipped.shape[0], 2):
        for column in range(0, clipped.shape[1], 2):
            if not clipped[row, column]:
                continue
            fails = _fails(rgb, planes, clipped, row, column, shift, luma, red, green, blue)
            r, g, b = pixel(rgb, row, column)
            y0, cr0, cb0 = pixel(planes, row, column)
            best = y0, cr0, cb0
            for away in range(1, reach + 1):
                if fails == 0:
                    break
                for step in range(4 * away):
                    across, down = _ring(step, away)
                    cr, cb = cr0 + across, cb0 + down
                    low, high = _lumas(r, g, b, cr, cb, shift, luma, red, green, blue)
                    if low >= high:
                        continue
                    planes[1, row, column], planes[2, row, column] = cr, cb
                    left = _fails(rgb, planes, clipped, row, column, shift, luma, red, green, blue)
                    if left < fails:
                        fails, best = left, (min(max(y0, low), high - 1), cr, cb)
            planes[0, row, column], planes[1, row, column], planes[2, row, column] = best


@njit(cache=True)
def _fails(  # type: ignore[no-untyped-def]
    rgb, planes, clipped, row, column, shift, luma, red, green, blue
):
    """How many of the eight samples around a kept one cannot have interpolated chroma."""
    count = 0
    for i in range(max(row - 1, 0), min(row + 2, clipped.shape[0])):
        for j in range(max(column - 1, 0), min(column + 2, clipped.shape[1])):
            if i == row and j == column:
                continue
            cr, cb = between(planes[1], i, j), between(planes[2], i, j)
            if clipped[i, j]:
                r, g, b = pixel(rgb, i, j)
                low, high = _lumas(r, g, b, cr, cb, shift, luma, red, green, blue)
                count += low >= high
            else:
                count += cr != planes[1, i, j] or cb != planes[2, i, j]
    return count


@njit(cache=True)
def between(plane, row, column):  # type: ignore[no-untyped-def]
    """A sample of [H, W] as `interpolation.HALVED` makes it of those in even rows and columns."""
    height, width = plane.shape
    below = row + 1 if row % 2 and row + 1 < height else row // 2 * 2
    right = column + 1 if column % 2 and column + 1 < width else column // 2 * 2
    above, left = row // 2 * 2, column // 2 * 2
    total = np.int64(plane[above, left]) + np.int64(plane[below, right])
    if row % 2 and column % 2:
        return (total + np.int64(plane[above, right]) + np.int64(plane[below, left]) + 2) >> 2
    return (total + 1) >> 1
