"""Colours that were clipped, of pictures whose chroma was doubled.

A clipped colour comes from many integers of its space. Those with the chroma that was doubled cost
next to nothing, as the details are zero then; what it was doubled from is found from the colours
around that are not clipped.
"""

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.transforms.doubling import low_band
from diffcodec.transforms.spaces import Space, interval

_CLIPPED = 1 / 64  # what a clipped colour counts, against others
_BLOCK, _AROUND = 256, 16  # sides of what is looked at at a time, and of what is around it


def unclip(space: Space, rgb: NDArray, planes: NDArray) -> None:
    """Give clipped colours the nearest chroma to that which was doubled, in place.

    Args: a space with a doubling; uint8 [3, H, W]; Y, Cr and Cb uint8 [3, H, W] of which
    `spaces.to_rgb` makes that, which it still does afterwards.
    """
    clipped = ((rgb == 0) | (rgb == 255)).any(0)
    tables = space.luma, space.red, space.green, space.blue
    for corner in np.ndindex(*(-(-side // _BLOCK) for side in clipped.shape)):
        block = tuple(slice(at * _BLOCK, (at + 1) * _BLOCK) for at in corner)
        if not clipped[block].any():
            continue
        starts = [max(own.start - _AROUND, 0) for own in block]
        wide = tuple(slice(at, own.stop + _AROUND) for at, own in zip(starts, block, strict=True))
        down, across = (own.start - at for at, own in zip(starts, block, strict=True))
        for low_bands in (_expected, _kept):
            chroma = planes[1:, *wide]
            low = low_bands(space, chroma, clipped[wide])
            none = low.new_zeros((2, 3, *low.shape[1:]))
            doubled = space.chroma.inverse(low, none, *chroma.shape[1:]).clamp_(0, 255).numpy()
            _choose(
                rgb[:, *block], planes[:, *block], clipped[block], doubled[:, down:, across:],
                space.shift, *tables,
            )  # fmt: skip


def _expected(space: Space, chroma: NDArray, clipped: NDArray) -> Tensor:
    """The low bands int32 [2, h, w] that colours which are not clipped come from."""
    assert space.doubling is not None
    weights = np.where(clipped, np.float32(_CLIPPED), np.float32(1))
    lows = np.stack([np.rint(low_band(plane, weights, space.doubling)) for plane in chroma])
    if space.doubling.first == (1, 0):  # these samples are the low band's own
        lows = np.where(clipped[::2, ::2], lows, chroma[:, ::2, ::2])
    return torch.from_numpy(lows.astype(np.int32)).clamp_(0, 255)


def _kept(space: Space, chroma: NDArray, _: NDArray) -> Tensor:
    """The low bands int32 [2, h, w] that are coded."""
    return space.chroma.forward(torch.from_numpy(chroma.astype(np.int32)))[0]


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
            r, g, b = rgb[:, row, column].astype(np.int64)
            y0, cr, cb = planes[:, row, column].astype(np.int64)
            cr0, cb0 = chroma[0, row, column], chroma[1, row, column]
            for away in range(abs(cr - cr0) + abs(cb - cb0)):
                least = 256
                for step in range(4 * away + (away == 0)):
                    # All around, a quarter at a time.
                    turn, part = divmod(step, max(away, 1))
                    rest = away - part
                    right, up = ((rest, part), (-part, rest), (-rest, -part), (part, -rest))[turn]
                    cr, cb = cr0 + right, cb0 + up
                    if not (0 <= cr <= 255 and 0 <= cb <= 255):
                        continue
                    low, high = interval(luma, np.int64(red[cr]), r, shift)
                    low2, high2 = interval(luma, np.int64(green[0, cb] + green[1, cr]), g, shift)
                    low3, high3 = interval(luma, np.int64(blue[cb]), b, shift)
                    low, high = max(low, low2, low3), min(high, high2, high3)
                    y = min(max(y0, low), high - 1)
                    if low < high and abs(y - y0) < least:
                        least = abs(y - y0)
                        planes[0, row, column] = y
                        planes[1, row, column] = cr
                        planes[2, row, column] = cb
                if least < 256:
                    break
