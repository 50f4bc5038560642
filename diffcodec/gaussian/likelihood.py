"""How many bits/dim a model needs for pictures, term by term."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.elbo import continuous, discrete, prior, reconstruction
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import normal

BATCH = 16
"""Pictures that pass through the network together."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures with its standard error, in bits/dim."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """From one value for each picture, [N]."""
        return cls(float(values.mean()), float(values.std() / len(values) ** 0.5))


@dataclass(frozen=True)
class Likelihood:
    """The terms of the negative ELBO, and their sum."""

    prior: Estimate
    diffusion: Estimate
    reconstruction: Estimate
    total: Estimate


def likelihood(
    model: GaussianModel,
    images: Tensor,
    steps: int | None,
    *,
    draws: int,
    generator: torch.Generator,
    progress: Callable[[float], None] = lambda _: None,
) -> Likelihood:
    """The negative ELBO of pictures uint8 [N, C, H, W], N > 1, on the model's device.

    Arguments as for `terms`. The standard errors are those of a mean over pictures of this kind:
    they hold the noise of the estimate and the spread of the pictures. Raises ValueError if there
    is but one picture.
    """
    if len(images) < 2:
        raise ValueError("a standard error needs two pictures or more")
    found = terms(model, images, steps, draws=draws, generator=generator, progress=progress)
    return Likelihood(*(Estimate.of(term) for term in (*found, found.sum(0))))


@torch.no_grad()
def terms(
    model: GaussianModel,
    images: Tensor,
    steps: int | None,
    *,
    draws: int,
    generator: torch.Generator,
    progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Prior, diffusion and reconstruction of each picture in bits/dim, float64 [3, N].

    Args:
        images: uint8 [N, C, H, W], on the model's device.
        steps: steps of the chain; None for the limit of infinitely many.
        draws: at how many times, one in each of as many equal strata, the diffusion term of each
            picture is measured. With as many draws as steps, each step is measured once.
        generator: of times and noise, on the CPU.
        progress: is called with the fraction of the work that is done.
    """
    parts = []
    for number, part in enumerate(batches := images.split(BATCH), 1):
        parts.append(_terms(model, part, steps, draws, generator))
        progress(number / len(batches))
    return torch.cat(parts, 1)


def _terms(
    model: GaussianModel, pixels: Tensor, steps: int | None, draws: int, generator: torch.Generator
) -> Tensor:
    """Prior, diffusion and reconstruction of each picture, float64 [3, N]."""
    x = to_data(pixels)
    offsets = torch.rand(len(x), generator=generator, dtype=torch.float64)
    diffusion = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for stratum in range(draws):
        t, noise = ((stratum + offsets) / draws).to(x.device), normal(x.shape, x, generator)
        if steps is None:
            diffusion += continuous(model, x, t, noise)
        else:
            diffusion += discrete(model, x, t, noise, steps)
    decoded = reconstruction(model, pixels, normal(x.shape, x, generator))
    return torch.stack([prior(model, x).double(), diffusion / draws, decoded.double()])
