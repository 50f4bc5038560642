"""Near-lossless coding: neighbouring values of a sample count as one, as in JPEG-LS (T.87, A.4).

With a step of 2 N + 1 values no sample is farther than N from its original. Alpha stays exact.
"""

import numpy as np
from numpy.typing import NDArray

from diffcodec.container import Header


def numbers(header: Header, planes: NDArray) -> NDArray:
    """The numbers of the steps in which samples lie, of their type, [C, H, W]."""
    if header.step == 1:
        return planes
    values = np.arange(1 << header.depth)
    return _mapped(header, planes, (values + header.step // 2) // header.step)


def values(header: Header, numbers: NDArray) -> NDArray:
    """The middles of steps by their numbers, of their type, [C, H, W]."""
    if header.step == 1:
        return numbers
    largest = (1 << header.depth) - 1
    return _mapped(header, numbers, np.minimum(np.arange(largest + 1) * header.step, largest))


def _mapped(header: Header, planes: NDArray, table: NDArray) -> NDArray:
    colours = len(header.mode.removesuffix("A"))
    return np.concatenate([table.astype(planes.dtype)[planes[:colours]], planes[colours:]])
