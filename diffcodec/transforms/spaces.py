"""Colour spaces of eight bits that pictures have been converted from, exactly and back.

What decodes JPEG, WebP or Photo CD has integers of luma and of two differences of colours, of which
it makes RGB by a fixed function. That gives few of all colours: of JPEG's space a quarter, of Photo
CD's a ninth. Where all pixels of a picture are among them, the integers that they were made of
say the same in fewer bits. A clipped colour can come from many: any of them does, and what is near
those around it costs least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.transforms import triangle
from diffcodec.transforms.interpolation import HALVED, INTERPOLATION, halved
from diffcodec.transforms.wavelet import Transform


@dataclass(frozen=True, eq=False)
class Space:
    """A colour space of luma Y, and of differences Cb and Cr of blue and red from it.

    R = Y + red[Cr], G = Y + green[0][Cb] + green[1][Cr] and B = Y + blue[Cb], all in fixed point.

    Attributes:
        name: what it is called.
        shift: bits after the point.
        luma, red, green, blue: tables int32 [256], of green [2, 256].
        grey: Cb and Cr of grey.
        chroma: the finest level of Cb and Cr; if it is not INTERPOLATION, they were doubled, and
            most details are zero.
        halved: the low band, int64, that they were doubled from, of a plane [H, W] of which some
            samples are known; None if they were not.
    """

    name: str
    shift: int
    luma: NDArray
    red: NDArray
    green: NDArray
    blue: NDArray
    grey: tuple[int, int]
    chroma: Transform = INTERPOLATION
    halved: Callable[[NDArray, NDArray], NDArray] | None = None

    def low_bands(self, chroma: NDArray, known: NDArray) -> Tensor:
        """What chroma [2, H, W] was doubled from, int64; `known` is as of `halved`."""
        assert self.halved is not None
        return torch.from_numpy(np.stack([self.halved(plane, known) for plane in chroma]))

    def doubled(self, low: Tensor, height: int, width: int) -> Tensor:
        """The chroma [2, height, width] that low bands give without details."""
        none = low.new_zeros((2, 3, *low.shape[1:]))
        return self.chroma.inverse(low, none, height, width)


_ALL = np.arange(256)


def _jpeg() -> Space:
    """JFIF 1.02 with the constants of libjpeg's jdcolor.c."""
    chroma, half = _ALL - 128, 1 << 15
    green = -22554 * chroma + half, -46802 * chroma
    return _space(
        "JPEG's YCbCr", 16, _ALL << 16, 91881 * chroma + half, green, 116130 * chroma + half
    )


def _webp() -> Space:
    """BT.601 with 219 steps of luma, as of libwebp's yuv.h."""
    red, blue = ((26149 * _ALL) >> 8) - 14234, ((33050 * _ALL) >> 8) - 17685
    green = 8708 - ((6419 * _ALL) >> 8), -((13320 * _ALL) >> 8)
    return _space("WebP's YUV", 6, (19077 * _ALL) >> 8, red, green, blue)


def _photo_cd() -> Space:
    """Photo CD's YCC: 1.3584, 2.2179 and 1.8215, and of their floors 0.194 and 0.509.

    In 16 bits; found from pictures: all colours of Kodak's 24 are what it makes, without exception.
    """
    blue, red = 145352 * (_ALL - 156), 119374 * (_ALL - 137)
    green = -12714 * (blue >> 16), -33358 * (red >> 16)
    space = _space("Photo CD's YCC", 16, 89024 * _ALL, red, green, blue, (156, 137))
    return replace(space, chroma=HALVED, halved=halved)


def _space(
    name: str,
    shift: int,
    luma: NDArray,
    red: NDArray,
    green: Sequence[NDArray],
    blue: NDArray,
    grey: tuple[int, int] = (128, 128),
) -> Space:
    whole = [np.asarray(table, np.int32) for table in (luma, red, np.stack(green), blue)]
    return Space(name, shift, whole[0], whole[1], whole[2], whole[3], grey)


CONVERSIONS = (_jpeg(), _webp(), _photo_cd())

_DECODERS = tuple(zip(CONVERSIONS[:2], (triangle.JPEG, triangle.WEBP), strict=True))


def _with_doubled(space: Space, how: triangle.Filter) -> Space:
    halved = partial(triangle.halved, how=how)
    return replace(space, chroma=triangle.transform(how), halved=halved)


