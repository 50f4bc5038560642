"""The terms of the negative ELBO, in bits/dim, one number for each example of a batch.

The diffusion terms take a time for each example; their mean over uniform times is the term.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import (
    alpha,
    marginal,
    per_example,
    removed,
)

Weight = Callable[[Tensor], Tensor]
"""A weight for each log-SNR; weight 1 is the VLB."""


def continuous(
    model: GaussianModel, x: Tensor, t: Tensor, noise: Tensor, weight: Weight = torch.ones_like
) -> Tensor:
    """The diffusion term for an infinite number of steps, in bits/dim [N].

    -1/2 w(log_snr) d log_snr / dt |eps - eps_hat|^2 (VDM, section 5; Kingma and Gao, 2023, for the
    weight). Args: data x [N, C, H, W], times t [N] in [0, 1], standard normal noise like x.
    """
    log_snr, rate = model.schedule.with_rate(t)
    z = marginal(x, per_example(log_snr, x)).draw(noise)
    prediction, _ = model(z, log_snr)
    return -0.5 * weight(log_snr) * rate * _bits((noise - prediction.eps).square())


def discrete(
    model: GaussianModel,
    x: Tensor,
    t: Tensor,
    noise: Tensor,
    steps: int,
    weight: Weight = torch.ones_like,
) -> Tensor:
    """The diffusion term of `steps` equal steps of time, in bits/dim [N].

    steps * KL(q(z_s | z_t, x) || p(z_s | z_t)) of the step in which t lies (VDM, section 4).
    Args: data x [N, C, H, W], times t [N] in [0, 1], standard normal noise like x.
    """
    log_snr_t, log_snr_s = step_ends(model, t, steps)
    prediction, spread = model(marginal(x, per_example(log_snr_t, x)).draw(noise), log_snr_t)
    bits = step_bits(model, x - prediction.x, spread, log_snr_t, log_snr_s)
    return steps * weight(log_snr_t) * bits


def prior(model: GaussianModel, x: Tensor) -> Tensor:
    """KL(q(z_1 | x) || N(0, 1)) in bits/dim [N]."""
    log_snr = per_example(
        model.schedule.log_snr(torch.ones(1, dtype=torch.float32, device=x.device)), x
    )
    mean, variance = marginal(x, log_snr)
    return _bits(0.5 * (mean.square() + variance - 1 - F.logsigmoid(-log_snr)))


def reconstruction(model: GaussianModel, pixels: Tensor, noise: Tensor) -> Tensor:
    """-log2 p(x | z_0) in bits/dim [N], for pixels uint8 [N, C, H, W] and noise like them."""
    x = to_data(pixels).to(noise.dtype)
    log_snr = per_example(
        model.schedule.log_snr(torch.zeros(1, dtype=torch.float32, device=x.device)), x
    )
    logs = model.decoder_log_probabilities(marginal(x, log_snr).draw(noise))
    return _bits(-logs.gather(-1, pixels.long()[..., None])[..., 0])


def step_ends(model: GaussianModel, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The log-SNRs at both ends of the step in which each t lies: the noisy end, the clear one."""
    number = (t * steps).floor().clamp(max=steps - 1)
    return model.schedule.log_snr((number + 1) / steps), model.schedule.log_snr(number / steps)


def step_bits(
    model: GaussianModel, error: Tensor, spread: Tensor, log_snr_t: Tensor, log_snr_s: Tensor
) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) in bits/dim [N], from the error of the predicted x."""
    log_snr_t, log_snr_s = per_example(log_snr_t, error), per_example(log_snr_s, error)
    share = removed(log_snr_t, log_snr_s)
    variance = model.reverse_variance(spread, log_snr_t, log_snr_s)
    ratio = torch.sigmoid(-log_snr_s) * share / variance
    distance = (alpha(log_snr_s) * share * error).square() / variance
    return _bits(0.5 * (distance + ratio - 1 - ratio.log()))


def _bits(nats: Tensor) -> Tensor:
    """Nats of each element to bits/dim of each example."""
    return nats.flatten(1).mean(1) / math.log(2)
