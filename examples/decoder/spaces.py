"""The spaces of colour transforms 3 to 12: integers Y, Cr and Cb, of which a decoder made RGB."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

FIRST = 3
"""The number of the first space; each has two, the second for pictures that are upside down."""

Colours = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Space:
    """A space of colours of 8 bits.

    Attributes:
        convert: gives red, green and blue of Y, Cr and Cb from 0 to 255.
        grey: the Cr and the Cb of grey.
        double: if Cr and Cb are told as differences from a plane that was doubled, gives that of
            height and width from the one of half the size.
    """

    convert: Callable[[np.ndarray, np.ndarray, np.ndarray], Colours]
    grey: tuple[int, int] = (128, 128)
    double: Callable[[np.ndarray, int, int], np.ndarray] | None = None

    def picture(self, planes: np.ndarray) -> np.ndarray:
        """Red, green and blue, int64 [3, height, width], of Y, Cr and Cb of that shape.

        These are less than 128 and grey.
        """
        whole = planes + np.array([128, *self.grey])[:, None, None]
        return np.stack(self.convert(*whole.clip(0, 255))).clip(0, 255)


def of(number: int) -> Space | None:
    """The space of a colour transform, if it has one."""
    return _SPACES[(number - FIRST) // 2] if number >= FIRST else None


def is_upside_down(number: int) -> bool:
    """Whether a colour transform exchanges top and bottom."""
    return number >= FIRST and (number - FIRST) % 2 == 1


def finer(planes: np.ndarray) -> np.ndarray:
    """Planes [C, 1, 1] of the ladder as they are in a space: those of Cr and Cb are one less."""
    luma = len(planes) // 3
    return np.concatenate((planes[:luma], (planes[luma:] - 1).clip(0)))


def _jpeg(y: np.ndarray, cr: np.ndarray, cb: np.ndarray) -> Colours:
    red, blue, half = cr - 128, cb - 128, 1 << 15
    return (
        y + (91881 * red + half >> 16),
        y + (-22554 * blue - 46802 * red + half >> 16),
        y + (116130 * blue + half >> 16),
    )


def _webp(y: np.ndarray, cr: np.ndarray, cb: np.ndarray) -> Colours:
    luma = 19077 * y >> 8
    return (
        luma + (26149 * cr >> 8) - 14234 >> 6,
        luma - (6419 * cb >> 8) - (13320 * cr >> 8) + 8708 >> 6,
        luma + (33050 * cb >> 8) - 17685 >> 6,
    )


def _photo_cd(y: np.ndarray, cr: np.ndarray, cb: np.ndarray) -> Colours:
    luma, red, blue = 89024 * y, 119374 * (cr - 137), 145352 * (cb - 156)
    return (
        luma + red >> 16,
        luma - 12714 * (blue >> 16) - 33358 * (red >> 16) >> 16,
        luma + blue >> 16,
    )


def _means(low: np.ndarray, height: int, width: int) -> np.ndarray:
    """Samples of every second row and column, and between them means of two or four."""
    padded = np.pad(low, ((0, 1), (0, 1)), "edge")
    rows, columns = np.arange(height)[:, None], np.arange(width)
    # Of four samples, two are the same in a known row or column.
    sums = sum(padded[rows + i >> 1, columns + j >> 1] for i in (0, 1) for j in (0, 1))
    return sums + 2 >> 2


def _triangle(
    low: np.ndarray, height: int, width: int, odd: int, down: int = 0, across: int = 0
) -> np.ndarray:
    """Nine, three, three and one sixteenths; `odd` is what odd columns have added to theirs.

    Rows and columns count from `down` and `across` on.
    """
    padded = np.pad(low, ((1, 2), (1, 2)), "edge")
    rows, columns = down + np.arange(height), across + np.arange(width)
    tall = 3 * padded[rows // 2 + 1] + padded[rows // 2 + rows % 2 * 2]
    sums = 3 * tall[:, columns // 2 + 1] + tall[:, columns // 2 + columns % 2 * 2]
    return sums + np.where(columns % 2, odd, 8) >> 4


_SPACES = (
    Space(_jpeg),
    Space(_webp),
    Space(_photo_cd, (137, 156), _means),
    Space(_jpeg, double=partial(_triangle, odd=7)),
    Space(_webp, double=partial(_triangle, odd=8)),
    *(
        Space(colours, double=partial(_triangle, odd=odd, down=down, across=across))
        for colours, odd in ((_jpeg, 7), (_webp, 8))
        for down, across in ((0, 1), (1, 0), (1, 1))
    ),
)

LAST = FIRST + 2 * len(_SPACES) - 1
"""The number of the last one."""
