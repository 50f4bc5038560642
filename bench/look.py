"""A page to look at: what each codec shows at the same bytes, side by side."""

import base64
import html
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

import diffcodec
from bench import BenchError, results
from bench.codecs import Named, Point, installed, save_image
from bench.measure import finite
from bench.metrics import METRICS, Metric
from bench.pictures import Picture
from bench.sheet import Cell, sheet
from bench.work import Row, collect

TEMPLATE = Path(__file__).with_suffix(".html")

BPP = (0.125, 0.25, 0.5, 1.0)
"""Rates, in bits per pixel."""

SHEET_QUALITY = 88
"""WebP's, of the pictures side by side."""

SCORES = ("psnr", "ssimulacra2")
"""Metrics that stand beside the pictures."""


class Shown(Named, Protocol):
    """A codec that can be held to so many bytes."""

    def fitted(self, image: Image.Image, sizes: Sequence[int]) -> list[Point | None]:
        """What it shows in at most so many bytes, for each size; None where it shows nothing."""


@dataclass(frozen=True)
class Sight:
    """A task: what a codec shows of a picture at each rate, in real bytes, as data URIs.

    `quality` is WebP's for what the page embeds; None for no loss.
    """

    picture: Picture
    crop: int | None
    codec: Shown
    rates: tuple[float, ...]
    metrics: tuple[Metric, ...]
    quality: int | None

    @property
    def key(self) -> str:
        return f"{self.picture.path} | {self.codec!r}"

    @property
    def labels(self) -> Row:
        return {"picture": self.picture.name, "codec": self.codec.name}

    def __call__(self) -> list[Row]:
        original = middle(self.picture.load(), self.crop)
        sizes = [allowed(rate, original) for rate in self.rates]
        return [
            {"rate": rate, **self._row(original, point, size)}
            for rate, size, point in zip(
                self.rates, sizes, self.codec.fitted(original, sizes), strict=True
            )
        ]

    def _row(self, original: Image.Image, point: Point | None, size: int) -> Row:
        if point is None:
            return {"bytes": None}
        if point.bytes > size or point.image.size != original.size:
            raise BenchError(f"{self.codec.name} does not fit {self.picture.name}")
        scores = {m.name: m.measure(original, point.image) for m in self.metrics}
        return {
            "bytes": point.bytes,
            "setting": point.setting,
            **{name: finite(score) for name, score in scores.items()},
            "src": data_uri(point.image, self.quality),
        }


def run(
    pictures: Sequence[Picture],
    codecs: Sequence[Shown],
    *,
    rates: Sequence[float],
    crop: int | None,
    quality: int | None,
    jobs: int,
    out: Path,
) -> Path:
    """Write out/look.html, a page that needs nothing else, and return its path.

    Beside it out/look.webp has the middle of each picture at the lowest rate.

    Args:
        pictures: whose names differ.
        codecs: the first two are what the page compares first.
        rates: bits per pixel that each codec may use at most.
        crop: the side of the middle of each picture that is coded and shown; None for all of it.
        quality: WebP's, for what the page embeds; None for no loss.
        jobs: processes.
        out: a folder.

    Raises BenchError where a codec needs more bytes or changes a picture's size.
    """
    rates = tuple(sorted(set(rates)))
    there, _ = installed(codecs)
    able, _ = installed([metric for metric in METRICS if metric.name in SCORES])
    tasks = [
        Sight(picture, crop, codec, rates, tuple(able), quality)
        for picture in pictures
        for codec in there
    ]
    rows = collect(tasks, None, jobs)
    content = {
        "rates": rates,
        "codecs": [{"name": codec.name, "version": codec.version()} for codec in there],
        "pictures": [
            _picture(picture, crop, quality, results.by("picture", rows)[picture.name])
            for picture in pictures
        ],
        "command": results.command(sys.argv[1:]),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / "look.html"
    diffcodec.write_atomically(path, page(content, f"{len(pictures)} pictures"))
    still = save_image(_sheet(content), "WEBP", quality=SHEET_QUALITY)
    diffcodec.write_atomically(path.with_suffix(".webp"), still)
    return path


def _sheet(content: dict[str, Any]) -> Image.Image:
    """Each picture at the lowest rate, by each codec, and the original."""
    cells = []
    for row, picture in enumerate(content["pictures"]):
        for codec in content["codecs"]:
            shot = picture["shots"][0][codec["name"]]
            if shot["bytes"] is not None:
                label = f"{shot['bytes']:,} bytes"
                cells.append(Cell(codec["name"], row, label, _embedded(shot["src"])))
        cells.append(Cell("original", row, picture["name"], _embedded(picture["src"])))
    return sheet(cells)


def _embedded(uri: str) -> Image.Image:
    """The picture of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def page(content: dict[str, Any], subject: str) -> bytes:
    """The page, with all that it shows inside."""
    data = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{subject}}", html.escape(subject))
    return text.replace("{{content}}", data).encode()


def middle(image: Image.Image, side: int | None) -> Image.Image:
    """The square of that side from the middle of a picture, or as much as there is."""
    if side is None:
        return image
    width, height = (min(side, length) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def allowed(bpp: float, image: Image.Image) -> int:
    """The bytes that so many bits per pixel are."""
    return int(bpp * image.width * image.height / 8)


def data_uri(image: Image.Image, quality: int | None) -> str:
    """The picture itself, as WebP."""
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    coded = save_image(image, "WEBP", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(coded).decode()}"


def _picture(
    picture: Picture, crop: int | None, quality: int | None, rows: Sequence[Row]
) -> dict[str, Any]:
    """One picture of the page: `shots` has, by rate, what each codec shows."""
    original = middle(picture.load(), crop)
    return {
        "name": picture.name,
        "width": original.width,
        "height": original.height,
        "src": data_uri(original, quality),
        "bytes": [allowed(rate, original) for rate in results.by("rate", rows)],
        "shots": [
            {row["codec"]: row for row in group} for group in results.by("rate", rows).values()
        ],
    }
