"""likelihood."""

from typing import Any

import click

from diffcodec.cli.common import PATH, RECURSIVE, computing, plural, progress_bar, read_all

TERMS = ("prior", "diffusion", "reconstruction", "total")


@click.command()
@click.argument("inputs", nargs=-1, type=PATH, required=True, metavar="PICTURES...")
@click.option("--steps", type=click.IntRange(min=1), help="Of the chain.  [infinitely many]")
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Measure each tile at so many times.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise."
)
@RECURSIVE
@computing
def likelihood(
    inputs: tuple[str, ...],
    steps: int | None,
    draws: int,
    seed: int,
    recursive: bool,
    computing: dict[str, Any],
) -> None:
    """Print the bits/dim of pictures by the Gaussian process.

    PICTURES are files, folders and patterns of RGB pictures with samples of 8 bits. Whole tiles
    count, of the size that the model was trained on; two at least. The standard errors are over
    tiles.
    """
    import diffcodec

    _, images = read_all(inputs, recursive=recursive)
    with progress_bar("likelihood") as progress:
        found = diffcodec.model_likelihood(
            images,
            steps=steps,
            draws=draws,
            seed=seed,
            progress=progress,
            **computing,
        )
    click.echo(f"{'term':<16}{'bits/dim':>9}{'std. error':>12}")
    for term in TERMS:
        estimate = getattr(found, term)
        click.echo(f"{term:<16}{estimate.mean:>9.4f}{estimate.error:>12.4f}")
    chain = "in the limit of infinitely many steps" if steps is None else f"for {steps:,} steps"
    click.echo(f"\nnegative ELBO of {plural(len(images))} {chain}")
