"""Plots of what was measured, as SVG and PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from bench import results
from bench.known import NAMES
from bench.metrics import bits_at
from bench.ours import NAME
from bench.progressive import mean_psnr
from bench.rd import curve, measured, published_rows, quality
from bench.results import Document
from bench.speed import TASKS

matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same results, the same bytes

# Levels that mean curves are drawn through, and the least that is worth showing.
_GRIDS = {
    "psnr": np.arange(20, 50.5, 0.5),
    "psnr_y": np.arange(20, 50.5, 0.5),
    "ms_ssim": np.arange(5, 30.5, 0.5),
    "ssimulacra2": np.arange(0, 96, 2),
}


def lossless(document: Document, out: Path) -> None:
    """Bits/dim of every picture, and the means in the legend."""
    figure, axes = _figure(11, 5)
    by_codec = results.by("codec", document["rows"])
    for codec, rows in by_codec.items():
        mean = fmean(row["bits_per_dim"] for row in rows)
        values = [row["bits_per_dim"] for row in rows]
        axes.plot(
            values, marker="o", label=f"{codec} ({mean:.3f})", markersize=4, linewidth=_width(codec)
        )
    names = [row["picture"].partition(".")[0] for row in next(iter(by_codec.values()))]
    if len(names) <= 50:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("bits per dimension")
    axes.set_title(f"Lossless, {len(names)} pictures (mean in brackets)")
    _finish(figure, axes, out / "lossless")


def known(document: Document, out: Path) -> None:
    """The share of pixels that are right, by the share of a file that is there."""
    figure, axes = _figure(8, 5)
    shares = results.by("share", document["rows"])
    for name in NAMES:
        means = [100 * fmean(row[name] for row in rows) for rows in shares.values()]
        axes.plot(list(shares), means, marker="o", label=name, linewidth=_width(name))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("share of the file")
    axes.set_ylabel("pixels that are right, %")
    axes.set_title(f"Prefixes of drawings, {len(results.by('picture', document['rows']))} pictures")
    _finish(figure, axes, out / "known")


def ladder(document: Document, out: Path) -> None:
    """As `rd`."""
    rd(document | {"published": []}, out)


def rd(document: Document, out: Path) -> None:
    """One plot a metric: mean bits over the levels that every picture's curve reaches."""
    pixels = {row["picture"]: row["pixels"] for row in document["rows"]}
    for metric in measured(document):
        figure, axes = _figure(11, 6)
        for codec, rows in results.by("codec", document["rows"]).items():
            curves = {
                picture: curve(points, metric.name)
                for picture, points in results.by("picture", rows).items()
            }
            line = []
            for level in _GRIDS[metric.name].tolist():
                bits = {picture: bits_at(points, level) for picture, points in curves.items()}
                bpp = [b / pixels[picture] for picture, b in bits.items() if b is not None]
                if len(bpp) == len(curves):
                    line.append((geometric_mean(bpp), level))
            _line(axes, line, codec, linewidth=_width(codec))
        for entry in document["published"]:
            values = ((row["bpp"], quality(row, metric.name)) for row in published_rows(entry))
            points = [(bpp, value) for bpp, value in values if value is not None]
            over = "" if entry["whole"] else ", Kodak's 24"
            label = f"{entry['name']} (stated means{over})"
            _line(axes, points, label, linestyle="--", linewidth=1)
        _bits_axis(axes, "bits per pixel (geometric mean over pictures)")
        axes.set_ylabel(metric.title)
        axes.set_title(f"{len(pixels)} pictures")
        _finish(figure, axes, out / f"{document['bench']}-{metric.name}")


