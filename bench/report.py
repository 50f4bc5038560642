"""From a run's document to what people read: tables, plots, a Markdown report, the README."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import click

from bench import (
    BenchError,
    density,
    known,
    ladder,
    likelihood,
    lossless,
    progressive,
    rd,
    results,
    speed,
    train,
)
from bench.codecs import MissingError, load
from bench.results import Document

TABLES: dict[str, tuple[Callable[[Document], str], ...]] = {
    "lossless": (lossless.summary, lossless.details),
    "rd": (rd.equal_psnr, rd.bd_rates),
    "ladder": (ladder.equal_quality,),
    "progressive": (progressive.summary,),
    "known": (known.summary,),
    "speed": (speed.summary,),
    "likelihood": (likelihood.summary, likelihood.curve),
    "density": (density.summary,),
    "train": (train.summary,),
}
TITLES = {
    "lossless": "Lossless",
    "rd": "Rate and distortion",
    "ladder": "Ladders",
    "progressive": "Progressive decoding",
    "known": "Pixels that prefixes show right",
    "speed": "Time and memory",
    "likelihood": "Likelihood, bits-back and channel coding",
    "density": "Likelihood by the bound and by the flow",
    "train": "Training steps",
}

_BLOCK = re.compile(r"(<!-- bench:(\S+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def tables(document: Document) -> str:
    """The tables of a run, with their origin below."""
    parts = [make(document) for make in TABLES[document["bench"]]]
    return "\n\n".join(filter(None, [*parts, results.origin(document)]))


def keep(document: Document, out: Path) -> None:
    """Write JSON, CSV and plots of a run; of rate and distortion, CompressAI's files as well.

    Without matplotlib there are no plots, which is said on standard error.
    """
    results.save(document, out)
    if document["bench"] == "rd":
        rd.export(document, out)
    try:
        load("matplotlib")
    except MissingError as error:
        click.echo(f"skipped: the plots ({error})", err=True)
        return
    from bench import plots

    getattr(plots, document["bench"])(document, out)


def write(out: Path) -> Path:
    """Write out/report.md from all runs that lie in `out`; return its path.

    Raises BenchError when there is none.
    """
    parts = ["# Measurements\n"]
    for kind in TABLES:
        if not (out / f"{kind}.json").exists():
            continue
        parts.append(f"## {TITLES[kind]}\n\n{tables(_load(out / f'{kind}.json'))}\n")
        images = sorted(out.glob(f"{kind}*.svg")) + sorted(out.glob(f"{kind}-pictures.png"))
        parts += [f"![{image.stem}]({image.name})\n" for image in images]
    if len(parts) == 1:
        raise BenchError(f"no results in {out.name}")
    path = out / "report.md"
    path.write_text("\n".join(parts))
    return path


def refresh(readme: Path, out: Path) -> int:
    """Renew the tables of a Markdown file from the runs in `out`; return how many.

    Below each stand its command and machine; reports tell the rest.

    A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->` and is made from
    out/NAME.json, such as `lossless` or `kodak/lossless`. Raises BenchError where that is not
    there, or where the file has no such place.
    """

    def renew(block: re.Match[str]) -> str:
        document = _load(out / f"{block[2]}.json")
        table = TABLES[document["bench"]][0](document)
        machine = document["machine"]
        origin = f"`{document['command']}` ({machine['cpu']}, {machine['cores']} cores)"
        return f"{block[1]}{table}\n\n{origin}\n{block[3]}"

    text, count = _BLOCK.subn(renew, readme.read_text())
    if not count:
        raise BenchError(f"{readme.name} has no line <!-- bench:NAME -->")
    readme.write_text(text)
    return count


def _load(path: Path) -> Document:
    try:
        document: Document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"no results in {path.name}: {error.__class__.__name__}") from error
    return document
