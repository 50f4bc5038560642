"""The public API of the Gaussian model itself: the likelihood of pictures, and samples."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffcodec.errors import ImageError
from diffcodec.exact import files
from diffcodec.exact.backends import exact_arithmetic
from diffcodec.gaussian import samplers, tiles
from diffcodec.gaussian.chain import Chain, load
from diffcodec.gaussian.likelihood import Likelihood, likelihood
from diffcodec.limits import Progress, ignore
from diffcodec.paths import StrPath
from diffcodec.pictures.images import from_planes, to_pillow, to_planes

Sampler = Literal["ancestral", "ddim", "flow", "langevin", "predictor-corrector"]

_SWEEPS = 5  # of Langevin dynamics at each level
_BATCH = 64  # pictures that are drawn together


@exact_arithmetic
def model_likelihood(
    images: Sequence[Image.Image],
    *,
    steps: int | None = None,
    draws: int = 32,
    seed: int = 0,
    model: StrPath | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> Likelihood:
    """The negative ELBO of pictures in bits/dim, with standard errors over their tiles.

    Args:
        images: RGB pictures; what is left of whole tiles at their borders does not count.
        steps: of the chain; None for the limit of infinitely many.
        draws: at how many times each tile is measured.
        seed: of the noise.
        model: a model file in place of the default one, which depends on the pictures' size.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises ImageError for other modes or less than two tiles, ModelError for an unusable model.
    """
    pictures = [to_tensor(image) for image in images]
    chain = load(model) if model else default([pixels.shape[:0:-1] for pixels in pictures])
    whole = torch.Size((3, chain.side, chain.side))
    counted = [t for pixels in pictures for t in tiles.cut(pixels, chain.side) if t.shape == whole]
    if len(counted) < 2:
        raise ImageError(f"A likelihood needs two tiles of {chain.side} x {chain.side} pixels.")
    generator = torch.Generator().manual_seed(seed)
    return likelihood(
        chain.model(),
        torch.stack(counted),
        steps,
        draws=draws,
        generator=generator,
        progress=progress,
    )


@exact_arithmetic
def sample_set(
    count: int,
    *,
    sampler: Sampler = "ancestral",
    steps: int = 100,
    eta: float = 0.0,
    seed: int = 0,
    model: StrPath | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> list[Image.Image]:
    """Pictures drawn from the model alone.

    Args:
        sampler: "ancestral", "ddim", "flow" (the probability-flow ODE by Heun's method), "langevin"
            (annealed; five sweeps at each level) or "predictor-corrector" (ancestral, and a sweep
            after each step).
        steps: of equal time.
        eta: of "ddim", from 0, no noise on the way, to 1, as much as the ancestral one draws.
        seed: of all noise.
        model: a model file in place of the default one.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises ModelError for an unusable model.
    """
    chain = load(model or files.GAUSSIAN_32)
    generator = torch.Generator().manual_seed(seed)
    denoiser = chain.model()
    log_snrs = denoiser.schedule.grid(steps)
    calls = {
        "flow": 2 * steps,
        "langevin": _SWEEPS * (steps + 1),
        "predictor-corrector": 2 * steps,
    }.get(sampler, steps)
    calls = (calls + 1) * math.ceil(count / _BATCH)  # one more is the decoder's
    fractions = (number / calls for number in range(1, calls + 1))
    denoiser.register_forward_hook(lambda *_: progress(next(fractions)))
    drawn: list[Tensor] = []
    for start in range(0, count, _BATCH):
        shape = (min(_BATCH, count - start), 3, chain.side, chain.side)
        z = torch.randn(shape, generator=generator, dtype=torch.float32)
        match sampler:
            case "ancestral":
                z = samplers.ancestral(denoiser, z, log_snrs, generator)
            case "ddim":
                z = samplers.ddim(denoiser, z, log_snrs, generator, eta)
            case "flow":
                z = samplers.heun(denoiser, z, log_snrs)
            case "langevin":
                z = samplers.langevin(denoiser, z, log_snrs, generator, sweeps=_SWEEPS)
            case "predictor-corrector":
                z = samplers.predictor_corrector(denoiser, z, log_snrs, generator)
        drawn += denoiser.most_likely(z)
    return to_images(drawn)


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one mode, one or more, in rows of one that is about square if they are alike."""
    columns = math.ceil(math.sqrt(len(images)))
    width, height = (max(sides) for sides in zip(*(image.size for image in images), strict=True))
    shown = Image.new(images[0].mode, (columns * width, -(-len(images) // columns) * height))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        shown.paste(image, (column * width, row * height))
    return shown


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [3, H, W]."""
    mode, planes = to_planes(image)
    if mode != "RGB" or planes.dtype != np.uint8:
        raise ImageError(
            f"The Gaussian process codes RGB pictures with samples of 8 bits, not {image.mode}: "
            "convert them, or use the default method."
        )
    return torch.from_numpy(planes.copy())


def to_images(pictures: list[Tensor]) -> list[Image.Image]:
    """From uint8 [3, H, W]."""
    return [to_pillow(from_planes("RGB", pixels.numpy())) for pixels in pictures]


def default(sizes: Sequence[Sequence[int]]) -> Chain:
    """The model for pictures of at most 32 x 32 pixels, or that for all others."""
    small = max(map(max, sizes), default=0) <= 32
    return load(files.GAUSSIAN_32 if small else files.GAUSSIAN_64)