SPACES = (
    *CONVERSIONS,
    *(_with_doubled(space, how) for space, how in _DECODERS),
    *(_with_doubled(space, part) for space, how in _DECODERS for part in triangle.cut(how)),
)
"""By number: conversions, those after which chroma is known to have been doubled, and the same of
pictures that were cut out after that."""

DOUBLED = 0.95
"""How many samples of doubled chroma come out right at least, of those that are not clipped."""

LOOKED_AT = 1 << 12
"""Pixels that are looked at first."""

FEWEST = 64
"""Different colours, neither grey nor clipped, that are no chance."""

_DECIDES = 512  # rows and columns of the middle that tell whether chroma was doubled
_TELLS = 128  # of those that tell where the pairs of rows and columns begin, if it was
_NEAR = 3  # how far Y of a colour that is not clipped may be from its estimate


def find(rgb: NDArray) -> tuple[int, NDArray] | None:
    """The number in SPACES that suits uint8 [3, H, W] best, and Y, Cr and Cb.

    None if there is none that all pixels come from.
    """
    some = rgb.reshape(3, 1, -1)[:, :, :: max(1, rgb[0].size // LOOKED_AT)]
    clear = ~clipped(some) & (some != some[:1]).any(0)
    if np.unique(some[:, clear], axis=1).shape[1] < FEWEST:
        return None
    for number, space in enumerate(CONVERSIONS):
        if from_rgb(space, some) is not None:
            planes = from_rgb(space, rgb)
            if planes is not None:
                return _doubled(number, rgb, planes[1:]), planes
    return None


def _doubled(number: int, rgb: NDArray, chroma: NDArray) -> int:
    """The number of a space, or that of the same with doubled chroma, if that suits [2, H, W]."""
    others = range(len(CONVERSIONS), len(SPACES))
    alike = [other for other in others if SPACES[other].luma is SPACES[number].luma]
    if not alike:
        return number
    whole, *cut = alike
    if _right(SPACES[whole], rgb, chroma, _DECIDES) > DOUBLED:
        return whole
    best = max(cut, key=lambda other: _right(SPACES[other], rgb, chroma, _TELLS))
    return best if _right(SPACES[best], rgb, chroma, _DECIDES) > DOUBLED else number


def _right(space: Space, rgb: NDArray, chroma: NDArray, most: int) -> float:
    """How many samples of so many rows and columns of the middle come out right; 0 to 1.

    That is of those that are not clipped; 0 without any.
    """
    # From even rows and columns on.
    starts = (max(side - most, 0) // 4 * 2 for side in rgb.shape[1:])
    middle = slice(None), *(slice(start, start + most) for start in starts)
    known, planes = ~clipped(rgb[middle]), chroma[middle].astype(np.int32)
    if not known.any():
        return 0.0
    made = space.doubled(space.low_bands(planes, known), *known.shape).numpy()
    return float((made == planes)[:, known].mean())


def clipped(rgb: NDArray) -> NDArray:
    """Which pixels of uint8 [3, ...] may come from colours that were clipped, bool [...]."""
    ends = (rgb == 0) | (rgb == 255)
    found: NDArray = np.any(ends, axis=0)
    return found


def to_rgb(space: Space, planes: Tensor) -> Tensor:
    """RGB int32 [..., 3, H, W] of Y, Cr and Cb of that shape; what is not in 0..255 is clipped."""
    y, cr, cb = planes.long().clamp(0, 255).unbind(-3)
    luma, red, green, blue = map(torch.from_numpy, (space.luma, space.red, space.green, space.blue))
    made = luma[y] + torch.stack((red[cr], green[0][cb] + green[1][cr], blue[cb]))
    return (made >> space.shift).clamp_(0, 255).movedim(0, -3)


def from_rgb(space: Space, rgb: NDArray) -> NDArray | None:
    """Y, Cr and Cb uint8 [3, H, W] of which `to_rgb` makes uint8 [3, H, W]; None if none do."""
    planes = np.full(rgb.shape, -1, np.int16)
    tables = (
        space.luma,
        space.red,
        space.green,
        _firsts(space, space.red),
        _firsts(space, space.blue),
    )
    for clipped in (False, True):
        if not _solve(rgb, planes, clipped, space.shift, np.array(space.grey), *tables):
            return None
    return planes.astype(np.uint8)


def _firsts(space: Space, table: NDArray) -> NDArray:
    """For each Y and value, from which entry of an ascending table on they make at least that.

    Int16 [256, 257]: before that of the next value they make this one.
    """
    edges = np.arange(257) << space.shift
    firsts = np.searchsorted(table, edges - space.luma[:, None]).astype(np.int16)
    firsts[:, 0], firsts[:, 256] = 0, 256  # clipped
    return firsts


def halved_from(chroma: NDArray) -> tuple[bool, bool]:
    """Whether interpolated rows [C, H, W] are the first, third and so on, and likewise columns.

    They are taken to be the others where the number of rows or columns is odd.
    """
    return _first_odd(chroma), _first_odd(chroma.swapaxes(1, 2))


def _first_odd(chroma: NDArray) -> bool:
    if chroma.shape[1] % 2:
        return False
    between = (chroma[:, :-2].astype(np.int16) + chroma[:, 2:] + 1) >> 1
    exact = (between == chroma[:, 1:-1]).mean(axis=(0, 2))
    return bool(exact[1::2].sum() > exact[::2].sum())


@njit(cache=True)
def _solve(rgb, planes, clipped, shift, grey, luma, red, green, reds, blues):  # type: ignore[no-untyped-def]
    """Fill int16 [3, H, W] with Y, Cr and Cb of all colours that are clipped, or of all others.

    Returns whether all have some.
    """
    _, height, width = rgb.shape
    slope, descent = (luma[255] - luma[0]) / 255, -green[0]
    for row in range(height):
        for column in range(width):
            r, g, b = pixel(rgb, row, column)
            if (min(r, g, b) == 0 or max(r, g, b) == 255) != clipped:
                continue
            level = (0.299 * r + 0.587 * g + 0.114 * b + 0.5) * (1 << shift)
            near = round((level - red[grey[1]]) / slope)
            y0, cr0, cb0, reach = near, grey[1], grey[0], _NEAR
            if clipped:
                y0, cr0, cb0 = _around(planes, row, column, near, grey)
                reach = 255
            least = 1 << 10
            for step in range(2 * reach + 1):
                y = y0 + (step + 1) // 2 * (1 - 2 * (step & 1))
                if abs(y - y0) >= least:
                    break
                if not 0 <= y <= 255:
                    continue
                low, high = reds[y, r], reds[y, r + 1]
                left = least - abs(y - y0)
                for cr in range(max(low, cr0 - left), min(high, cr0 + left + 1)):
                    # Blue and green (falling with Cb) leave an interval for Cb.
                    first, last = blues[y, b], blues[y, b + 1]
                    base = luma[y] + green[1, cr]
                    if g < 255:
                        first = max(
                            first, np.searchsorted(descent, base - ((g + 1) << shift), "right")
                        )
                    if g > 0:
                        last = min(last, np.searchsorted(descent, base - (g << shift), "right"))
                    if first >= last:
                        continue
                    cb = min(max(cb0, first), last - 1)
                    away = abs(y - y0) + abs(cr - cr0) + abs(cb - cb0)
                    if away < least:
                        least = away
                        planes[0, row, column] = y
                        planes[1, row, column] = cr
                        planes[2, row, column] = cb
            if planes[0, row, column] < 0:
                return False
    return True


@njit(cache=True)
def pixel(planes, row, column):  # type: ignore[no-untyped-def]
    """What stands at one place of planes [3, H, W]."""
    return int(planes[0, row, column]), int(planes[1, row, column]), int(planes[2, row, column])


@njit(cache=True)
def interval(table, luma, value, shift):  # type: ignore[no-untyped-def]
    """From which entry of an ascending table on, and before which, it makes a value with luma."""
    low = 0 if value == 0 else np.searchsorted(table, (value << shift) - luma)
    high = 256 if value == 255 else np.searchsorted(table, ((value + 1) << shift) - luma)
    return low, high


@njit(cache=True)
def _around(planes, row, column, y, grey):  # type: ignore[no-untyped-def]
    """The mean of Y, Cr and Cb of the eight neighbours that have some."""
    count, sums = 0, np.zeros(3)
    for i in range(max(row - 1, 0), min(row + 2, planes.shape[1])):
        for j in range(max(column - 1, 0), min(column + 2, planes.shape[2])):
            if planes[0, i, j] >= 0:
                count += 1
                sums += planes[:, i, j]
    if count == 0:
        return y, grey[1], grey[0]
    return round(sums[0] / count), round(sums[1] / count), round(sums[2] / count)
