"""How far a picture is from its original."""

import math

import numpy as np
from numpy.typing import NDArray

from diffcodec.errors import ImageError
from diffcodec.imageio import Picture, to_planes


def psnr(image: Picture, original: Picture) -> float:
    """PSNR in dB over all samples; infinite if they are equal.

    Raises ImageError unless both are of one size and depth and are coded in one mode.
    """
    mode, planes = to_planes(image)
    other_mode, other = to_planes(original)
    if (mode, planes.dtype, planes.shape) != (other_mode, other.dtype, other.shape):
        raise ImageError(
            f"cannot compare a picture of {original.width}x{original.height} {other_mode} "
            f"with one of {image.width}x{image.height} {mode}"
        )
    return plane_psnr(planes, other)


def plane_psnr(planes: NDArray, original: NDArray) -> float:
    """PSNR in dB over all samples of uint8 or uint16 arrays; infinite if they are equal."""
    error = float(np.mean(np.square(planes.astype(np.float32) - original), dtype=np.float64))
    peak = int(np.iinfo(planes.dtype).max)
    return 10 * math.log10(peak**2 / error) if error else math.inf
