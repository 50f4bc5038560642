"""One picture through one setting of a codec: real bytes, decoded and compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench import BenchError
from bench.codecs import Codec, Setting
from bench.metrics import Metric, bits_per_dim, pixels
from bench.pictures import Picture
from bench.work import Row


@dataclass(frozen=True)
class Measurement:
    """A task: the rows of a codec's points on a picture, with these metrics."""

    picture: Picture
    digest: str
    codec: Codec
    setting: Setting
    version: str
    metrics: tuple[Metric, ...] = ()

    @property
    def key(self) -> str:
        measured = [f"{metric.name} by {metric.version()}" for metric in self.metrics]
        parts = ("file", self.digest, repr(self.codec), self.setting, self.version, *measured)
        return " | ".join(map(str, parts))

    @property
    def labels(self) -> Row:
        return {"picture": self.picture.name, "codec": self.codec.name}

    def __call__(self) -> list[Row]:
        original = self.picture.load()
        count = original.width * original.height
        rows = []
        for point in self.codec.points(original, self.setting):
            if point.image.size != original.size:
                raise BenchError(f"{self.codec.name} changed the size of {self.picture.name}")
            exact = np.array_equal(pixels(point.image), pixels(original))
            if point.exact and not exact:
                raise BenchError(f"{self.codec.name} is not lossless on {self.picture.name}")
            values = {m.name: m.measure(original, point.image) for m in self.metrics}
            rows.append(
                {
                    "setting": point.setting,
                    "bytes": point.bytes,
                    "pixels": count,
                    "bits_per_dim": bits_per_dim(point.bytes, original),
                    "bpp": 8 * point.bytes / count,
                    "exact": exact,
                    **{name: finite(value) for name, value in values.items()},
                }
            )
        return rows


def measurements(
    pictures: Sequence[Picture], codecs: Sequence[Codec], metrics: tuple[Metric, ...] = ()
) -> list[Measurement]:
    """Every setting of every codec on every picture."""
    versions = [codec.version() for codec in codecs]
    return [
        Measurement(picture, digest, codec, setting, version, metrics)
        for picture, digest in ((picture, picture.digest()) for picture in pictures)
        for codec, version in zip(codecs, versions, strict=True)
        for setting in codec.settings
    ]


def finite(value: float | None) -> float | None:
    """JSON has no infinity: the PSNR of equal pictures becomes None."""
    return None if value is None or math.isinf(value) else value
