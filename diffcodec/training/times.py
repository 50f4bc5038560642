"""Which times a batch is trained or measured at."""

import torch
from torch import Tensor, nn

UNIFORM_SHARE = 0.1
"""The share of importance sampling that stays uniform, so that no weight exceeds ten."""

MEMORY = 0.05
"""What a new batch counts for a bin at least; the first ones count more."""


def low_discrepancy(count: int, generator: torch.Generator) -> Tensor:
    """Times in [0, 1), one in each of `count` equal strata, from one random number.

    Each of them is uniform, so a mean over them is unbiased, with less variance (VDM, appendix I).
    """
    place = generator.device
    return (
        torch.rand((), generator=generator, device=place) + torch.arange(count, device=place)
    ) / count


class ImportanceTimes(nn.Module):
    """Times with a density like the root of the losses' second moment, learned on the way.

    Nichol and Dhariwal (2021), section 3.3; here for continuous times, in equal bins, with a
    moving average for their history, and low-discrepancy numbers behind it. A bin that no time
    has fallen into yet is taken for an average one.
    """

    second_moments: Tensor
    visits: Tensor

    def __init__(self, bins: int = 64) -> None:
        super().__init__()
        self.register_buffer("second_moments", torch.zeros(bins))
        self.register_buffer("visits", torch.zeros(bins))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Times [count] in [0, 1), and weights under which a mean of losses is unbiased."""
        odds = self._odds()
        edges = odds.cumsum(0) / odds.sum()
        place = low_discrepancy(count, generator)
        bins = torch.searchsorted(edges, place, right=True).clamp(max=len(odds) - 1)
        inside = (place - edges[bins]) / odds[bins] + 1
        times = (bins + inside.clamp(0, 1)) / len(odds)
        return times.clamp(max=1 - 2**-24), 1 / (len(odds) * odds[bins])

    @torch.no_grad()
    def update(self, times: Tensor, losses: Tensor) -> None:
        """Learn from the losses [N], without weights, at times [N]."""
        bins = (times * len(self.second_moments)).long()
        squares = torch.zeros_like(self.second_moments).index_add(0, bins, losses.float().square())
        counts = torch.zeros_like(squares).index_add(0, bins, torch.ones_like(times).float())
        seen = (counts > 0).float()
        memory = seen * (1 / (1 + self.visits)).clamp(min=MEMORY)
        self.second_moments.lerp_(squares / counts.clamp(min=1), memory)
        self.visits += seen

    def _odds(self) -> Tensor:
        """The probability of each bin."""
        seen = self.visits > 0
        average = self.second_moments.sum() / seen.sum().clamp(min=1)
        odds = torch.where(seen, self.second_moments, average).clamp(min=1e-12).sqrt()
        return (1 - UNIFORM_SHARE) * odds / odds.sum() + UNIFORM_SHARE / len(odds)
