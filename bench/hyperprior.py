"""Train a small scale hyperprior of CompressAI's own classes: a learned baseline to measure.

`python -m bench.hyperprior PICTURES --minutes 30 --lmbda 0.013` leaves it where `bench rd` finds
it, one model for each lambda.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from bench.codecs import load
from bench.learned import own_weights
from bench.metrics import pixels
from bench.pictures import find

SIDE, BATCH = 128, 8
"""Pixels along a crop's side, and crops in a batch."""

RATE, AUXILIARY_RATE = 1e-3, 1e-2
"""Learning rates, of the model and of the quantiles that its entropy coder needs."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=30, show_default=True)
@click.option(
    "--lmbda",
    type=click.FloatRange(0, min_open=True),
    default=0.013,
    show_default=True,
    help="Weight of the squared error: more is a larger and better file.",
)
@click.option("--channels", type=click.IntRange(8), default=64, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(pictures: Path, minutes: float, lmbda: float, channels: int, device: str) -> None:
    """Train on the pictures of a folder."""
    images = [pixels(picture.load()) for picture in find(pictures)]
    weights = train(images, 60 * minutes, lmbda, channels, device)
    path = own_weights(lmbda)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(weights, partial)
    partial.replace(path)
    click.echo(f"saved as {path.name} in PyTorch's hub folder")


def train(
    images: Sequence[np.ndarray], seconds: float, lmbda: float, channels: int, device: str
) -> dict[str, Any]:
    """Train for so long on random crops of uint8 pictures [H, W, 3]; return the weights."""
    torch.manual_seed(0)
    model = load("compressai.models").ScaleHyperprior(channels, 3 * channels // 2).to(device)
    objective = load("compressai.losses").RateDistortionLoss(lmbda=lmbda)
    rates = {
        "net": {"type": "Adam", "lr": RATE},
        "aux": {"type": "Adam", "lr": AUXILIARY_RATE},
    }
    optimizers = load("compressai.optimizers").net_aux_optimizer(model, rates)
    crops = np.random.default_rng(0)
    start = time.monotonic()
    with tqdm(total=seconds, bar_format="{l_bar}{bar}[{elapsed}<{remaining}{postfix}]") as bar:
        while (done := (time.monotonic() - start) / seconds) < 1:
            for group in optimizers["net"].param_groups:
                group["lr"] = RATE * (1 + math.cos(math.pi * done)) / 2
            batch = _batch(images, crops).to(device)
            losses = objective(model(batch), batch)
            optimizers["net"].zero_grad()
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers["net"].step()
            optimizers["aux"].zero_grad()
            model.aux_loss().backward()
            optimizers["aux"].step()
            psnr = -10 * math.log10(losses["mse_loss"].item())
            bar.set_postfix_str(f"{losses['bpp_loss'].item():.2f} bpp, {psnr:.1f} dB", False)
            bar.update(min(seconds, time.monotonic() - start) - bar.n)
    model.update(force=True)
    return {name: value.cpu() for name, value in model.state_dict().items()}


def _batch(images: Sequence[np.ndarray], crops: np.random.Generator) -> torch.Tensor:
    """Random crops [B, 3, SIDE, SIDE] from 0 to 1, half of them mirrored."""
    batch = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
    for crop in batch:
        image = images[int(crops.integers(len(images)))]
        short = [max(0, SIDE - side) for side in image.shape[:2]]
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        top, left = (crops.integers(side - SIDE + 1) for side in image.shape[:2])
        part = image[top : top + SIDE, left : left + SIDE]
        crop[:] = part[:, ::-1] if crops.random() < 0.5 else part
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main(prog_name="python -m bench.hyperprior")
