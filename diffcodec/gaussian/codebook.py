"""The samples that both sides of reverse channel coding share, and the choice of one of them.

They are normal deviates, numbered for each block. A candidate is a row of a fixed table of
deviates under a choice of the block's own random signs. So an encoder weighs many candidates by
one product of matrices, and a decoder makes none but those that were chosen.
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.exact import backends
from diffcodec.exact.cdf import QUANTILE_UNITS

LONGEST_BLOCK = 4096
"""Most coefficients of a block."""

BEST_OF = 1 << 16
"""Candidates of which `Codebook.best` takes the best."""

_ROWS, _SIGNS = 1 << 11, 1 << 12
"""Rows of deviates, and choices of signs; their product is the number of candidates of a block."""

_LARGEST_BATCH = 64
"""Choices of signs that are searched together."""

_REACH = 6.0
"""A search does not wait for candidates beyond so many deviations."""

_DEVIATES, _FIRST_ROWS, _SIGN_BITS, _SHUFFLES, _TIMES = range(5)
"""Purposes of random numbers."""


class Block(NamedTuple):
    """What the random numbers of a block are for: a row of the chain, a tile, a block of it."""

    row: int
    tile: int
    number: int


def shuffled(row: int, tile: int, count: int) -> Tensor:
    """The order in which the coefficients of a tile go into blocks, int64 [count]."""
    random = _random(_SHUFFLES, Block(row, tile, 0)).random_raw(count)
    return torch.from_numpy(random.argsort(kind="stable"))


class Codebook:
    """The candidates of all blocks.

    Args: the quantiles of a model's file.
    """

    def __init__(self, quantiles: Tensor) -> None:
        self._quantiles = quantiles.numpy()
        self._device = backends.device()

    def candidate(self, block: Block, number: int, length: int) -> Tensor:
        """Deviates float64 [length], multiples of one over QUANTILE_UNITS."""
        choice, row = divmod(number, _ROWS)
        row = (row + _first_row(block)) % _ROWS
        deviates = self._rows(row, 1)[0, :length] * _signs(block, choice, 1, length)[0]
        return torch.from_numpy(deviates / float(QUANTILE_UNITS))

    def best(self, blocks: list[Block], targets: Tensor) -> list[int]:
        """The numbers of the candidates that lie farthest in the directions of the targets.

        Of the first BEST_OF of each block, these have the greatest densities under normal
        distributions around the targets. Args: targets float64 [blocks, length], which end with
        zeros where a block is shorter.
        """
        length, choices = targets.shape[1], BEST_OF // _ROWS
        signs = np.stack([_signs(block, 0, choices, length) for block in blocks])
        directions = targets.float().to(self._device)[:, None]
        directions = directions * torch.from_numpy(signs).to(directions)
        products = directions.flatten(0, 1) @ self._table[:, :length].T
        found = products.reshape(len(blocks), -1).argmax(1).tolist()
        return [
            place - place % _ROWS + (place - _first_row(block)) % _ROWS
            for block, place in zip(blocks, found, strict=True)
        ]

    def sample(self, block: Block, shift: Tensor, ratio: float) -> int:
        """The number of a candidate that is a sample of N(shift, ratio).

        The Poisson functional representation: candidate i arrives at the time T_i of a Poisson
        process, and the one with the least T_i p(z_i) / q(z_i) is chosen. An encoder may draw the
        times for itself. Among the _ROWS * _SIGNS candidates that there are, blocks of more than
        some 20 bits find an approximate sample only.
        """
        length = len(shift)
        table = self._table[:, :length]
        linear = (shift / ratio).float().to(self._device)
        bend = (1 / ratio - 1) / 2
        constant = -(length * math.log(ratio) + float(shift.square().sum()) / ratio) / 2
        penalty = constant - bend * table.square().sum(1)
        # No candidate that one could wait for has a log density ratio above this.
        most = constant + _REACH * float(linear.norm())
        most -= bend * max(0.0, length - _REACH * math.sqrt(2 * length))
        times = np.random.Generator(_random(_TIMES, block))
        best, chosen, now, choice, batch = math.inf, 0, 0.0, 0, 1
        while choice < _SIGNS and (choice == 0 or math.log(now) - most < best):
            signs = torch.from_numpy(_signs(block, choice, batch, length)).to(linear)
            ratios = (signs * linear) @ table.T + penalty
            ratios = ratios.roll(-_first_row(block), 1).flatten()
            enough = math.log(now) - best if choice else -math.inf
            hits = (ratios > enough).nonzero()[:, 0]
            gaps = hits.diff(prepend=hits.new_full((1,), -1)).cpu().numpy()
            if len(hits):
                arrivals = now + times.standard_gamma(gaps).cumsum()
                scores = np.log(arrivals) - ratios[hits].double().cpu().numpy()
                least = int(scores.argmin())
                if scores[least] < best:
                    best, chosen = float(scores[least]), choice * _ROWS + int(hits[least])
            now += batch * _ROWS
            choice += batch
            batch = min(choice, _LARGEST_BATCH)
        return chosen

    @cached_property
    def _table(self) -> Tensor:
        """All rows, float32 [_ROWS, LONGEST_BLOCK]."""
        return torch.from_numpy(self._rows(0, _ROWS) / np.float32(QUANTILE_UNITS)).to(self._device)

    def _rows(self, first: int, count: int) -> NDArray[np.int16]:
        """Rows of the table, in QUANTILE_UNITS."""
        place = Block(0, 0, 0)
        random = _random(_DEVIATES, place, first * LONGEST_BLOCK // 16)
        raw = random.random_raw(count * LONGEST_BLOCK // 4)
        numbers = raw.astype("<u8").view("<u2")
        deviates = self._quantiles[numbers >> 1]
        return np.where(numbers & 1, -deviates, deviates).reshape(count, LONGEST_BLOCK)


def _first_row(block: Block) -> int:
    """Blocks that find their candidate early must not all find it in the same rows."""
    return int(_random(_FIRST_ROWS, block).random_raw()) % _ROWS


def _signs(block: Block, first: int, count: int, length: int) -> NDArray[np.int8]:
    """Choices of signs for a block, [count, length]."""
    words = math.ceil(length / 256) * 4
    raw = _random(_SIGN_BITS, block, first * words // 4).random_raw(count * words)
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8).reshape(count, -1), axis=1)
    return 1 - 2 * bits[:, :length].astype(np.int8)


def _random(purpose: int, block: Block, place: int = 0) -> np.random.Philox:
    """A counter-based generator (Salmon et al., 2011) for a purpose, at a place of its stream.

    Its raw output is the same on every machine.
    """
    counter = np.array([place, block.number, block.tile, block.row], np.uint64)
    return np.random.Philox(key=purpose, counter=counter)
