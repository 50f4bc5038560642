"""How far samples are from their original."""

import math

import numpy as np
from numpy.typing import NDArray


def psnr(planes: NDArray, original: NDArray) -> float:
    """PSNR in dB over all samples of uint8 or uint16 arrays; infinite if they are equal."""
    error = squared_error(planes, original) / planes.size
    peak = int(np.iinfo(planes.dtype).max)
    return 10 * math.log10(peak**2 / error) if error else math.inf


def squared_error(planes: NDArray, original: NDArray) -> float:
    """The sum of squared differences of uint8 or uint16 arrays."""
    return float(np.sum(np.square(planes.astype(np.float32) - original), dtype=np.float64))
