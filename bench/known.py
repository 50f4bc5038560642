"""How much of a drawing a prefix shows right: diffcodec against interlaced PNG."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image

import diffcodec
from bench import BenchError, ours, results
from bench.metrics import pixels
from bench.pictures import Picture
from bench.results import Document
from bench.work import Row, collect

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of diffcodec's file, or of each codec's own."""

_ADAM7 = (
    (0, 0, 8, 8, 8, 8),
    (0, 4, 8, 8, 8, 4),
    (4, 0, 8, 4, 4, 4),
    (0, 2, 4, 4, 4, 2),
    (2, 0, 4, 2, 2, 2),
    (0, 1, 2, 2, 2, 1),
    (1, 0, 2, 1, 1, 1),
)
"""The passes of an interlaced PNG: first row and column, their distances, and height and width of
the block that a pixel stands for until finer passes come."""

NAMES = (ours.NAME, "interlaced PNG, share of its own file", "interlaced PNG, same bytes")
"""Columns of a row: whose pixels are right."""


@dataclass(frozen=True)
class Knowing:
    """A task: what prefixes of both files of a picture show right."""

    picture: Picture
    digest: str
    version: str

    @property
    def key(self) -> str:
        return " | ".join(("known", self.digest, self.version, *map(str, SHARES)))

    @property
    def labels(self) -> Row:
        return {"picture": self.picture.name}

    def __call__(self) -> list[Row]:
        image = self.picture.load()
        original, own, other = pixels(image), diffcodec.encode(image), interlaced(image)
        rows = []
        for share in SHARES:
            size = max(round(share * len(own)), ours.SHORTEST)
            shown = (
                pixels(diffcodec.decode(own[:size])),
                partial(other[: round(share * len(other))], original.shape),
                partial(other[:size], original.shape),
            )
            right = {n: _right(s, original) for n, s in zip(NAMES, shown, strict=True)}
            rows.append({"share": share, "bytes": size, "png_bytes": len(other), **right})
        if min(rows[-1][name] for name in NAMES[:2]) < 1:
            raise BenchError(f"a whole file of {self.picture.name} does not show it")
        return rows


def run(pictures: Sequence[Picture], cache: Path | None, jobs: int) -> Document:
    """Measure all pictures. Raises BenchError where a whole file does not show its original."""
    codec = ours.Diffcodec()
    tasks = [Knowing(picture, picture.digest(), codec.version()) for picture in pictures]
    return results.document("known", collect(tasks, cache, jobs), [codec], {})


def summary(document: Document) -> str:
    """Mean share of pixels that are right, by how much of a file is there."""
    lines = [
        [f"{share:.3g}", *(f"{fmean(row[name] for row in rows):.1%}" for name in NAMES)]
        for share, rows in results.by("share", document["rows"]).items()
    ]
    count = len(results.by("picture", document["rows"]))
    return (
        f"{results.table(['of the file', *NAMES], lines)}\n\n"
        f"Pixels that are right in all colours, mean over {count} pictures."
    )


def interlaced(image: Image.Image) -> bytes:
    """An interlaced PNG, which Pillow does not write: with a palette where that is possible."""
    rgb, buffer = np.asarray(image), io.BytesIO()
    colours, numbers = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    few = len(colours) <= 256
    writer = png.Writer(
        image.width,
        image.height,
        greyscale=False,
        interlace=True,
        compression=9,
        palette=[tuple(map(int, colour)) for colour in colours] if few else None,
        bitdepth=8,
    )
    values = numbers.astype(np.uint8) if few else rgb
    writer.write_array(buffer, values.ravel().tolist())
    return buffer.getvalue()


def partial(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """What browsers show of a prefix of such a file, [H, W, 3]: a pixel stands for its block."""
    palette, packed, position = None, b"", 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        if kind == b"PLTE" and len(content) == length:
            palette = np.frombuffer(content, np.uint8).reshape(-1, 3)
        if kind == b"IDAT":
            packed += content
        position += 12 + length
    stream = zlib.decompressobj().decompress(packed)
    size = 1 if palette is not None else 3
    height, width = shape[:2]
    shown, there = np.zeros((height, width, size), np.uint8), 0
    for first, left, down, across, tall, wide in _ADAM7:
        columns = len(range(left, width, across))
        for row in range(first, height if columns else 0, down):
            line = stream[there + 1 : there + 1 + columns * size]  # all filters are 0
            there += 1 + columns * size
            if len(line) < columns * size:
                return _coloured(shown, palette)
            values = np.frombuffer(line, np.uint8).reshape(columns, size)
            for offset in range(wide):
                part = shown[row : row + tall, left + offset :: across]
                part[:] = values[: part.shape[1]]
    return _coloured(shown, palette)


def _coloured(shown: NDArray[np.uint8], palette: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Colours of the numbers of a palette, if there is one."""
    if palette is None:
        return shown
    return palette[np.minimum(shown[..., 0], len(palette) - 1)]


def _right(shown: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    return float((shown == original).all(-1).mean())
