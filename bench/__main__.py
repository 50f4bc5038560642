"""The command line: `python -m bench COMMAND`, of which each measures something."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from bench import catalogue, environment, report
from bench import decoded as decoded_run
from bench import density as density_run
from bench import known as known_run
from bench import ladder as ladder_run
from bench import likelihood as likelihood_run
from bench import look as look_run
from bench import lossless as lossless_run
from bench import progressive as progressive_run
from bench import rd as rd_run
from bench import speed as speed_run
from bench import train as train_run
from bench.metrics import METRICS
from bench.options import (
    CODECS,
    DATA,
    FILE,
    JOBS,
    LIMIT,
    ONLY,
    SLOW,
    cache,
    chosen,
    measurement,
    numbers,
)
from bench.pictures import Picture, find
from bench.results import Document
from bench.sheet import sheet
from diffcodec.training.recipes import RECIPES


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure diffcodec and its peers on the same pictures, in the same run."""


@main.command()
@measurement
@CODECS
@SLOW
@JOBS
def lossless(
    pictures: list[Picture], names: tuple[str, ...], out: Path | None, jobs: int, slow: bool
) -> Document:
    """Lossless file sizes; every file is decoded and compared with its original."""
    codecs = chosen(catalogue.lossless_codecs(), names, slow)
    return lossless_run.run(pictures, codecs, cache(out), jobs)


@main.command()
@DATA
@LIMIT
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the PNG files.",
)
def decoded(data: Path, limit: int | None, out: Path) -> None:
    """Write PNG files of what JPEG and WebP files of pictures decode to, for `lossless`."""
    decoded_run.write(find(data, limit=limit), out)


@main.command()
@measurement
@CODECS
@SLOW
@JOBS
@click.option(
    "--psnr-only", is_flag=True, help="Leave out MS-SSIM and SSIMULACRA 2, which take most time."
)
@click.option(
    "--published",
    type=FILE,
    multiple=True,
    help="A result file of CompressAI's for the same pictures, to state beside the measured.",
)
def rd(
    pictures: list[Picture],
    names: tuple[str, ...],
    out: Path | None,
    jobs: int,
    slow: bool,
    psnr_only: bool,
    published: tuple[Path, ...],
) -> Document:
    """Prefixes of diffcodec's one lossless file against the peers' files for each rate."""
    codecs = chosen(catalogue.rd_codecs(), names, slow)
    metrics = [m for m in METRICS if not psnr_only or m.name.startswith("psnr")]
    return rd_run.run(pictures, codecs, metrics, published, cache(out), jobs)


@main.command()
@measurement
@JOBS
def ladder(pictures: list[Picture], out: Path | None, jobs: int) -> Document:
    """Ladders in which levels, bands or colours come later: bits at equal quality.

    The installed networks serve all of them as they are.
    """
    with TemporaryDirectory() as folder:
        return ladder_run.run(pictures, cache(out), jobs, Path(folder))


@main.command()
@measurement
@CODECS
@JOBS
def progressive(
    pictures: list[Picture], names: tuple[str, ...], out: Path | None, jobs: int
) -> Document:
    """What one file shows after so many bytes; with --out, also as a sheet of pictures."""
    codecs = chosen(catalogue.progressive_codecs(), names)
    document = progressive_run.run(pictures, codecs, cache(out), jobs)
    if out is not None:
        measured = [codec for codec in codecs if codec.name in document["codecs"]]
        sheet(progressive_run.shown(pictures[0], measured)).save(out / "progressive-pictures.png")
    return document


@main.command()
@DATA
@ONLY
@LIMIT
@CODECS
@SLOW
@JOBS
@click.option(
    "--bpp",
    "rates",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    default=look_run.BPP,
    show_default=True,
    help="Bits per pixel that each codec may use (may be repeated).",
)
@click.option(
    "--crop", type=click.IntRange(16), metavar="SIDE", help="Code and show the middle square only."
)
@click.option(
    "--embed-quality",
    "quality",
    type=click.IntRange(0, 100),
    help="Embed pictures as WebP of this quality, for a smaller page.  [without loss]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for look.html and look.webp.",
)
def look(
    data: Path,
    only: Path | None,
    limit: int | None,
    names: tuple[str, ...],
    slow: bool,
    **options: Any,
) -> None:
    """A page to look at: pictures of each codec at the same bytes, side by side."""
    codecs = chosen(catalogue.look_codecs(), names, slow)
    path = look_run.run(find(data, limit=limit, only=only), codecs, **options)
    click.echo(f"{path}, {path.stat().st_size / 2**20:.1f} MiB")


