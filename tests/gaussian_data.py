"""White Gaussian data, for which the best denoiser is linear and everything is known."""

import math

import torch

from diffcodec.exact.cdf import THIN_TAIL, CdfTable, quantiles
from diffcodec.gaussian.chain import Chain
from diffcodec.gaussian.process import alpha, sigma
from diffcodec.training.gaussian import milestones

DEVIATION = 12.0
"""Of the pixels, around mid-grey."""

ENTROPY = math.log2(DEVIATION * math.sqrt(2 * math.pi * math.e))
"""Of a pixel, in bits."""


class LinearChain(Chain):
    """A chain whose network is the best denoiser, in floats."""

    def __init__(self, steps: int, highest: float = 11.0, lowest: float = -5.0) -> None:
        log_snrs = torch.linspace(highest, lowest, steps + 1, dtype=torch.float64)
        self.steps, self.side, self.id = steps, 8, b"test"
        self.alpha, self.sigma = alpha(log_snrs).tolist(), sigma(log_snrs).tolist()
        self.deviation = DEVIATION / 128
        signal = self.deviation**2 * log_snrs.exp()
        errors = signal / (1 + signal)
        self.error = errors.tolist()
        self.table, self.quantiles = CdfTable.gaussian(THIN_TAIL), quantiles()
        rows, bits = milestones((0.5 * log_snrs).exp(), errors, self.information(steps))
        self.milestones, self.milestone_bits = rows.tolist(), bits.tolist()

    def predict(self, z, row):
        signal = self.alpha[row] ** 2 * self.deviation**2
        return self.alpha[row] * self.deviation**2 / (signal + self.sigma[row] ** 2) * z

    def information(self, row: int) -> float:
        """That z has about x at a row, in bits/dim."""
        return 0.5 * math.log2(1 + (self.deviation * self.alpha[row] / self.sigma[row]) ** 2)


def pictures(count, *shape, seed=0):
    """Pixels uint8 [count, *shape] of the data."""
    generator = torch.Generator().manual_seed(seed)
    values = 127.5 + DEVIATION * torch.randn((count, *shape), generator=generator)
    return values.round().clamp(0, 255).to(torch.uint8)