def progressive(document: Document, out: Path) -> None:
    """Mean PSNR against the bytes that have been received."""
    figure, axes = _figure(11, 6)
    for codec, rows in results.by("codec", document["rows"]).items():
        means = [(bpp, mean_psnr(group)) for bpp, group in results.by("bpp", rows).items()]
        line = [(bpp, mean) for bpp, mean in means if mean is not None and math.isfinite(mean)]
        _line(axes, line, codec, marker="o", markersize=4, linewidth=_width(codec))
    _bits_axis(axes, "bits per pixel received")
    axes.set_ylabel("mean PSNR over RGB, dB")
    count = len(results.by("picture", document["rows"]))
    axes.set_title(f"One file of each codec, cut at the same bytes; {count} pictures")
    _finish(figure, axes, out / "progressive")


def speed(document: Document, out: Path) -> None:
    """Seconds and memory of whole processes against the picture's size."""
    for column, label, unit in (("seconds", "seconds", 1.0), ("peak_bytes", "peak MiB", 2.0**20)):
        figure, axes = _figure(10, 5)
        for codec, rows in results.by("codec", document["rows"]).items():
            for task in TASKS:
                cold = [row for row in rows if row["task"] == task and row["state"] == "cold"]
                line = [
                    (
                        group[0]["width"] * group[0]["height"] / 1e6,
                        float(np.median([row[column] for row in group])) / unit,
                    )
                    for group in results.by("picture", cold).values()
                ]
                style = "-" if task == "encode" else "--"
                _line(axes, sorted(line), f"{codec}, {task}", marker="o", linestyle=style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("megapixels")
        axes.set_ylabel(label)
        _finish(figure, axes, out / f"speed-{column.partition('_')[0]}")


def likelihood(document: Document, out: Path) -> None:
    """RMSE against bits/dim, of the file and ideally; beside them what others have published."""
    figure, axes = _figure(10, 5)
    rates = {"bits_per_dim": "the file's bytes", "ideal_bits_per_dim": "ideal (relative entropy)"}
    for column, label in rates.items():
        line = [(row[column], row["rmse"]) for row in document["rows"]]
        _line(axes, line, label, marker="o", markersize=4)
    for stated in document["published"]:
        point = [(stated["ideal_bits_per_dim"], stated["rmse"])]
        _line(axes, point, f"{stated['name']}, published", marker="*", linestyle="none")
    axes.set_xlabel("bits per dimension received")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("RMSE over RGB, on a scale to 255")
    axes.set_title(f"One file by channel coding; pictures: {document['pictures']['channel']}")
    _finish(figure, axes, out / "likelihood")


def density(document: Document, out: Path) -> None:
    """What more steps of a chain bring: the bound against that of infinitely many, in pairs."""
    figure, axes = _figure(8, 4)
    rows = [row for row in document["rows"] if "steps" in row]
    points = [(row["steps"], row["difference"]) for row in rows]
    _line(axes, points, "bound", marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("steps of the chain")
    axes.set_ylabel("bits/dim above the bound of infinitely many steps")
    axes.set_title(f"The bound by the number of steps; pictures: {document['pictures']}")
    _finish(figure, axes, out / "density")


def train(document: Document, out: Path) -> None:
    """What share of its bare convolutions' speed each recipe reaches."""
    figure, axes = _figure(8, 3)
    rows = document["rows"]
    axes.barh([row["recipe"] for row in rows], [100 * row["share"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("multiply-adds a second, % of the bare convolutions'")
    axes.set_title(f"Training steps on {rows[0]['device']}")
    _finish(figure, axes, out / "train")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    colours = cycler(color=matplotlib.color_sequences["tab10"])
    axes.set_prop_cycle(cycler(linestyle=["-", "-."]) * colours)
    return figure, axes


def _width(codec: str) -> float:
    """diffcodec stands out."""
    return 2.5 if codec == NAME else 1.2


def _line(axes: Any, points: Sequence[tuple[float, float]], label: str, **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _bits_axis(axes: Any, label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(label)


def _finish(figure: Figure, axes: Any, path: Path) -> None:
    axes.grid(which="both", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    for kind in ("svg", "png"):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(f"{path}.{kind}", dpi=150, metadata=metadata)
