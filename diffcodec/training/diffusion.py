"""Objectives of the Gaussian process beside the bound itself (`gaussian.elbo`).

All give one number for each example of a batch. Arguments as for `elbo.continuous`.
"""

import torch
from torch import Tensor

from diffcodec.gaussian.elbo import step_bits, step_ends
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import marginal, per_example, sigma
from diffcodec.gaussian.schedule import Learned


def simple(model: GaussianModel, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """L_simple: the mean squared error of eps [N] (Ho et al., 2020, equation 14).

    Arguments as for `continuous`.
    """
    log_snr = model.schedule.log_snr(t)
    prediction, _ = model(marginal(x, per_example(log_snr, x)).draw(noise), log_snr)
    return (noise - prediction.eps).square().flatten(1).mean(1)


def score_matching(model: GaussianModel, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Half the squared error of the score against that of q(z_t | x), [N] (Vincent, 2011).

    Its mean is that against the score of the data's own q(z_t), plus what no network changes. It is
    half of `simple` divided by the variance of the noise.
    """
    log_snr = model.schedule.log_snr(t)
    level = per_example(log_snr, x)
    prediction, _ = model(marginal(x, level).draw(noise), log_snr)
    return 0.5 * (prediction.score + noise / sigma(level)).square().flatten(1).mean(1)


def hybrid(
    model: GaussianModel,
    x: Tensor,
    t: Tensor,
    noise: Tensor,
    steps: int,
    vlb_weight: float = 1e-3,
) -> Tensor:
    """L_simple for the means and the VLB for learned variances, [N].

    The VLB does not touch the means (Nichol and Dhariwal, 2021, equation 16; the default is their
    0.001, of a VLB in bits as in their code). Arguments as for `discrete`.
    """
    log_snr_t, log_snr_s = step_ends(model, t, steps)
    prediction, spread = model(marginal(x, per_example(log_snr_t, x)).draw(noise), log_snr_t)
    error = (noise - prediction.eps).square().flatten(1).mean(1)
    bits = step_bits(model, (x - prediction.x).detach(), spread, log_snr_t, log_snr_s)
    return error + vlb_weight * steps * bits


def schedule_gradient(losses: Tensor, schedule: Learned) -> Tensor:
    """Zero; added to the mean of the losses, it has the schedule's shape learn to lower variance.

    The continuous VLB does not depend on the shape, so the gradient of E[loss^2] takes the place
    of its mere noise; the ends go on learning from the VLB (VDM, section 5.1 and appendix I).
    """
    shape = list(schedule.shape.parameters())
    surrogate = (losses.square() - losses).mean()
    gradients = torch.autograd.grad(surrogate, shape, retain_graph=True)
    total = torch.stack([(p * g).sum() for p, g in zip(shape, gradients, strict=True)]).sum()
    return total - total.detach()
