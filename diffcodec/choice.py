"""Which processes may give a picture's shortest file, by a look at its pixels."""

import numpy as np
from numpy.typing import NDArray

PHOTO, DRAWING = "photo", "drawing"
"""What the quantised process and the absorbing one are for."""

FEWEST, MOST = 0.33, 0.8
"""Shares of pixels that equal the one above or to the left: with fewer a picture is a photograph
unless it has few colours; with more and few colours it is a drawing. Of Kodak's pictures the
largest share is 0.31."""

FEW, FEW_GREYS = 0.03, 32
"""Colours of a drawing against its pixels at most; of a grey one, whatever its size."""

_LOOKED_AT = 1 << 16  # pixels whose colours are counted


def processes(planes: NDArray) -> tuple[str, ...]:
    """What to try for a picture uint8 or uint16 [C, H, W]; the photograph first."""
    same = np.zeros(planes.shape[1:], np.bool_)
    same[:, 1:] |= (planes[:, :, 1:] == planes[:, :, :-1]).all(0)
    same[1:] |= (planes[:, 1:] == planes[:, :-1]).all(0)
    share, few = float(same.mean()), _has_few_colours(planes)
    if share < FEWEST and not few:
        return (PHOTO,)
    return (DRAWING,) if share > MOST and few else (PHOTO, DRAWING)


def _has_few_colours(planes: NDArray) -> bool:
    pixels = planes.reshape(len(planes), -1)
    pixels = pixels[:, :: max(1, pixels.shape[1] // _LOOKED_AT)]
    colours = len(np.unique(pixels, axis=1).T)
    return colours <= (FEW_GREYS if len(planes) < 3 else FEW * pixels.shape[1])
