"""Lossless file sizes against every peer."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bench import results, stated
from bench.codecs import FileCodec, installed
from bench.measure import measurements
from bench.ours import NAME
from bench.pictures import Picture
from bench.results import Document
from bench.work import Row, collect

_MANY = 50  # pictures: a table of each would be no help


def run(
    pictures: Sequence[Picture], codecs: Sequence[FileCodec], cache: Path | None, jobs: int
) -> Document:
    """Measure all codecs on all pictures.

    Raises BenchError at the first file that does not decode to its original.
    """
    there, skipped = installed(codecs)
    rows = collect(measurements(pictures, there), cache, jobs)
    document = results.document("lossless", rows, there, skipped)
    return document | {"stated": stated.of_lossless(picture.name for picture in pictures)}


def summary(document: Document) -> str:
    """One row a codec, then what others state; where diffcodec was measured, its size against each.

    The ratio is given as the mean over pictures and for the sum of all files, which differ: the
    second is ruled by the large files.
    """
    by_codec = results.by("codec", document["rows"])
    ours = by_codec.get(NAME)
    header = ["codec", "bits/dim", "bytes"]
    if ours:
        header += [f"{NAME} against it, mean", f"{NAME} against it, total"]
    lines = []
    for name, theirs in by_codec.items():
        line = [name, f"{fmean(r['bits_per_dim'] for r in theirs):.3f}", f"{_total(theirs):,}"]
        if ours:
            pairs = zip(ours, theirs, strict=True)
            line.append(results.percent(fmean(a["bytes"] / b["bytes"] for a, b in pairs)))
            line.append(results.percent(_total(ours) / _total(theirs)))
        lines.append(line)
    others = document.get("stated", [])
    for entry in others:
        size = "-" if entry["bytes"] is None else f"{entry['bytes']:,}"
        line = [f"{entry['name']} (stated)", f"{entry['bits_per_dim']:.3f}", size]
        if ours:  # one size of picture: the mean of bits/dim is that of the total
            mean = fmean(row["bits_per_dim"] for row in ours)
            line += ["-", results.percent(mean / entry["bits_per_dim"])]
        lines.append(line)
    count = len(results.by("picture", document["rows"]))
    note = f"Mean over {count} pictures, every file decoded and equal to its original"
    if others:
        by_source = results.by("source", others)
        said = (f"{', '.join(e['name'] for e in by_source[s])} by {s}" for s in by_source)
        note += f"; not so what is only stated: {'; '.join(said)}"
    return f"{results.table(header, lines)}\n\n{note}."


def details(document: Document) -> str:
    """Bits/dim of each picture, while they are few."""
    by_picture = results.by("picture", document["rows"])
    if len(by_picture) > _MANY:
        return ""
    header = ["picture", *results.by("codec", document["rows"])]
    lines = [
        [picture, *(f"{row['bits_per_dim']:.3f}" for row in rows)]
        for picture, rows in by_picture.items()
    ]
    return "Bits/dim:\n\n" + results.table(header, lines)


def _total(rows: Sequence[Row]) -> int:
    return sum(row["bytes"] for row in rows)
