"""Noise schedules: the log-SNR as a falling function of the time t in [0, 1].

t = 0 is the least noise. The continuous objective depends on a schedule through its ends only
(VDM, section 5.1); what lies between is the variance of its estimate, and the steps of a sampler.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIGHEST, LOWEST = 13.3, -5.0
"""The ends that VDM starts from: below a pixel's rounding, and all but pure noise."""


class Schedule(nn.Module, ABC):
    """log-SNR of a time; computed in float64, returned in the type of the time."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Log-SNRs at times in [0, 1], of the same shape."""
        return self._log_snr(t.double()).to(t.dtype)

    def with_rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log-SNRs at times [N], and their derivatives by t, which are not positive."""
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            log_snr = self.log_snr(t)
            (rate,) = torch.autograd.grad(log_snr.sum(), t, create_graph=graph)
        return (log_snr if graph else log_snr.detach()), rate

    def grid(self, steps: int, start: float = 1.0, device: torch.device | None = None) -> Tensor:
        """The log-SNRs of `steps` steps of equal time from `start` down to 0, [steps + 1]."""
        times = torch.linspace(start, 0, steps + 1, dtype=torch.float32, device=device)
        return self.log_snr(times)

    @abstractmethod
    def _log_snr(self, t: Tensor) -> Tensor:
        """Log-SNRs at float64 times."""


class LinearLogSnr(Schedule):
    """A log-SNR that falls linearly."""

    def __init__(self, highest: float = HIGHEST, lowest: float = LOWEST) -> None:
        super().__init__()
        self.highest, self.lowest = highest, lowest

    def _log_snr(self, t: Tensor) -> Tensor:
        return self.highest + (self.lowest - self.highest) * t


class LinearBeta(Schedule):
    """DDPM's linear betas in continuous time (Song et al., 2021: Score-based generative modeling,
    appendix C).

    Its SNR is infinite at the very start, so t = 0 is at `start` of the way: by default at the
    first of DDPM's thousand steps.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, start: float = 1e-3) -> None:
        super().__init__()
        self.beta_min, self.beta_max, self.start = beta_min, beta_max, start

    def _log_snr(self, t: Tensor) -> Tensor:
        t = self.start + (1 - self.start) * t
        return _from_log_alpha_bar(-t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t))


class Cosine(Schedule):
    """alpha_bar = cos^2(angle) / cos^2(first angle), the angle growing linearly in t.

    Nichol and Dhariwal (2021), equation 17. Instead of clipping betas, time runs between the
    angles of two given log-SNRs.
    """

    def __init__(
        self, highest: float = HIGHEST, lowest: float = LOWEST, offset: float = 0.008
    ) -> None:
        super().__init__()
        self.first = math.cos(offset / (1 + offset) * math.pi / 2)
        self.ends = [self._angle(highest), self._angle(lowest)]

    def _angle(self, log_snr: float) -> float:
        return math.acos(self.first / math.sqrt(1 + math.exp(-log_snr)))

    def _log_snr(self, t: Tensor) -> Tensor:
        angle = self.ends[0] + (self.ends[1] - self.ends[0]) * t
        return _from_log_alpha_bar(2 * (angle.cos() / self.first).log())


class Tabulated(Schedule):
    """Given levels at equal distances of time; straight lines in log-SNR between them.

    Args: falling log-SNRs [steps + 1], steps > 0, from t = 0 to t = 1.
    """

    levels: Tensor

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels.double())

    def _log_snr(self, t: Tensor) -> Tensor:
        place = t * (len(self.levels) - 1)
        below = place.detach().floor().long().clamp(0, len(self.levels) - 2)
        return torch.lerp(self.levels[below], self.levels[below + 1], place - below)

    def step_of(self, log_snr: Tensor) -> Tensor:
        """Where levels stand in the table, from 0 to its number of steps; the inverse, float64."""
        log_snr = log_snr.double()
        above = torch.searchsorted(-self.levels, -log_snr).clamp(1, len(self.levels) - 1)
        start, end = self.levels[above - 1], self.levels[above]
        return above - 1 + ((log_snr - start) / (end - start)).clamp(0, 1)


class DiscreteBetas(Tabulated):
    """The levels of DDPM with betas [T], T > 1.

    t = 0 is DDPM's level 1 and t = 1 its level T, so the T steps of a DDPM are T - 1 steps here,
    and the decoder is its last one.
    """

    def __init__(self, betas: Tensor) -> None:
        super().__init__(_from_log_alpha_bar(torch.log1p(-betas.double()).cumsum(0)))


def linear_betas(steps: int) -> Tensor:
    """DDPM's betas: from 1e-4 to 0.02 at 1000 steps, larger if they are fewer; float64 [steps].

    Ho et al. (2020), section 4.
    """
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


def cosine_betas(steps: int, offset: float = 0.008) -> Tensor:
    """Betas of the cosine schedule, clipped to 0.999 as there; float64 [steps].

    Nichol and Dhariwal (2021), equation 17.
    """
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bar = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


class Learned(Schedule):
    """A monotone log-SNR with learned end points (VDM, appendix H).

    As there, a line plus a network of one hidden layer with positive weights, made to run from
    0 to 1. The weight of the line is fixed, so that no parameters can make the whole flat.
    """

    def __init__(self, highest: float = HIGHEST, lowest: float = LOWEST, units: int = 64) -> None:
        super().__init__()
        self.lowest = nn.Parameter(torch.tensor(lowest))
        self.log_range = nn.Parameter(torch.tensor(math.log(highest - lowest)))
        self.shape = MonotoneShape(units)

    def _log_snr(self, t: Tensor) -> Tensor:
        return self.lowest + self.log_range.exp() * (1 - self.shape(t))


class MonotoneShape(nn.Module):
    """A rising function on [0, 1] from 0 to 1, close to the identity at first."""

    def __init__(self, units: int) -> None:
        super().__init__()
        slope = 2.0 * math.sqrt(units)
        self.slopes = nn.Parameter(torch.full((units,), slope))
        self.offsets = nn.Parameter(-slope * torch.linspace(0, 1, units))
        self.heights = nn.Parameter(torch.full((units,), math.log(math.expm1(1 / units))))

    def forward(self, t: Tensor) -> Tensor:
        zero, one = self._raw(torch.zeros_like(t)), self._raw(torch.ones_like(t))
        return (self._raw(t) - zero) / (one - zero)

    def _raw(self, t: Tensor) -> Tensor:
        hidden = torch.sigmoid(F.softplus(self.slopes) * t[..., None] + self.offsets)
        return t + (F.softplus(self.heights) * hidden).sum(-1)


def _from_log_alpha_bar(log_alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)), also where alpha_bar is close to 1."""
    return -torch.log(torch.expm1(-log_alpha_bar))
