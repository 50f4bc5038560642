"""The command line: `python -m bench lossless|rd|speed --data DIR [--out DIR]`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import lossless as lossless_run
from bench import rd as rd_run
from bench import speed as speed_run
from bench.codecs import LOSSLESS
from bench.pictures import find


@click.group()
def main() -> None:
    """Measure diffcodec and its peers on the same pictures, in the same run."""


def _pictures_and_out(command: Callable[..., None]) -> Callable[..., Any]:
    """Add the options that every measurement shares."""
    for option in (
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder for the JSON (and plots) of this run.",
        ),
        click.option(
            "--limit", type=click.IntRange(1), help="Measure the first so many pictures only."
        ),
        click.option(
            "--tiles",
            type=click.IntRange(1),
            metavar="SIDE",
            help="Cut each picture, row by row, into squares of this side.",
        ),
        click.option(
            "--data",
            required=True,
            type=click.Path(exists=True, path_type=Path),
            help="A folder of pictures, or one picture.",
        ),
    ):
        command = option(command)
    return command


@main.command()
@_pictures_and_out
@click.option(
    "--codec",
    "names",
    multiple=True,
    type=click.Choice([codec.name for codec in LOSSLESS]),
    help="Measure this codec only (may be repeated).",
)
def lossless(
    data: Path, tiles: int | None, limit: int | None, out: Path | None, names: tuple[str, ...]
) -> None:
    """Lossless file sizes; every file is decoded and compared with its original."""
    chosen = [codec for codec in LOSSLESS if not names or codec.name in names]
    click.echo(lossless_run.run(find(data, tiles, limit), chosen, out))


@main.command()
@_pictures_and_out
@click.option(
    "--cuts",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="diffcodec prefixes to decode between each two rungs.",
)
def rd(data: Path, tiles: int | None, limit: int | None, out: Path | None, cuts: int) -> None:
    """Bits at equal PSNR: prefixes of diffcodec's one lossless file against JPEG 2000."""
    click.echo(rd_run.run(find(data, tiles, limit), rd_run.curves(cuts), out))


@main.command()
@_pictures_and_out
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
def speed(data: Path, tiles: int | None, limit: int | None, out: Path | None, runs: int) -> None:
    """Seconds and peak memory of encode and decode as whole processes, start-up included."""
    click.echo(speed_run.run(find(data, tiles, limit), runs, out))


if __name__ == "__main__":
    main(prog_name="python -m bench")
