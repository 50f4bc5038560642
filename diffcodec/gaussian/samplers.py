"""From noise, or from any z_t, to less of it.

A sampler takes z [N, C, H, W] along `log_snrs` [steps + 1], rising levels of which the first is
that of z (`Schedule.grid` has such), and gives z at the last one.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from diffcodec.gaussian.decoder import to_pixels
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import (
    alpha,
    marginal,
    normal,
    removed,
    sigma,
    to_ve,
    to_vp,
    ve_sigma,
)

Method = Literal["mean", "ancestral", "flow"]


@torch.no_grad()
def ancestral(
    model: GaussianModel, z: Tensor, log_snrs: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw from p(z_s | z_t) step by step (Ho et al., 2020, algorithm 2)."""
    for t, s in pairwise(log_snrs):
        z = model.reverse(z, t, s).draw(normal(z.shape, z, generator))
    return z


@torch.no_grad()
def progressive(
    model: GaussianModel, z: Tensor, log_snrs: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    """The predictions of x on the way of `ancestral`, one for each step (Ho et al., figure 6)."""
    for t, s in pairwise(log_snrs):
        prediction, spread = model(z, t)
        yield prediction.x
        z = model.reverse_given(prediction, spread, z, t, s).draw(normal(z.shape, z, generator))


@torch.no_grad()
def ddim(
    model: GaussianModel,
    z: Tensor,
    log_snrs: Tensor,
    generator: torch.Generator,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al., 2021, equation 12): no noise at eta 0, ancestral sampling at eta 1."""
    for t, s in pairwise(log_snrs):
        prediction, _ = model(z, t)
        fresh = eta**2 * removed(t, s)  # the share of the noise at s that is drawn anew
        noise = (1 - fresh).sqrt() * prediction.eps + fresh.sqrt() * normal(z.shape, z, generator)
        z = alpha(s) * prediction.x + sigma(s) * noise
    return z


@torch.no_grad()
def heun(model: GaussianModel, z: Tensor, log_snrs: Tensor) -> Tensor:
    """The probability-flow ODE by Heun's method (Karras et al., 2022, algorithm 1).

    In the variance-exploding view it is dy = eps_hat d ve_sigma.
    """
    y = to_ve(z, log_snrs[0])
    for t, s in pairwise(log_snrs):
        step = ve_sigma(s) - ve_sigma(t)
        slope = model(to_vp(y, t), t)[0].eps
        ahead = model(to_vp(y + step * slope, s), s)[0].eps
        y = y + step * (slope + ahead) / 2
    return to_vp(y, log_snrs[-1])


@torch.no_grad()
def langevin(
    model: GaussianModel,
    z: Tensor,
    log_snrs: Tensor,
    generator: torch.Generator,
    *,
    sweeps: int,
    step: float = 0.2,
) -> Tensor:
    """Annealed Langevin dynamics (Song and Ermon, 2019, algorithm 1), `sweeps` steps a level.

    It runs in the variance-exploding view, where a step is `step` times the variance of the noise.
    """
    y = to_ve(z, log_snrs[0])
    for t in log_snrs:
        for _ in range(sweeps):
            eps = model(to_vp(y, t), t)[0].eps
            y = y + ve_sigma(t) * (step**0.5 * normal(z.shape, z, generator) - step / 2 * eps)
    return to_vp(y, log_snrs[-1])


@torch.no_grad()
def predictor_corrector(
    model: GaussianModel,
    z: Tensor,
    log_snrs: Tensor,
    generator: torch.Generator,
    *,
    sweeps: int = 1,
    step: float = 0.05,
) -> Tensor:
    """After each ancestral step, Langevin dynamics at the new level.

    Song et al. (2021): Score-based generative modeling, algorithm 1. Their corrector's step follows
    the length of the score; `step` = 2 r^2 is the same with their ratio r = 0.16, where eps_hat is
    as long as the noise.
    """
    for ends in log_snrs.unfold(0, 2, 1):
        z = ancestral(model, z, ends, generator)
        z = langevin(model, z, ends[1:], generator, sweeps=sweeps, step=step)
    return z


def between(
    x: Tensor, other: Tensor, shares: Tensor, log_snr: Tensor, generator: torch.Generator
) -> Tensor:
    """Latents from one picture to another, both [C, H, W], that any sampler takes.

    (1 - share) z + share z', for samples z and z' of q(z_t | x) at a level (Ho et al., 2020,
    section 4.4 and figure 8). Gives [shares, C, H, W].
    """
    z, end = (marginal(p, log_snr).draw(normal(p.shape, p, generator)) for p in (x, other))
    return torch.lerp(z[None], end[None], shares.to(z).reshape(-1, *[1] * z.ndim))


@torch.no_grad()
def decode(
    model: GaussianModel,
    z: Tensor,
    t: float,
    method: Method,
    *,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Pixels uint8 [N, C, H, W] from z at time t; from noise at t = 1 they are samples.

    Args:
        method: "mean" is E[x | z_t], the least squared error; "ancestral" draws from
            p(x | z_t); "flow" follows the probability-flow ODE (DiffC-A and DiffC-F of Theis et
            al., 2022, from a z_t that was sent).
        steps: of equal time; the mean takes none.
    """
    log_snrs = model.schedule.grid(steps, t, z.device)
    match method:
        case "mean":
            return to_pixels(model(z, log_snrs[0])[0].x)
        case "ancestral":
            return model.most_likely(ancestral(model, z, log_snrs, generator))
        case "flow":
            return model.most_likely(heun(model, z, log_snrs))


def mosaic(images: Tensor, columns: int) -> Tensor:
    """Pictures [N, C, H, W] in rows of `columns`, [C, rows * H, columns * W].

    N must be a multiple of the columns.
    """
    return images.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
