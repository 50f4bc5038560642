"""Rate against distortion: bits that each codec needs for the same quality."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

from bench import BenchError, results, stated
from bench.codecs import Codec, MissingError, installed, load
from bench.measure import measurements
from bench.metrics import BD_PSNR, METRICS, Metric, Sample, bd_rate, bits_at
from bench.pictures import Picture
from bench.results import Document, percent
from bench.work import Row, collect

LEVELS = (28, 30, 32, 34, 36, 38, 40)  # dB

_COMPRESSAI = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}  # its names for what it measures too


def run(
    pictures: Sequence[Picture],
    codecs: Sequence[Codec],
    metrics: Sequence[Metric],
    published: Sequence[Path],
    cache: Path | None,
    jobs: int,
) -> Document:
    """Measure the curves of all codecs on all pictures, the codec to compare first.

    `published` are result files of CompressAI for the same pictures, stated beside what is
    measured; of Kodak's, `stated.json` has some.
    """
    there, skipped = installed(codecs)
    able, missing = installed(metrics)
    rows = collect(measurements(pictures, there, tuple(able)), cache, jobs)
    document = results.document("rd", rows, there, skipped | missing)
    names = [picture.name for picture in pictures]
    curves = [entry | {"whole": stated.is_kodak(names)} for entry in stated.of_rates(names)]
    return document | {"published": [*map(read_published, published), *curves]}


def read_published(path: Path) -> dict[str, Any]:
    """Read a result file of CompressAI's: mean bpp, PSNR and MS-SSIM at each of its settings."""
    try:
        values = json.loads(path.read_text())
        found = values["results"]
        return {
            "name": values["name"],
            "source": path.name,
            "bpp": found["bpp"],
            "psnr": found.get("psnr-rgb") or found["psnr"],
            "ms_ssim": found.get("ms-ssim-rgb") or found.get("ms-ssim"),
            "whole": True,
        }
    except (KeyError, ValueError) as error:
        raise BenchError(f"{path.name} is no result file of CompressAI's") from error


