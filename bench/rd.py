"""Rate against distortion: bits that each codec needs for the same PSNR."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import click
import numpy as np
from tqdm import tqdm

from bench import report
from bench.codecs import (
    Curve,
    DiffcodecPrefixes,
    Jpeg2000Embedded,
    Jpeg2000Files,
    installed,
)
from bench.metrics import Point, bits_at_psnr, psnr
from bench.pictures import Picture

LEVELS = (28, 30, 32, 34, 36, 38, 40)  # dB

# codec -> picture -> its operating points
Curves = dict[str, dict[str, list[Point]]]


def curves(cuts: int) -> list[Curve]:
    """Name the measured codecs, diffcodec first."""
    return [
        DiffcodecPrefixes(cuts),
        Jpeg2000Embedded(),
        Jpeg2000Files(irreversible=False),
        Jpeg2000Files(irreversible=True),
    ]


def run(pictures: Sequence[Picture], codecs: Sequence[Curve], out: Path | None) -> str:
    """Measure the curves of all codecs on all pictures; return the table of the first against each.

    rd.json in `out` grows with each picture; the plots come at the end.
    """
    codecs = installed(codecs)
    versions = {codec.name: codec.version() for codec in codecs}
    measured: Curves = {codec.name: {} for codec in codecs}
    pixel_counts: dict[str, int] = {}
    for picture in tqdm(pictures, unit="picture"):
        image = picture.load()
        pixel_counts[picture.name] = image.width * image.height
        for codec in codecs:
            measured[codec.name][picture.name] = [
                Point(8 * size, psnr(image, decoded)) for size, decoded in codec.points(image)
            ]
        report.save(
            out, "rd", {"codecs": versions, "pixels": pixel_counts, "bits_and_psnr": measured}
        )
    if out is not None:
        plot(measured, pixel_counts, out)
    return table(measured)


def table(measured: Curves) -> str:
    """The first codec's bits as a ratio of every other's at equal PSNR.

    Each entry is the geometric mean over those pictures on which both curves reach the level;
    their count stands beside it. "mean" is the geometric mean of the row's levels, "lossless"
    compares the whole files of codecs that reach it.
    """
    ours, *peers = measured
    rows = []
    for peer in peers:
        cells, means = [], []
        for level in (*LEVELS, math.inf):
            ratios = [
                mine / theirs
                for name in measured[ours]
                if (mine := bits_at_psnr(measured[ours][name], level)) is not None
                and (theirs := bits_at_psnr(measured[peer][name], level)) is not None
            ]
            cells.append(
                f"{report.percent(geometric_mean(ratios))} ({len(ratios)})" if ratios else "-"
            )
            if ratios and math.isfinite(level):
                means.append(geometric_mean(ratios))
        mean = report.percent(geometric_mean(means)) if means else "-"
        rows.append([peer, *cells[:-1], mean, cells[-1]])
    header = [f"{ours} against", *(f"{level} dB" for level in LEVELS), "mean", "lossless"]
    count = len(measured[ours])
    return (
        f"{report.table(header, rows)}\n\n"
        f"Bits at equal RGB PSNR; in brackets, how many of the {count} pictures reach that level "
        "with both codecs."
    )


def plot(measured: Curves, pixel_counts: dict[str, int], out: Path) -> None:
    """Draw mean curves as rd.svg and rd.png, over the levels that every picture's curve reaches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        click.echo("skipped: the plot (matplotlib is not installed)", err=True)
        return
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for codec, by_picture in measured.items():
        line = []
        for level in np.arange(20, 50.5, 0.5).tolist():
            bits = {name: bits_at_psnr(curve, level) for name, curve in by_picture.items()}
            bpp = [b / pixel_counts[name] for name, b in bits.items() if b is not None]
            if len(bpp) == len(by_picture):
                line.append((geometric_mean(bpp), level))
        axes.plot(*zip(*line, strict=True) if line else ((), ()), label=codec)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("bits per pixel (geometric mean over pictures)")
    axes.set_ylabel("PSNR over RGB, dB")
    axes.set_title(f"{len(pixel_counts)} pictures")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    for kind in ("svg", "png"):
        figure.savefig(out / f"rd.{kind}", dpi=150)
