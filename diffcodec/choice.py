"""Which processes may give a picture's shortest file, by a look at its pixels."""

import numpy as np
from numpy.typing import NDArray

PHOTO, DRAWING = "photo", "drawing"
"""What the quantised process and the absorbing one are for."""

FEWEST, MOST = 0.33, 0.8
"""Shares of pixels that equal the one above or to the left: with fewer a picture is a photograph
unless it has few colours; with more and few colours it is a drawing. Of Kodak's pictures the
largest share is 0.31."""

FEW, FEW_GREYS = 0.05, 32
"""Colours of a drawing against its pixels at most; of a grey one, whatever its size."""

LARGE = 1 << 18
"""Pixels of a picture of which patches decide, if both may serve."""

CLEAR = 1.25
"""How many times the bytes of the other a process may take for the patches, to be tried at all."""

_PATCH = 112

_LOOKED_AT = 1 << 16  # pixels whose colours are counted


def processes(planes: NDArray) -> tuple[str, ...]:
    """What to try for a picture uint8 or uint16 [C, H, W]; the photograph first."""
    share, few = _repeated(planes), _has_few_colours(planes)
    if share < FEWEST and not few:
        return (PHOTO,)
    return (DRAWING,) if share > MOST and few else (PHOTO, DRAWING)


def patches(planes: NDArray) -> list[NDArray]:
    """Four squares of a large picture [C, H, W], from the middles of its quarters."""
    rows, columns = (
        [max(0, length * part // 4 - _PATCH // 2) for part in (1, 3)] for length in planes.shape[1:]
    )
    return [
        np.ascontiguousarray(planes[:, top : top + _PATCH, left : left + _PATCH])
        for top in rows
        for left in columns
    ]


def _repeated(planes: NDArray) -> float:
    """The share of pixels that equal the one above or to the left."""
    count, rows = 0, max(1, LARGE // planes.shape[2])
    for top in range(0, planes.shape[1], rows):
        strip = planes[:, max(0, top - 1) : top + rows]  # with the row above it
        same = np.zeros(strip.shape[1:], np.bool_)
        same[:, 1:] |= (strip[:, :, 1:] == strip[:, :, :-1]).all(0)
        same[1:] |= (strip[:, 1:] == strip[:, :-1]).all(0)
        count += int(np.count_nonzero(same[min(top, 1) :]))
    return count / planes[0].size


def _has_few_colours(planes: NDArray) -> bool:
    pixels = planes.reshape(len(planes), -1)
    pixels = pixels[:, :: max(1, pixels.shape[1] // _LOOKED_AT)]
    colours = np.zeros(pixels.shape[1], np.uint64)  # of at most four samples of 16 bits
    for samples in pixels:
        colours = colours << 16 | samples
    return len(np.unique(colours)) <= (FEW_GREYS if len(planes) < 3 else FEW * pixels.shape[1])
