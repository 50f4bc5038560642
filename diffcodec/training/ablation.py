"""Variants of the codec's network and of its training, compared at the same cost.

`python -m diffcodec.training.ablation PICTURES VALIDATION --minutes 3` trains each from the same
random start on the same crops in the same order, and prints a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from torch import Tensor

from diffcodec.networks import Depth, Experts, FilmConv
from diffcodec.quantized import chain
from diffcodec.quantized.objective import step_bits
from diffcodec.training.data import load_images
from diffcodec.training.diet import BLOCKS, INTERPOLATED, PICTURES, Diet
from diffcodec.training.loop import load_checkpoint, train
from diffcodec.training.tasks import ALL_LEVELS, TASKS, Codec, trained_rungs

PROBE = 128
"""Side of the picture on which multiplications are counted."""


class Variant(Codec):
    """The codec's task with some of its choices changed."""

    def __init__(
        self,
        *,
        rate: float = Codec.rate,
        blocks: Sequence[Depth] = BLOCKS,
        diet: Diet = PICTURES,
        interpolated: int = INTERPOLATED,
    ) -> None:
        super().__init__(blocks, diet, TASKS["codec"].calibration, interpolated)
        self.rate = rate


def _pictures(**shares: Any) -> Diet:
    """The diet of photographs with other shares of some kinds of crops."""
    return tuple((replace(draw, **shares), emphasis) for draw, emphasis in PICTURES)


VARIANTS: Mapping[str, Variant] = {
    "as it is": Variant(),
    "half the rate": Variant(rate=Codec.rate / 2),
    "twice the rate": Variant(rate=Codec.rate * 2),
    "batches of 4": Variant(
        diet=((replace(PICTURES[0][0], batch=4), PICTURES[0][1]), *PICTURES[1:])
    ),
    "half the blocks": Variant(blocks=[(half // 2, full) for half, full in BLOCKS]),
    "twice the blocks": Variant(blocks=[(half * 2, full) for half, full in BLOCKS]),
    "no blocks at full resolution": Variant(blocks=[(half, 0) for half, _ in BLOCKS]),
    "no drawings": Variant(diet=_pictures(drawn=0.0)),
    "no halved chroma": Variant(diet=_pictures(half_chroma=0.0)),
    "no smoothed chroma": Variant(diet=_pictures(smoothed=0.0)),
    "chroma with wavelets alone": Variant(interpolated=0),
    "chroma interpolated at one level": Variant(interpolated=1),
    "no edits": Variant(diet=_pictures(edited=0.0)),
    "none resized": Variant(diet=_pictures(resized=0.0)),
    "none exchanged": Variant(diet=_pictures(exchanged=0.0)),
}


@torch.no_grad()
def multiply_adds(net: Experts) -> float:
    """Multiplications of a whole lossless walk, for each pixel, without sleeping levels."""
    total = 0

    def count(layer: FilmConv, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, FilmConv)]
    values = chain.analyse(torch.zeros((1, 3, PROBE, PROBE), dtype=torch.uint8))
    for rung in trained_rungs():
        step_bits(net, values, rung, ALL_LEVELS)
    for hook in hooks:
        hook.remove()
    return total / PROBE**2


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("validation", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--minutes", type=float, default=3.0, show_default=True, help="For each variant.")
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), help="Some of them.")
def main(pictures: Path, validation: Path, minutes: float, only: tuple[str, ...]) -> None:
    """Train the variants on PICTURES and print what they make of VALIDATION."""
    click.echo("| variant | steps | 1000 multiplications a pixel | validation |")
    click.echo("| --- | ---: | ---: | --- |")
    held_out = load_images(validation, torch.device("cpu"))
    for name in only or VARIANTS:
        variant = VARIANTS[name]
        with TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "run.pt"
            train(pictures, checkpoint, task=name, minutes=minutes, tasks=VARIANTS)
            state = load_checkpoint(checkpoint)
        net = variant.network()
        net.load_state_dict(state["ema"])
        with torch.no_grad():
            line = variant.validate(net, held_out)
        cost = multiply_adds(net) / 1000
        click.echo(f"| {name} | {state['steps']} | {cost:.0f} | {line} |")


if __name__ == "__main__":
    main()
