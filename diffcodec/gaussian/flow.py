"""Likelihood by the probability-flow ODE, which takes a density along.

Song et al. (2021): Score-based generative modeling, section 4.3 and appendix D. In the
variance-exploding view it is dy = eps_hat d ve_sigma, and the logarithm of the density falls by the
trace of the Jacobian of eps_hat. That trace takes a derivative: the network must be of floats, as
none of the installed models are.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.elbo import reconstruction
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import (
    Gaussian,
    alpha,
    marginal,
    normal,
    to_ve,
    to_vp,
    ve_sigma,
)


def log_density(
    model: GaussianModel, z: Tensor, log_snrs: Tensor, generator: torch.Generator
) -> Tensor:
    """log p(z) in nats [N] of z [N, C, H, W] at the first of falling levels [steps + 1].

    By Heun's method to the last level, where z is taken for standard normal noise. The trace is the
    unbiased estimate of Skilling and Hutchinson from one vector of random signs.
    """
    signs = 2 * torch.randint(2, z.shape, generator=generator).to(z) - 1
    y, gain = to_ve(z, log_snrs[0]), z.new_zeros(len(z))
    for s, t in pairwise(log_snrs):
        step = ve_sigma(t) - ve_sigma(s)
        slope, trace = _slope(model, y, s, signs)
        ahead, trace_ahead = _slope(model, y + step * slope, t, signs)
        y = y + step * (slope + ahead) / 2
        gain = gain + step * (trace + trace_ahead) / 2
    noise = _log_density(to_vp(y, log_snrs[-1]), Gaussian(z.new_zeros(()), z.new_ones(())))
    factor = alpha(log_snrs[-1]).log() - alpha(log_snrs[0]).log()  # the views differ in volume
    return noise + gain + z[0].numel() * factor


def bits(model: GaussianModel, pixels: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Bits/dim [N] of pixels uint8 [N, C, H, W], with the density of z_0 by the ODE.

    An upper bound with the terms of the VLB, log q(z_0 | x) - log p(z_0) - log p(x | z_0), of which
    the flow gives p(z_0) in place of the chain.

    Args:
        steps: of equal time.
    """
    x = to_data(pixels)
    log_snrs = model.schedule.grid(steps, device=x.device).flip(0)
    noise, known = normal(x.shape, x, generator), marginal(x, log_snrs[0])
    z = known.draw(noise)
    nats = _log_density(z, known) - log_density(model, z, log_snrs, generator)
    with torch.no_grad():
        decoded = reconstruction(model, pixels, noise)
    return nats / x[0].numel() / math.log(2) + decoded


def _log_density(z: Tensor, gaussian: Gaussian) -> Tensor:
    """Of each example, in nats [N]."""
    distance = (z - gaussian.mean).square() / gaussian.variance
    return -0.5 * (distance + (2 * math.pi * gaussian.variance).log()).flatten(1).sum(1)


def _slope(
    model: GaussianModel, y: Tensor, log_snr: Tensor, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """eps_hat and an estimate [N] of the trace of its Jacobian by y."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        eps = model(to_vp(y, log_snr), log_snr)[0].eps
        (pulled,) = torch.autograd.grad((eps * signs).sum(), y)
    return eps.detach(), (pulled * signs).flatten(1).sum(1)
