"""Integers under Gaussians, as the binary decisions that an entropy coder takes.

A symbol k stands for the interval (k - 1/2, k + 1/2). It is found by halving a window of symbols,
the upper half being a 1; the probabilities come from the integer table of the CDF.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import (
    STACK_PROBABILITY_BITS,
    Bits,
    Probabilities,
    Stack,
    quantise_probabilities,
)
from diffcodec.errors import CorruptError
from diffcodec.exact.cdf import CdfTable

Symbols = NDArray[np.int64]


@dataclass(frozen=True)
class Discretised:
    """Independent Gaussians over symbols.

    Attributes:
        table: the integer CDF.
        mean, scale: float64 [n], and one scale for all.
        halvings: the window holds 2^halvings symbols.
        first: where a window begins that holds all symbols there are: the outer ones have the
            Gaussian's tails too. Else it lies around the mean, so wide that nothing is left
            beyond it.
    """

    table: CdfTable
    mean: Tensor
    scale: float
    halvings: int
    first: int | None = None

    def push(self, stack: Stack, symbols: Symbols) -> None:
        """Push symbols [n]; raises as `bits` does."""
        truth = self.bits(symbols)
        decisions: list[Probabilities] = []

        def code(probabilities: Probabilities) -> Bits:
            decisions.append(probabilities)
            return truth[len(decisions) - 1]

        self.descend(code)
        for bits, probabilities in zip(reversed(truth), reversed(decisions), strict=True):
            stack.push(bits, probabilities)

    def pop(self, stack: Stack) -> Symbols:
        """Pop what `push` has pushed, or draw symbols [n] from the bits that are there."""
        return self.descend(stack.pop)

    def bits(self, symbols: Symbols) -> list[Bits]:
        """The decisions that lead to symbols [n], each in its window.

        Raises CorruptError if one is not: nothing but a damaged stream leads there.
        """
        offsets = symbols - self._window()
        if offsets.min() < 0 or offsets.max() >> self.halvings:
            raise CorruptError("The stream is corrupt.")
        places = reversed(range(self.halvings))
        return [(offsets >> place & 1).astype(np.int32) for place in places]

    def _window(self) -> Symbols:
        if self.first is not None:
            return np.full(len(self.mean), self.first)
        return self.mean.round().long().numpy() - (1 << self.halvings - 1)

    def descend(self, code: Callable[[Probabilities], Bits]) -> Symbols:
        """Halve the windows, and return the symbols [n] that the decisions lead to.

        `code` takes the probabilities that each is in the upper half, and returns the decisions.
        """
        first, width = self._window(), 1 << self.halvings
        if self.first is not None:
            below, above = np.zeros_like(first), np.full_like(first, self.table.total)
        else:
            below, above = self._cdf(first), self._cdf(first + width)
        while width > 1:
            width //= 2
            middle = self._cdf(first + width)
            share = quantise_probabilities(above - middle, above - below, STACK_PROBABILITY_BITS)
            upper = code(share) == 1
            first = first + width * upper
            below, above = np.where(upper, middle, below), np.where(upper, above, middle)
        return first

    def _cdf(self, symbols: Symbols) -> Symbols:
        """2^30 times the CDF at the lower edges of symbols."""
        edges = torch.from_numpy(symbols).float() - 0.5
        return self.table.at_deviations((edges - self.mean) / self.scale).numpy()