def published_rows(entry: dict[str, Any]) -> list[Row]:
    """A published mean curve as rows: bpp, and the metrics that were published."""
    columns = {name: entry[name] for name in ("bpp", *_COMPRESSAI) if entry.get(name)}
    return [
        {"exact": False, **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]


def quality(row: Row, metric: str) -> float | None:
    """A row's quality on a scale for curves: MS-SSIM in dB, infinite for the original itself."""
    if row["exact"]:
        return math.inf
    value: float | None = row.get(metric)
    if value is not None and metric == "ms_ssim":
        return -10 * math.log10(1 - value) if value < 1 else math.inf
    return value


def curve(rows: Sequence[Row], metric: str) -> list[Sample]:
    """The points of one codec on one picture, rate in bits."""
    points = ((8 * row["bytes"], quality(row, metric)) for row in rows)
    return [Sample(bits, value) for bits, value in points if value is not None]


def equal_psnr(document: Document) -> str:
    """The first codec's bits as a ratio of every other's at equal PSNR.

    Each entry is the geometric mean over those pictures on which both curves reach the level;
    their count stands beside it. "mean" is the geometric mean of the line's levels, "lossless"
    compares the whole files of codecs that reach it.
    """
    (name, ours), *peers = _curves(document, "psnr").items()
    lines = []
    for peer, theirs in peers:
        cells, means = [], []
        for level in (*LEVELS, math.inf):
            ratios = [
                mine / other
                for picture in ours
                if (mine := bits_at(ours[picture], level)) is not None
                and (other := bits_at(theirs[picture], level)) is not None
            ]
            cells.append(f"{percent(geometric_mean(ratios))} ({len(ratios)})" if ratios else "-")
            if ratios and math.isfinite(level):
                means.append(geometric_mean(ratios))
        mean = percent(geometric_mean(means)) if means else "-"
        lines.append([peer, *cells[:-1], mean, cells[-1]])
    header = [f"{name} against", *(f"{level} dB" for level in LEVELS), "mean", "lossless"]
    return (
        f"{results.table(header, lines)}\n\n"
        f"Bits at equal RGB PSNR; in brackets, how many of the {len(ours)} pictures reach that "
        "level with both codecs."
    )


def bd_rates(document: Document) -> str:
    """The first codec's BD rate against every other's, by metric: mean over the pictures.

    Against published mean curves of the same pictures, the BD rate of the codec's own mean curve.
    """
    try:
        load("bjontegaard")
    except MissingError as error:
        return f"No BD rates: {error}."
    metrics = measured(document)
    by_codec = results.by("codec", document["rows"])
    (name, ours), *peers = by_codec.items()
    lines = []
    for peer, theirs in peers:
        cells = []
        for metric in metrics:
            mine, other = (results.by("picture", _within(rows)) for rows in (ours, theirs))
            rates = [
                rate
                for picture in mine
                if picture in other
                and (
                    rate := bd_rate(
                        curve(mine[picture], metric.name), curve(other[picture], metric.name)
                    )
                )
                is not None
            ]
            cells.append(f"{percent(fmean(rates))} ({len(rates)})" if rates else "-")
        lines.append([peer, *cells])
    means = [{"exact": False, **row} for row in mean_curve(ours)]
    for entry in document["published"]:
        if not entry["whole"]:
            continue
        theirs, cells = published_rows(entry), []
        for metric in metrics:
            against = bd_rate(*(_means(rows, metric.name) for rows in (means, theirs)))
            cells.append("-" if against is None else percent(against))
        lines.append([f"{entry['name']} (stated: {entry['source']})", *cells])
    header = [f"BD rate of {name} against", *(metric.title for metric in metrics)]
    return (
        f"{results.table(header, lines)}\n\n"
        f"Points between {BD_PSNR[0]:g} and {BD_PSNR[1]:g} dB; in brackets, the pictures whose "
        "curves overlap. Stated curves are means over pictures, and compared with such a mean."
    )


def measured(document: Document) -> list[Metric]:
    """The metrics that some row has."""
    rows = document["rows"]
    return [m for m in METRICS if any(row.get(m.name) is not None for row in rows)]


def mean_curve(rows: Sequence[Row]) -> list[Row]:
    """One codec's arithmetic means over all pictures, at each setting that every picture has.

    Sorted by bpp; lossless settings, which have no finite PSNR, are left out.
    """
    pictures = len(results.by("picture", rows))
    means = []
    for setting, group in results.by("setting", rows).items():
        if len(group) != pictures or any(row["exact"] for row in group):
            continue
        names = [m.name for m in METRICS if all(row.get(m.name) is not None for row in group)]
        columns = ["bpp", *names]
        means.append({"setting": setting} | {c: fmean(row[c] for row in group) for c in columns})
    return sorted(means, key=lambda row: row["bpp"])


def export(document: Document, out: Path) -> None:
    """Write each codec's mean curve as a result file of CompressAI's format, for its plot tool."""
    folder = out / "compressai"
    folder.mkdir(parents=True, exist_ok=True)
    for codec, rows in results.by("codec", document["rows"]).items():
        means = mean_curve(rows)
        columns = [c for c in ("bpp", *(m.name for m in METRICS)) if all(c in row for row in means)]
        content = {
            "name": codec,
            "description": f"{document['codecs'][codec]}; {document['command']}",
            "model": document["model"],
            "results": {_COMPRESSAI.get(c, c): [row[c] for row in means] for c in columns},
        }
        name = "".join(c if c.isalnum() or c in "-." else "_" for c in codec)
        results.write_json(folder / f"{name}.json", content)


def _curves(document: Document, metric: str) -> dict[str, dict[str, list[Sample]]]:
    """Codec to picture to points."""
    return {
        codec: {
            picture: curve(points, metric)
            for picture, points in results.by("picture", rows).items()
        }
        for codec, rows in results.by("codec", document["rows"]).items()
    }


def _means(rows: Sequence[Row], metric: str) -> list[Sample]:
    """The points of a mean curve that bear on BD rates, rate in bpp."""
    points = ((row["bpp"], quality(row, metric)) for row in _within(rows))
    return [Sample(bpp, value) for bpp, value in points if value is not None]


def _within(rows: Sequence[Row]) -> list[Row]:
    """Those rows that bear on BD rates."""
    low, high = BD_PSNR
    return [row for row in rows if row["psnr"] is not None and low <= row["psnr"] <= high]
