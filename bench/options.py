"""What the commands share: options, which codecs are meant, and where results go."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bench import catalogue, report
from bench.codecs import Named
from bench.pictures import find
from bench.results import Document
from diffcodec.training.recipes import Recipe

M = TypeVar("M", int, float)
N = TypeVar("N", bound="Named | Recipe")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

DATA = click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder of pictures, or one picture.",
)
ONLY = click.option(
    "--only", type=FILE, help="A text file with the names of the pictures that are measured."
)
LIMIT = click.option(
    "--limit", type=click.IntRange(1), help="Measure the first so many pictures only."
)
CODECS = click.option(
    "--codec", "names", multiple=True, help="Measure this codec only (may be repeated)."
)
SLOW = click.option("--slow", is_flag=True, help="Measure peers at their slowest settings, too.")
JOBS = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    help="Processes, each of one thread.  [the CPU's cores]",
)


def measurement(command: Callable[..., Document]) -> Callable[..., Any]:
    """Give a command the options that every measurement shares, and keep and print its document.

    The command takes the pictures and the folder for results.
    """

    @functools.wraps(command)
    def run(
        data: Path,
        only: Path | None,
        limit: int | None,
        tiles: int | None,
        out: Path | None,
        **options: Any,
    ) -> None:
        document = command(find(data, tiles, limit, only), out=out, **options)
        if out is not None:
            report.keep(document, out)
        click.echo(report.tables(document))

    folder = click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for JSON, CSV and plots; a run that was interrupted goes on from there.",
    )
    tiles = click.option(
        "--tiles",
        type=click.IntRange(1),
        metavar="SIDE",
        help="Cut each picture, row by row, into squares of this side.",
    )
    return DATA(ONLY(tiles(LIMIT(folder(run)))))


def chosen(codecs: Sequence[N], names: Sequence[str], slow: bool = False) -> list[N]:
    """Those that were named; if none was, all but the slow ones, or all with `slow`.

    Raises BadParameter for an unknown name.
    """
    known = [codec.name for codec in codecs]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name} is none of {', '.join(known)}")
    wanted = set(names) or set(known) - (set() if slow else catalogue.SLOW)
    return [codec for codec in codecs if codec.name in wanted]


def numbers(words: str, kind: Callable[[str], M]) -> list[M]:
    """Those of a list with commas; raises BadParameter for anything else."""
    try:
        return [kind(word) for word in words.split(",") if word]
    except ValueError as error:
        raise click.BadParameter(f"{words} is not a list of numbers") from error


def cache(out: Path | None) -> Path | None:
    """Where results are kept while a run goes on."""
    return None if out is None else out / "cache.jsonl"