@main.command()
@measurement
@JOBS
def known(pictures: list[Picture], out: Path | None, jobs: int) -> Document:
    """The share of pixels that prefixes show right, against interlaced PNG; for drawings."""
    return known_run.run(pictures, cache(out), jobs)


@main.command()
@measurement
@CODECS
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--sizes",
    default="",
    metavar="MP,MP...",
    help="Measure the first picture at these sizes, in megapixels; whole processes only.",
)
def speed(
    pictures: list[Picture], names: tuple[str, ...], out: Path | None, runs: int, sizes: str
) -> Document:
    """Seconds and peak memory of encode and decode, as whole processes and warm."""
    megapixels = numbers(sizes, float)
    return speed_run.run(pictures, chosen(catalogue.lossless_codecs(), names), megapixels, runs)


@main.command()
@measurement
@click.option(
    "--steps", type=click.IntRange(1), default=128, show_default=True, help="Of the model's chain."
)
@click.option(
    "--chain",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Pictures of the bits-back file.",
)
@click.option(
    "--progressive",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Pictures of the channel-coded file.",
)
@click.option(
    "--bpd",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Size of the channel-coded file, in bits/dim.",
)
@click.option("--model", type=FILE, help="A model file in place of the default one.")
def likelihood(pictures: list[Picture], out: Path | None, **options: Any) -> Document:
    """The Gaussian process: bound, bits-back files and progressive files of sets of pictures."""
    return likelihood_run.run(pictures, **options)


@main.command()
@measurement
@click.option(
    "--steps",
    default="10,25,50,100,250,1000",
    show_default=True,
    metavar="T,T...",
    help="Of the chains whose bounds are measured.",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Measure each picture at so many times.",
)
@click.option(
    "--flow-steps",
    type=click.IntRange(2),
    default=128,
    show_default=True,
    help="Of Heun's method, by which the flow is followed; half as many are measured, too.",
)
@click.option("--model", type=FILE, help="A model file in place of the default one.")
def density(pictures: list[Picture], out: Path | None, steps: str, **options: Any) -> Document:
    """The Gaussian model: its bound by the number of steps, and its likelihood by the flow."""
    return density_run.run(pictures, steps=numbers(steps, int), **options)


@main.command()
@click.option(
    "--recipe", "names", multiple=True, help="Measure this recipe only (may be repeated)."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long each recipe's steps are timed.",
)
@click.option("--device", help="cpu, cuda or cuda:N.  [cuda where there is one]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for JSON, CSV and plot."
)
def train(names: tuple[str, ...], seconds: float, device: str | None, out: Path | None) -> None:
    """Training steps: crops and multiply-adds a second, and the share of the bare convolutions'."""
    document = train_run.run(chosen(list(RECIPES.values()), names), seconds, device)
    if out is not None:
        report.keep(document, out)
    click.echo(report.tables(document))


@main.command("compressai-env")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--index", metavar="URL", help="A package index for torch and torchvision.")
@click.option("--yes", is_flag=True, help="Ask nothing before large downloads.")
def compressai_env(folder: Path, index: str | None, yes: bool) -> None:
    """Build an environment in FOLDER in which the learned codecs of CompressAI are measured."""
    environment.make(folder, index, yes)


@main.command("report")
@click.option(
    "--out",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder with the results.",
)
@click.option("--readme", type=FILE, help="Renew the tables in this Markdown file as well.")
def write_report(out: Path, readme: Path | None) -> None:
    """Write OUT/report.md from the runs in OUT."""
    if readme is not None:
        click.echo(f"{report.refresh(readme, out)} tables renewed in {readme.name}")
    if any((out / f"{kind}.json").exists() for kind in report.TABLES):
        click.echo(report.write(out))


if __name__ == "__main__":
    main(prog_name="python -m bench")
