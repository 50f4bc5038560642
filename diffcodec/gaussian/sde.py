"""The stochastic differential equations of Song et al. (2021): Score-based generative modeling.

    dy = f y dt + g dw,   q(y_t | x) = N(scale x, deviation^2)

All three take the times of a schedule. A model knows the states z that preserve variance, and a
state y of another process is one of them up to a factor.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import alpha, normal, sigma, ve_sigma
from diffcodec.gaussian.schedule import Schedule


class Coefficients(NamedTuple):
    """Of an SDE at times of any shape, in that shape.

    Attributes:
        drift: f, per unit of time.
        diffusion: g^2, per unit of time.
        scale, deviation: of q(y_t | x).
    """

    drift: Tensor
    diffusion: Tensor
    scale: Tensor
    deviation: Tensor

    @property
    def log_snr(self) -> Tensor:
        """The level of y_t."""
        return 2 * (self.scale / self.deviation).log()


SDE = Callable[[Schedule, Tensor], Coefficients]
"""A schedule and times to coefficients."""


def vp(schedule: Schedule, t: Tensor) -> Coefficients:
    """Variance-preserving: the process of this package, with its own z."""
    log_snr, beta = _beta(schedule, t)
    return Coefficients(-beta / 2, beta, alpha(log_snr), sigma(log_snr))


def sub_vp(schedule: Schedule, t: Tensor) -> Coefficients:
    """The drift of `vp`, but the square of its deviation: a variance below that of `vp`."""
    log_snr, beta = _beta(schedule, t)
    variance = torch.sigmoid(-log_snr)
    diffusion = beta * variance * (1 + torch.sigmoid(log_snr))
    return Coefficients(-beta / 2, diffusion, alpha(log_snr), variance)


def ve(schedule: Schedule, t: Tensor) -> Coefficients:
    """Variance-exploding: noise is only added. `LinearLogSnr` makes it a geometric sequence."""
    log_snr, rate = schedule.with_rate(t)
    variance = ve_sigma(log_snr).square()
    zero = torch.zeros_like(variance)
    return Coefficients(zero, -rate * variance, zero + 1, ve_sigma(log_snr))


@torch.no_grad()
def euler_maruyama(
    model: GaussianModel, y: Tensor, times: Tensor, generator: torch.Generator, sde: SDE = vp
) -> Tensor:
    """The reverse SDE, from y [N, C, H, W] at the first of falling times [steps + 1] to the last.

    dy = (f y - g^2 score) dt + g dw, with time running backwards (Song et al., equation 6).
    """
    for t, s in pairwise(times):
        at = sde(model.schedule, t)
        prediction, _ = model(y * alpha(at.log_snr) / at.scale, at.log_snr)
        uphill = at.diffusion * -prediction.eps / at.deviation
        noise = normal(y.shape, y, generator)
        y = y + (t - s) * (uphill - at.drift * y) + ((t - s) * at.diffusion).sqrt() * noise
    return y


def _beta(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """Log-SNRs, and DDPM's beta per unit of time."""
    log_snr, rate = schedule.with_rate(t)
    return log_snr, -rate * torch.sigmoid(-log_snr)
