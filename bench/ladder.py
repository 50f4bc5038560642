"""Ladders compared: bits at equal quality when levels, bands or colours come later or earlier."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from bench import results
from bench.codecs import installed
from bench.measure import measurements
from bench.metrics import METRICS, bits_at
from bench.ours import DiffcodecPrefixes
from bench.pictures import Picture
from bench.rd import curve
from bench.results import Document, percent
from bench.work import Row, collect
from diffcodec.exact.files import PHOTO
from diffcodec.quantized.ladder import white
from diffcodec.quantized.schedule import LOW
from diffcodec.training.export import with_ladder
from diffcodec.training.recipes import EARLY_EDGES

LEVELS: Mapping[str, tuple[float, ...]] = {
    "psnr": (25, 27, 30, 33, 36, 39, 42),
    "ssimulacra2": (10, 20, 30, 40, 50, 60, 70, 80),
}
"""Qualities at which ladders are compared."""

_LUMA = (-1, -1, -1, 0, 0, 0, 0, 0, 0)

LADDERS: Mapping[str, Mapping[int, int | Sequence[int]]] = {
    "white": {},
    "luma's edges earlier from level 2 on": EARLY_EDGES,
    "luma earlier from level 2 on": dict.fromkeys(range(2, LOW + 1), _LUMA),
    "luma earlier from level 3 on": dict.fromkeys(range(3, LOW + 1), _LUMA),
    "luma of levels 2 and 3 earlier": dict.fromkeys((2, 3), _LUMA),
    "level 1 later": {1: 1},
    "luma of level 1 later": {1: (1, 1, 1, 0, 0, 0, 0, 0, 0)},
    "chroma of level 1 later": {1: (0, 0, 0, 1, 1, 1, 1, 1, 1)},
    "HH of level 1 later": {1: (0, 0, 1, 0, 0, 1, 0, 0, 1)},
}
"""By how many rungs levels and channels come later than in the ladder of white error, the first;
below zero: earlier."""


def run(pictures: Sequence[Picture], cache: Path | None, jobs: int, folder: Path) -> Document:
    """Measure the curves of all ladders on all pictures; their models are written to `folder`."""
    codecs = []
    for name, later in LADDERS.items():
        path = folder / f"{name}.safetensors"
        with_ladder(PHOTO, path, white(later))
        codecs.append(DiffcodecPrefixes(name=name, model=path))
    able, missing = installed([metric for metric in METRICS if metric.name in LEVELS])
    rows = collect(measurements(pictures, codecs, tuple(able)), cache, jobs)
    return results.document("ladder", rows, codecs, missing)


def equal_quality(document: Document) -> str:
    """Bits against the first ladder at equal quality, as geometric means over the pictures.

    The last column is the sum of the two means, by which a ladder is chosen; "file" compares whole
    files.
    """
    by_codec = results.by("codec", document["rows"])
    base = results.by("picture", next(iter(by_codec.values())))
    lines = []
    for name, rows in by_codec.items():
        own, cells, total = results.by("picture", rows), [], 0.0
        for metric, levels in LEVELS.items():
            logs = {
                level: [
                    math.log(mine / other)
                    for picture in own
                    if (mine := bits_at(curve(own[picture], metric), level)) is not None
                    and (other := bits_at(curve(base[picture], metric), level)) is not None
                ]
                for level in levels
            }
            cells += [
                percent(math.exp(fmean(ratios))) if ratios else "-" for ratios in logs.values()
            ]
            mean = fmean([fmean(ratios) for ratios in logs.values() if ratios] or [0.0])
            cells.append(percent(math.exp(mean)))
            total += math.exp(mean) - 1
        whole = fmean(math.log(_file(own[p]) / _file(base[p])) for p in own)
        lines.append([name, *cells, percent(math.exp(whole)), percent(1 + total)])
    header = ["ladder"]
    for metric, levels in LEVELS.items():
        unit = " dB" if metric == "psnr" else ""
        header += [f"{level:g}{unit}" for level in levels] + [f"mean, {metric}"]
    return results.table([*header, "file", "sum"], lines)


def _file(rows: Sequence[Row]) -> int:
    """Bytes of the whole file."""
    return max(int(row["bytes"]) for row in rows)
