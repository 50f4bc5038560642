"""pack, train, export, fit and learn."""

from pathlib import Path

import click

from diffcodec.cli.common import at_most_one, positive

DATA = click.Path(exists=True, path_type=Path)

RECIPES = (
    *("photo", "photo-large", "converted", "thumbnail"),
    *("denoiser", "gaussian-32", "gaussian-64"),
)
"""As `training.RECIPES`, which takes long to import."""


@click.command()
@click.argument("data", type=DATA, nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--mib", type=float, callback=positive, required=True, help="At most so many MiB.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the choice."
)
def pack(data: tuple[Path, ...], output: Path, mib: float, seed: int) -> None:
    """Pack pictures of the folders DATA as one file, for `train`."""
    from diffcodec import training

    packed, there = training.pack(data, output, mib, seed)
    click.echo(f"{output}: {packed} of {there} pictures")


def by_name(given: tuple[str, ...]) -> dict[str, str]:
    """Words NAME=VALUE as values by name."""
    for word in given:
        if "=" not in word:
            raise click.BadParameter(f"{word} is not of the form NAME=VALUE")
    return dict(word.split("=", 1) for word in given)


@click.command()
@click.argument("data", type=DATA, nargs=-1, required=True)
@click.argument("checkpoint", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    default=RECIPES[0],
    show_default=True,
    help="The model of photographs, a larger one, that of pictures that were converted from "
    "another colour space, that of very small pictures (from mosaics of 32x32), the denoiser that "
    "prefixes are shown through, or the Gaussian process of pictures of 32x32 (in mosaics) or of "
    "crops of 64x64.",
)
@click.option(
    "--set",
    "options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=lambda _context, _option, given: by_name(given),
    help="Of the Gaussian recipes (may be repeated): schedule=linear, cosine or learned; "
    "objective=vlb, simple or hybrid; kind=v, eps, x, score or flow; variance=calibrated, beta, "
    "beta_tilde or learned; steps of the VLB; vlb_weight of the hybrid.",
)
@click.option(
    "--minutes", type=float, callback=positive, help="Stop after so many minutes.  [the recipe's]"
)
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--validation", type=DATA, help="Pictures to measure on, now and then.")
@click.option(
    "--start",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The model file whose weights a new CHECKPOINT starts from.  [random weights]",
)
@click.option("--device", help="cpu, cuda or cuda:N.  [cuda where there is one]")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="So many processes on the CPU, each on crops of its own, with averaged weights.",
)
def train(
    data: tuple[Path, ...],
    checkpoint: Path,
    recipe: str,
    options: dict[str, str],
    minutes: float | None,
    steps: int | None,
    validation: Path | None,
    start: Path | None,
    device: str | None,
    processes: int,
) -> None:
    """Train a network on the pictures in DATA.

    DATA are folders and what `pack` wrote. Of each, the recipe's folders are taken, or all pictures
    if it has none of these. Training resumes if CHECKPOINT, a folder of files of at most 16 MiB,
    exists.
    """
    budget = at_most_one(minutes=minutes, steps=steps)
    from diffcodec import training

    chosen = training.RECIPES[recipe]
    if options:
        try:
            chosen = training.varied(chosen, options)
        except ValueError as error:
            raise click.UsageError(f"--set: {error}") from error
    training.train(
        data,
        checkpoint,
        chosen,
        **budget,
        validation=validation,
        start=start,
        device=device,
        processes=processes,
    )


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--calibration",
    type=DATA,
    multiple=True,
    required=True,
    help="Pictures that set the ranges (may be repeated).",
)
@click.option("--validation", type=DATA, help="Pictures to measure on.")
def export(
    checkpoint: Path, out: Path, calibration: tuple[Path, ...], validation: Path | None
) -> None:
    """Turn CHECKPOINT into the model file OUT, exact integers.

    Of the pictures that set the ranges, the recipe's folders are taken, or all if there are none.
    """
    from diffcodec import training

    training.export(checkpoint, out, calibration=calibration, validation=validation)


@click.command()
@click.argument("data", type=DATA)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The installed model of photographs or of very small pictures.  [that of photographs]",
)
@click.option(
    "--minutes",
    type=float,
    callback=positive,
    default=15.0,
    show_default=True,
    help="Train for so many minutes.",
)
@click.option("--validation", type=DATA, help="Pictures to measure on, now and then.")
@click.option("--device", help="cpu, cuda or cuda:N.  [cuda where there is one]")
def fit(
    data: Path,
    output: Path,
    model: Path | None,
    minutes: float,
    validation: Path | None,
    device: str | None,
) -> None:
    """Fit an installed model to the pictures in DATA, of one source.

    DATA is a folder, or what `pack` wrote: pictures of one camera, scanner or game, some of them of
    at least 128 x 128 pixels. The file is a difference from the model, some hundred kilobytes, and
    serves as a model file wherever that model is installed.
    """
    from diffcodec import training

    base = {} if model is None else {"model": model}
    training.fit(data, output, **base, minutes=minutes, validation=validation, device=device)
    click.echo(f"{output}: {output.stat().st_size:,} bytes")


@click.command()
@click.argument("data", type=DATA, nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--without",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file with the names of pictures to leave out, one a line.",
)
def learn(data: tuple[Path, ...], output: Path, without: Path | None) -> None:
    """Learn a model of drawings from the pictures in DATA.

    DATA are folders and what `pack` wrote.
    """
    from diffcodec.training import drawings

    names = without.read_text().split() if without else ()
    drawings.learn(data, output, without=names)
