"""The forward process, variance-preserving, with the log-SNR as its time.

    q(z_t | x) = N(alpha x, sigma^2),  alpha^2 = sigmoid(log_snr),  sigma^2 = sigmoid(-log_snr)

(Kingma et al., 2021: Variational diffusion models; VDM below.) A level `s` has less noise than
`t`. Levels are tensors of log-SNRs that broadcast against z; one for each example of a batch goes
through `per_example` first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Gaussian(NamedTuple):
    """A diagonal Gaussian; the variance broadcasts against the mean."""

    mean: Tensor
    variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """A sample, from standard normal noise of the shape of the mean."""
        return self.mean + self.variance.sqrt() * noise


def per_example(values: Tensor, z: Tensor) -> Tensor:
    """Values [N], or a single one, in the type of z [N, ...] and ready to broadcast with it."""
    return values.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))


def normal(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise from a generator on the CPU, in the type and place of `like`."""
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)


def alpha(log_snr: Tensor) -> Tensor:
    """The factor of the data."""
    return F.logsigmoid(log_snr).mul(0.5).exp()


def sigma(log_snr: Tensor) -> Tensor:
    """The standard deviation of the noise."""
    return F.logsigmoid(-log_snr).mul(0.5).exp()


def marginal(x: Tensor, log_snr: Tensor) -> Gaussian:
    """q(z_t | x)."""
    return Gaussian(alpha(log_snr) * x, torch.sigmoid(-log_snr))


def removed(log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
    """1 - SNR(t) / SNR(s), the share of z_t's noise that a step from t to s removes, in [0, 1]."""
    return -torch.expm1(log_snr_t - log_snr_s)


def transition(z_s: Tensor, log_snr_s: Tensor, log_snr_t: Tensor) -> Gaussian:
    """q(z_t | z_s); the variance is DDPM's beta (VDM, appendix A)."""
    factor = (F.logsigmoid(log_snr_t) - F.logsigmoid(log_snr_s)).mul(0.5).exp()
    return Gaussian(factor * z_s, torch.sigmoid(-log_snr_t) * removed(log_snr_t, log_snr_s))


def posterior(z_t: Tensor, x: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Gaussian:
    """q(z_s | z_t, x); the variance is DDPM's beta-tilde (VDM, appendix A).

    In units of the data the mean lies between z_t and x, at the share of noise that is removed.
    """
    share = removed(log_snr_t, log_snr_s)
    mean = alpha(log_snr_s) * torch.lerp(to_ve(z_t, log_snr_t), x, share)
    return Gaussian(mean, torch.sigmoid(-log_snr_s) * share)


def interpolated_variance(mix: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
    """The variance of p(z_s | z_t): beta-tilde where `mix` is 0, beta where it is 1.

    In between it is interpolated in the logarithm (Nichol and Dhariwal, 2021, equation 15).
    """
    beta_tilde = torch.sigmoid(-log_snr_s) * removed(log_snr_t, log_snr_s)
    return beta_tilde * torch.exp(mix * (F.logsigmoid(-log_snr_t) - F.logsigmoid(-log_snr_s)))


def calibrated_variance(error: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
    """The best variance of p(z_s | z_t) if the predicted eps has this mean squared error.

    beta-tilde and the variance of the mean, E[(x - x_hat)^2] in units of the data (Bao et al.,
    2022: Analytic-DPM, theorem 1). The error is from 0, x is certain, to 1, nothing is known.
    """
    beta_tilde = torch.sigmoid(-log_snr_s) * removed(log_snr_t, log_snr_s)
    return beta_tilde * (1 + error * torch.expm1(log_snr_s - log_snr_t))


def ve_sigma(log_snr: Tensor) -> Tensor:
    """The standard deviation of the noise in the variance-exploding view: sigma / alpha."""
    return torch.exp(-0.5 * log_snr)


def to_ve(z: Tensor, log_snr: Tensor) -> Tensor:
    """The variance-exploding view y = x + ve_sigma * eps of z (Song et al., 2021)."""
    return z / alpha(log_snr)


def to_vp(y: Tensor, log_snr: Tensor) -> Tensor:
    """The inverse of `to_ve`."""
    return y * alpha(log_snr)


def from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """The log-SNR of DDPM's alpha_bar = alpha^2, `alphas_cumprod` of diffusers."""
    return torch.logit(alpha_bar)


def from_ve_sigma(deviation: Tensor) -> Tensor:
    """The log-SNR of the sigma of k-diffusion; the inverse of `ve_sigma`."""
    return -2 * deviation.log()


def flow_time(log_snr: Tensor) -> Tensor:
    """The time t of rectified flow, whose x_t = (1 - t) x + t eps is z / (alpha + sigma)."""
    return torch.sigmoid(-0.5 * log_snr)


def from_flow_time(t: Tensor) -> Tensor:
    """The log-SNR of a time of rectified flow; the inverse of `flow_time`."""
    return -2 * torch.logit(t)
