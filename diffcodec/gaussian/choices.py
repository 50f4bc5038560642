"""The two ways to choose candidates in reverse channel coding, and how their numbers are coded."""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from diffcodec.entropy import Bits, Coder, Probabilities
from diffcodec.exact.cdf import CdfTable
from diffcodec.gaussian.codebook import BEST_OF, Block, Codebook
from diffcodec.gaussian.symbols import Discretised, Symbols

_COUNT_HALVINGS = 12
"""Of the window of the number of blocks."""

_COUNT_DEVIATIONS = 0.5, 0.125
"""That of the number of blocks from the expected one: a constant and a share of it."""

_EXPONENT_HALVINGS, _EXPONENT_DEVIATION = 5, 5.5
"""Window and deviation of the exponents of the numbers of exact candidates."""


class Cut(Exception):
    """The coder's data ended inside a step."""


class Choice(Protocol):
    """A way to choose candidates.

    Attributes:
        bits: the relative entropy of a block.
    """

    bits: float

    def count(self, ideal: float) -> int:
        """The number of blocks of a step with so many bits of relative entropy."""
        ...

    def spread(self, ratio: float) -> float:
        """The deviation of candidates, in that of p; `ratio` is q's variance over p's."""
        ...

    def code(
        self,
        coder: Coder,
        table: CdfTable,
        codebook: Codebook,
        blocks: list[Block],
        shifts: list[Tensor] | None,
        ratio: float,
    ) -> list[int]:
        """Pass the numbers of the candidates of blocks, one or more, through a coder.

        Args: the distance of q's mean from p's in each block, in deviations of p, where it is
        known, that is in an encoder. Raises Cut.
        """
        ...


class Best:
    """The best of BEST_OF candidates, for all blocks in one product of matrices.

    Candidates have q's deviation around p's mean. The best one lies as far in the direction of q's
    mean as a sample of q would, but always so: it is no sample of q. With more bits to a block it
    would fall short, with less bits are wasted: 13 gave the least error at equal rates (measured).
    """

    bits = 13.0

    def count(self, ideal: float) -> int:
        """As `Choice.count`: none, where nothing is worth a block."""
        return min(round(ideal / self.bits), (1 << _COUNT_HALVINGS) - 1)

    def spread(self, ratio: float) -> float:
        """As `Choice.spread`."""
        return math.sqrt(ratio)

    def code(
        self,
        coder: Coder,
        table: CdfTable,
        codebook: Codebook,
        blocks: list[Block],
        shifts: list[Tensor] | None,
        ratio: float,
    ) -> list[int]:
        """As `Choice.code`: plain bits."""
        places, truth = np.arange(BEST_OF.bit_length() - 1)[::-1], None
        if shifts is not None:
            found = np.array(codebook.best(blocks, pad_sequence(shifts, batch_first=True)))
            truth = (found[:, None] >> places & 1).astype(np.int32).ravel()
        bits = _code(coder, np.full(len(blocks) * len(places), 0.5), truth)
        numbers: list[int] = (bits.reshape(len(blocks), -1).astype(int) << places).sum(1).tolist()
        return numbers


class Sample:
    """A sample of q in each block, by the Poisson functional representation.

    Its number has about the relative entropy in bits; with more than eleven of them to a block the
    candidates that there are do not suffice for all blocks.
    """

    bits = 11.0

    def count(self, ideal: float) -> int:
        """As `Choice.count`."""
        return min(max(1, math.ceil(ideal / self.bits)), (1 << _COUNT_HALVINGS) - 1)

    def spread(self, ratio: float) -> float:
        """As `Choice.spread`: candidates are samples of p."""
        return 1.0

    def code(
        self,
        coder: Coder,
        table: CdfTable,
        codebook: Codebook,
        blocks: list[Block],
        shifts: list[Tensor] | None,
        ratio: float,
    ) -> list[int]:
        """As `Choice.code`: the exponents of numbers + 1, then the other bits as they are."""
        values = exponents = None
        if shifts is not None:
            pairs = zip(blocks, shifts, strict=True)
            values = np.array([codebook.sample(block, shift, ratio) + 1 for block, shift in pairs])
            exponents = np.frexp(values)[1].astype(np.int64) - 1
        mean = torch.full((len(blocks),), self.bits, dtype=torch.float64)
        model = Discretised(table, mean, _EXPONENT_DEVIATION, _EXPONENT_HALVINGS, first=0)
        exponents = _code_symbols(coder, model, exponents)
        places = np.concatenate([np.arange(exponent)[::-1] for exponent in exponents])
        truth = None
        if values is not None:
            truth = (np.repeat(values, exponents) >> places & 1).astype(np.int32)
        bits = _code(coder, np.full(len(places), 0.5), truth)
        parts = np.split(bits.astype(int) << places, exponents.cumsum()[:-1])
        return [
            (1 << exponent) + int(part.sum()) - 1
            for exponent, part in zip(exponents.tolist(), parts, strict=True)
        ]


BEST, SAMPLE = Best(), Sample()


def code_count(coder: Coder, table: CdfTable, expected: float, count: int | None) -> int:
    """Pass a number of blocks through a coder, as an integer under a Gaussian. Raises Cut."""
    mean = torch.tensor([expected], dtype=torch.float64)
    constant, share = _COUNT_DEVIATIONS
    model = Discretised(table, mean, constant + share * expected, _COUNT_HALVINGS, first=0)
    return int(_code_symbols(coder, model, None if count is None else np.array([count]))[0])


def _code_symbols(coder: Coder, model: Discretised, symbols: Symbols | None) -> Symbols:
    truth = None if symbols is None else iter(model.bits(symbols))
    return model.descend(
        lambda chances: _code(coder, chances, None if truth is None else next(truth))
    )


def _code(coder: Coder, probabilities: Probabilities, truth: Bits | None) -> Bits:
    bits = coder.code(probabilities, truth)
    if len(bits) < len(probabilities):
        raise Cut
    return bits
