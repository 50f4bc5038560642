"""A Gaussian diffusion model: a network, a schedule, and how the two are to be read.

One object serves likelihood, channel coding and sampling: all that these need are the moments of
p(z_s | z_t) and the decoder p(x | z_0).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from diffcodec.gaussian.decoder import log_probabilities, to_pixels
from diffcodec.gaussian.parameterisation import Kind, Prediction
from diffcodec.gaussian.process import (
    Gaussian,
    calibrated_variance,
    interpolated_variance,
    marginal,
    normal,
    per_example,
    posterior,
    to_ve,
    ve_sigma,
)
from diffcodec.gaussian.schedule import Schedule, Tabulated

Network = Callable[[Tensor, Tensor], Tensor]
"""z [N, C, H, W] and log-SNRs [N] to predictions alike, or with 2 C channels (see `Variance`)."""

Variance = Literal["beta_tilde", "beta", "learned", "calibrated"]
"""Of p(z_s | z_t). For a learned one the network's second C channels, in -1..1, lie between; a
calibrated one follows from the network's mean squared error at each level."""

Decoder = Literal["latent", "network"]
"""Where p(x | z_0) is centred: z_0 / alpha_0 (VDM), or the network's prediction of x (DDPM)."""

KNOTS = 65
"""Levels at which the errors of a network are measured, at equal distances of time."""


class ByStep(nn.Module):
    """A network that takes the number of a step as a `Network`, which takes log-SNRs.

    Args: a network of z [N, C, H, W] and numbers [N], in the type of z; the schedule of its steps,
    where 0 has the least noise. Between two steps the numbers are no whole ones.
    """

    def __init__(self, network: Network, schedule: Tabulated) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return self.network(z, self.schedule.step_of(log_snr).to(z.dtype))


class GaussianModel(nn.Module):
    """p(z_1), p(z_s | z_t) and p(x | z_0) of data in (-1, 1).

    Args:
        network: any callable; a module's parameters become the model's.
        schedule: the log-SNR of a time.
        kind: what the network predicts.
        variance, decoder: as there.

    Attributes:
        levels, errors: log-SNRs [KNOTS] of which the mean squared error of eps has been measured
            (`calibrate`), and these errors; 1 until then.
    """

    levels: Tensor
    errors: Tensor

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        *,
        kind: Kind = "v",
        variance: Variance = "beta_tilde",
        decoder: Decoder = "latent",
    ) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule
        self.kind: Kind = kind
        self.variance: Variance = variance
        self.decoder: Decoder = decoder
        self.register_buffer("levels", schedule.grid(KNOTS - 1).detach())
        self.register_buffer("errors", torch.ones(KNOTS, dtype=torch.float32))

    def forward(self, z: Tensor, log_snr: Tensor) -> tuple[Prediction, Tensor]:
        """What the network predicts about z, and what `reverse_variance` needs to know.

        Args: z [N, C, H, W], and its log-SNR: [N], or a single one.
        """
        value = self.network(z, log_snr.to(z.dtype).expand(len(z))).to(z.dtype)
        match self.variance:
            case "learned":
                value, raw = value.chunk(2, 1)
                spread = (raw + 1) / 2
            case "calibrated":
                spread = per_example(self.errors_at(log_snr), z)
            case fixed:
                spread = torch.full_like(z[:1, :1, :1, :1], fixed == "beta")
        return Prediction.of(self.kind, value, z, per_example(log_snr, z)), spread

    def reverse_variance(self, spread: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
        """The variance of p(z_s | z_t), given what `forward` gives besides its prediction."""
        formula = calibrated_variance if self.variance == "calibrated" else interpolated_variance
        return formula(spread, log_snr_t, log_snr_s)

    def reverse(self, z: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Gaussian:
        """p(z_s | z_t): the posterior q(z_s | z_t, x) at the predicted x, with its own variance."""
        prediction, spread = self(z, log_snr_t)
        return self.reverse_given(prediction, spread, z, log_snr_t, log_snr_s)

    def reverse_given(
        self,
        prediction: Prediction,
        spread: Tensor,
        z: Tensor,
        log_snr_t: Tensor,
        log_snr_s: Tensor,
    ) -> Gaussian:
        """`reverse`, of what `forward` has given."""
        log_snr_t, log_snr_s = per_example(log_snr_t, z), per_example(log_snr_s, z)
        mean = posterior(z, prediction.x, log_snr_t, log_snr_s).mean
        return Gaussian(mean, self.reverse_variance(spread, log_snr_t, log_snr_s))

    @torch.no_grad()
    def calibrate(self, x: Tensor, generator: torch.Generator) -> None:
        """Measure the mean squared error of eps at all levels, for data [N, C, H, W].

        The errors depend on the network and the data, and not on the steps of a chain. All
        examples pass through the network together.
        """
        self.levels.copy_(self.schedule.grid(KNOTS - 1, device=x.device))
        for knot, log_snr in enumerate(self.levels):
            noise = normal(x.shape, x, generator)
            prediction, _ = self(marginal(x, log_snr).draw(noise), log_snr)
            self.errors[knot] = (noise - prediction.eps).square().mean()

    def errors_at(self, log_snr: Tensor) -> Tensor:
        """Mean squared errors of eps at log-SNRs of any shape, between the measured levels."""
        above = torch.searchsorted(self.levels, log_snr.to(self.levels)).clamp(1, KNOTS - 1)
        low, high = self.levels[above - 1], self.levels[above]
        share = ((log_snr - low) / (high - low)).clamp(0, 1).to(self.errors)
        return torch.lerp(self.errors[above - 1], self.errors[above], share)

    def decoder_log_probabilities(self, z_0: Tensor) -> Tensor:
        """log p(x | z_0) of all values of each pixel, in nats; [N, C, H, W, 256].

        With calibrated variances, that of the network's prediction of x is its mean squared error.
        """
        log_snr = self.schedule.log_snr(torch.zeros(1, dtype=torch.float32, device=z_0.device))
        level = per_example(log_snr, z_0)
        mean, variance = to_ve(z_0, level), ve_sigma(level).square()
        if self.decoder == "network":
            prediction, spread = self(z_0, log_snr)
            mean = prediction.x
            if self.variance == "calibrated":
                variance = variance * spread
        return log_probabilities(mean, variance)

    def most_likely(self, z_0: Tensor) -> Tensor:
        """The pixels, uint8, with the greatest p(x | z_0): those nearest to its centre."""
        log_snr = self.schedule.log_snr(torch.zeros(1, dtype=torch.float32, device=z_0.device))
        if self.decoder == "latent":
            return to_pixels(to_ve(z_0, per_example(log_snr, z_0)))
        return to_pixels(self(z_0, log_snr)[0].x)
