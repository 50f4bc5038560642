"""What is computed from sizes and pixels."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.codecs import load

BD_PSNR = (25.0, 45.0)  # dB: the quality within which the points of BD rates lie


class Sample(NamedTuple):
    """One point of a codec's curve on one picture: its bits, and a quality (inf if equal)."""

    bits: float
    quality: float


def pixels(image: Image.Image) -> np.ndarray:
    """The samples of an image as uint8 RGB, [height, width, 3]."""
    return np.asarray(image.convert("RGB"))


def psnr(original: Image.Image, decoded: Image.Image) -> float:
    """PSNR in dB over all samples of RGB; infinite for equal pictures.

    Raises ValueError when the sizes differ.
    """
    return _psnr(pixels(original).astype(np.float64), pixels(decoded).astype(np.float64))


def psnr_y(original: Image.Image, decoded: Image.Image) -> float:
    """PSNR in dB over luma (BT.601, full range, not rounded)."""
    luma = np.array([0.299, 0.587, 0.114])
    return _psnr(pixels(original) @ luma, pixels(decoded) @ luma)


def ms_ssim(original: Image.Image, decoded: Image.Image) -> float | None:
    """MS-SSIM over RGB, from 0 to 1; None for a picture that has no five scales (161 pixels)."""
    library, torch = load("pytorch_msssim"), load("torch")
    if min(original.size) < 161:
        return None
    first, second = (
        torch.from_numpy(pixels(image).transpose(2, 0, 1).astype(np.float32))[None]
        for image in (original, decoded)
    )
    return float(library.ms_ssim(first, second, data_range=255))


def ssimulacra2(original: Image.Image, decoded: Image.Image) -> float:
    """SSIMULACRA 2: 30 is low quality, 70 high, 90 visually lossless, 100 equal."""
    files = []
    for image in (original, decoded):
        files.append(io.BytesIO())
        image.convert("RGB").save(files[-1], "PPM")
    return float(load("ssimulacra2").compute_ssimulacra2(*files))


@dataclass(frozen=True)
class Metric:
    """A quality of a decoded picture; `package` computes it, where numpy does not."""

    name: str
    title: str
    measure: Callable[[Image.Image, Image.Image], float | None]
    package: str = "numpy"

    def version(self) -> str:
        """The package at work; raises MissingError."""
        load(self.package)
        return f"{self.package} {version(self.package)}"


METRICS = (
    Metric("psnr", "PSNR over RGB, dB", psnr),
    Metric("psnr_y", "PSNR of luma, dB", psnr_y),
    Metric("ms_ssim", "MS-SSIM over RGB, dB", ms_ssim, "pytorch_msssim"),
    Metric("ssimulacra2", "SSIMULACRA 2", ssimulacra2, "ssimulacra2"),
)


def bits_per_dim(num_bytes: int, image: Image.Image) -> float:
    """File bits per sample of the image: 8 * bytes / (height * width * channels)."""
    return 8 * num_bytes / (image.width * image.height * len(image.getbands()))


def bits_at(curve: Sequence[Sample], level: float) -> float | None:
    """Bits that a picture's curve needs for a quality, or None where it does not reach there.

    log(bits) is interpolated linearly over the quality. An infinite level asks for the smallest
    lossless point.
    """
    useful = frontier(curve)
    if math.isinf(level):
        return useful[-1].bits if useful and math.isinf(useful[-1].quality) else None
    finite = [point for point in useful if math.isfinite(point.quality)]
    if not finite or not finite[0].quality <= level <= finite[-1].quality:
        return None
    levels, bits = zip(*((point.quality, point.bits) for point in finite), strict=True)
    return float(np.exp(np.interp(level, levels, np.log(bits))))


def bd_rate(curve: Sequence[Sample], anchor: Sequence[Sample]) -> float | None:
    """Bjontegaard's difference of a curve's bits from an anchor's, as a ratio (0.9 saves 10 %).

    Piecewise cubic (PCHIP) over the qualities that both reach; None where they have none in
    common, or one of them has fewer than three finite points.
    """
    ours, theirs = ([p for p in frontier(c) if math.isfinite(p.quality)] for c in (curve, anchor))
    if min(len(ours), len(theirs)) < 3:
        return None
    if min(ours[-1].quality, theirs[-1].quality) <= max(ours[0].quality, theirs[0].quality):
        return None
    percent = load("bjontegaard").bd_rate(
        [point.bits for point in theirs],
        [point.quality for point in theirs],
        [point.bits for point in ours],
        [point.quality for point in ours],
        method="pchip",
        require_matching_points=False,
        min_overlap=0,
    )
    return 1 + float(percent) / 100


def frontier(curve: Sequence[Sample]) -> list[Sample]:
    """The points in the order of their bits, without those that cost more and show no more.

    Whoever has the longer file may use the shorter.
    """
    useful: list[Sample] = []
    for point in sorted(curve, key=lambda point: (point.bits, -point.quality)):
        if not useful or point.quality > useful[-1].quality:
            useful.append(point)
    return useful


def _psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    if original.shape != decoded.shape:
        raise ValueError(f"sizes differ: {original.shape[:2]} and {decoded.shape[:2]}")
    error = float(np.mean((original - decoded) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
