"""What is computed from sizes and pixels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image


class Point(NamedTuple):
    """One operating point of a codec on one picture: file bits, and PSNR in dB (inf if equal)."""

    bits: float
    psnr: float


def pixels(image: Image.Image) -> np.ndarray:
    """The samples of an image as uint8 RGB, [height, width, 3]."""
    return np.asarray(image.convert("RGB"))


def psnr(original: Image.Image, decoded: Image.Image) -> float:
    """PSNR in dB over all samples of RGB; infinite for equal pictures.

    Raises ValueError when the sizes differ.
    """
    if original.size != decoded.size:
        raise ValueError(f"sizes differ: {original.size} and {decoded.size}")
    difference = pixels(original).astype(np.float64) - pixels(decoded)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def bits_per_dim(num_bytes: int, image: Image.Image) -> float:
    """File bits per sample of the image: 8 * bytes / (height * width * channels)."""
    return 8 * num_bytes / (image.width * image.height * len(image.getbands()))


def bits_at_psnr(curve: Sequence[Point], level: float) -> float | None:
    """Bits that a picture's curve needs for `level` dB, or None where it does not reach there.

    log(bits) is interpolated linearly over PSNR. A point that costs more than another and shows
    no more is left out: whoever has the longer file may use the shorter. An infinite level asks
    for the smallest lossless point.
    """
    useful: list[Point] = []
    for point in sorted(curve, key=lambda point: (point.bits, -point.psnr)):
        if not useful or point.psnr > useful[-1].psnr:
            useful.append(point)
    if math.isinf(level):
        return useful[-1].bits if useful and math.isinf(useful[-1].psnr) else None
    finite = [point for point in useful if math.isfinite(point.psnr)]
    if not finite or not finite[0].psnr <= level <= finite[-1].psnr:
        return None
    levels, bits = zip(*((point.psnr, point.bits) for point in finite), strict=True)
    return float(np.exp(np.interp(level, levels, np.log(bits))))
