"""Progressive decoding: what each codec's one file shows after so many bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from bench import BenchError, results
from bench.codecs import Progressive, installed
from bench.measure import finite
from bench.metrics import pixels, psnr
from bench.pictures import Picture
from bench.results import Document
from bench.sheet import Cell
from bench.work import Row, collect

# Bits per pixel that have been received.
BPP = (0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 0.9, 1.3, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0)

SHEET_BPP = (0.06, 0.15, 0.4, 0.9)  # of these, the ones shown side by side


@dataclass(frozen=True)
class Reception:
    """A task: one codec's file of one picture, shown at each of BPP."""

    picture: Picture
    digest: str
    codec: Progressive
    version: str

    @property
    def key(self) -> str:
        return " | ".join(
            ("progressive", self.digest, repr(self.codec), self.version, *map(str, BPP))
        )

    @property
    def labels(self) -> Row:
        return {"picture": self.picture.name, "codec": self.codec.name}

    def __call__(self) -> list[Row]:
        original = self.picture.load()
        data = self.codec.encode(original)
        rows = []
        for bpp in BPP:
            size = min(received(bpp, original), len(data))
            image = self.codec.show(data, size)
            rows.append(
                {
                    "bpp": bpp,
                    "bytes": size,
                    "file_bytes": len(data),
                    "shown": image is not None,
                    "exact": image is not None and np.array_equal(pixels(image), pixels(original)),
                    "psnr": None if image is None else finite(psnr(original, image)),
                }
            )
        whole = self.codec.show(data, len(data))
        if whole is None:
            raise BenchError(f"{self.codec.name} does not decode its file of {self.picture.name}")
        if self.codec.exact and not np.array_equal(pixels(whole), pixels(original)):
            raise BenchError(f"{self.codec.name} is not lossless on {self.picture.name}")
        return rows


def run(
    pictures: Sequence[Picture], codecs: Sequence[Progressive], cache: Path | None, jobs: int
) -> Document:
    """Cut the files of all codecs on all pictures at the same bytes.

    Raises BenchError when the whole file of a lossless codec does not show the original.
    """
    there, skipped = installed(codecs)
    versions = [codec.version() for codec in there]
    tasks = [
        Reception(picture, digest, codec, version)
        for picture, digest in ((picture, picture.digest()) for picture in pictures)
        for codec, version in zip(there, versions, strict=True)
    ]
    return results.document("progressive", collect(tasks, cache, jobs), there, skipped)


def mean_psnr(rows: Sequence[Row]) -> float | None:
    """Mean PSNR in dB of one codec at one rate, infinite once all pictures are exact.

    None where a picture shows nothing yet, or where some are exact and others are not.
    """
    if all(row["exact"] for row in rows):
        return math.inf
    values = [row["psnr"] for row in rows]
    return None if None in values else fmean(values)


def summary(document: Document) -> str:
    """Mean PSNR of each codec (columns) at each rate received (lines)."""
    codecs = list(results.by("codec", document["rows"]))
    lines = []
    for bpp, rows in results.by("bpp", document["rows"]).items():
        by_codec = results.by("codec", rows)
        lines.append([f"{bpp:g}", *(_cell(by_codec[codec]) for codec in codecs)])
    count = len(results.by("picture", document["rows"]))
    return (
        f"{results.table(['bits per pixel received', *codecs], lines)}\n\n"
        f"Mean RGB PSNR in dB over {count} pictures; of some, how many show anything, or are exact."
    )


def shown(picture: Picture, codecs: Sequence[Progressive]) -> list[Cell]:
    """What a picture looks like at SHEET_BPP: the codecs in columns, the rates in rows."""
    original = picture.load()
    cells = [Cell("original", SHEET_BPP[0], picture.name, original)]
    for codec in codecs:
        data = codec.encode(original)
        for bpp in SHEET_BPP:
            size = min(received(bpp, original), len(data))
            image = codec.show(data, size)
            quality = "nothing yet" if image is None else f"{psnr(original, image):.1f} dB"
            cells.append(Cell(codec.name, bpp, f"{bpp:g} bpp, {size:,} bytes, {quality}", image))
    return cells


def received(bpp: float, image: Image.Image) -> int:
    """The bytes that so many bits per pixel are, at least one."""
    return max(1, round(bpp * image.width * image.height / 8))


def _cell(rows: Sequence[Row]) -> str:
    mean = mean_psnr(rows)
    if mean is not None:
        return "lossless" if math.isinf(mean) else f"{mean:.2f}"
    exact, seen = (sum(row[column] for row in rows) for column in ("exact", "shown"))
    return f"exact: {exact}" if exact else f"shown: {seen}" if seen else "-"
