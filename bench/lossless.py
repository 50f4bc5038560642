"""Lossless file sizes against every peer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from bench import BenchError, report
from bench.codecs import Codec, installed
from bench.metrics import bits_per_dim, pixels
from bench.pictures import Picture

OURS = "diffcodec"


@dataclass(frozen=True)
class Result:
    """One file: its bytes, and its bits per sample."""

    picture: str
    codec: str
    bytes: int
    bits_per_dim: float


def run(pictures: Sequence[Picture], codecs: Sequence[Codec], out: Path | None) -> str:
    """Measure all codecs on all pictures; return the tables.

    lossless.json in `out` grows with each picture. Raises BenchError at the first file that does
    not decode to its original.
    """
    codecs = installed(codecs)
    versions = {codec.name: codec.version() for codec in codecs}
    results: list[Result] = []
    for picture in tqdm(pictures, unit="picture"):
        results += [measure(picture, codec) for codec in codecs]
        report.save(out, "lossless", {"codecs": versions, "results": [asdict(r) for r in results]})
    return tables(results, versions)


def measure(picture: Picture, codec: Codec) -> Result:
    """Encode, decode and compare one picture; raises BenchError where they differ."""
    image = picture.load()
    data = codec.encode(image)
    if not np.array_equal(pixels(codec.decode(data)), pixels(image)):
        raise BenchError(f"{codec.name} is not lossless on {picture.name}")
    return Result(picture.name, codec.name, len(data), bits_per_dim(len(data), image))


def tables(results: Sequence[Result], versions: dict[str, str]) -> str:
    """One row a codec; where diffcodec was measured, its size against that codec's.

    The ratio is given as the mean over pictures and for the sum of all files, which differ: the
    second is ruled by the large files.
    """
    by_codec = {name: [r for r in results if r.codec == name] for name in versions}
    ours = by_codec.get(OURS)
    header = ["codec", "bits/dim", "bytes"]
    if ours:
        header += [f"{OURS} against it, mean", f"{OURS} against it, total"]
    rows = []
    for name, theirs in by_codec.items():
        total = sum(r.bytes for r in theirs)
        row = [
            f"{name} ({versions[name]})",
            f"{fmean(r.bits_per_dim for r in theirs):.3f}",
            f"{total:,}",
        ]
        if ours:
            pairs = zip(ours, theirs, strict=True)
            row += [
                report.percent(fmean(a.bytes / b.bytes for a, b in pairs)),
                report.percent(sum(r.bytes for r in ours) / total),
            ]
        rows.append(row)
    count = len({r.picture for r in results})
    return f"{report.table(header, rows)}\n\n{count} pictures, every file decoded and equal."
