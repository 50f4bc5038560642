"""Progressive lossy coding by reverse channel coding: samples of q at about their relative entropy.

Each step sends a sample of q(z_s | z_t, x) to a decoder that knows p(z_s | z_t) only (Ho et al.,
2020, algorithms 3 and 4; Theis et al., 2022: DiffC). Both sides have the same candidates, and the
encoder sends the numbers of those that it chooses (`choices`). As a choice takes candidates
exponential in the relative entropy, a tile's coefficients go in blocks, each with a candidate of
its own. How many blocks there are is coded first, around what the model expects of the step, times
how much the tile has needed so far in comparison.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from diffcodec.entropy import Coder
from diffcodec.gaussian.chain import Chain, Moments
from diffcodec.gaussian.choices import BEST, Choice, Cut, code_count
from diffcodec.gaussian.codebook import LONGEST_BLOCK, Block, Codebook, shuffled
from diffcodec.gaussian.decoder import to_data

BATCH = 16
"""Tiles that pass through the network together."""

_Z_UNITS = 1 << 16
"""z is a multiple of one over this."""

_PRIOR_BITS = 30.0
"""Bits for which a tile is taken to have needed what the model expected."""


@dataclass(frozen=True)
class Tile:
    """What is known of a tile.

    Attributes:
        pixels: uint8 [C, H, W] where they are known, that is in an encoder.
        z, row: float64 [C, H, W], a sample of the chain at that row; none before the first step.
        x: E[x | z], float64, once it has been asked for.
        ideal_bits: in an encoder, the relative entropy of all steps so far.
        needed, expected: relative entropy that the blocks so far stand for, and what the model
            expected of it.
    """

    shape: torch.Size
    pixels: Tensor | None = None
    z: Tensor | None = None
    row: int | None = None
    x: Tensor | None = None
    ideal_bits: float = 0.0
    needed: float = _PRIOR_BITS
    expected: float = _PRIOR_BITS


def walk(chain: Chain, tiles: list[Tile], coder: Coder, choice: Choice = BEST) -> Iterator[int]:
    """Take tiles down the chain, in place, and yield the row of each milestone.

    Tiles with pixels are encoded, others decoded. The walk ends early where the coder's data do;
    some tiles are then a step ahead of the others. Another walk goes on where one has ended.
    """
    codebook = Codebook(chain.quantiles)
    for row, bits in zip(chain.milestones, chain.milestone_bits, strict=True):
        behind = [n for n, tile in enumerate(tiles) if tile.row is None or tile.row > row]
        for start in range(0, len(behind), BATCH):
            several = behind[start : start + BATCH]
            expect(chain, tiles, several)
            for number in several:
                step = Step(chain, tiles[number], row)
                try:
                    tiles[number] = step.take(codebook, coder, choice, bits, number)
                except Cut:
                    return
        yield row


def expect(chain: Chain, tiles: list[Tile], numbers: Sequence[int] | None = None) -> None:
    """Find x of the tiles with these numbers, or of all, that have a z; in place."""
    numbers = range(len(tiles)) if numbers is None else numbers
    lacking = (n for n in numbers if tiles[n].x is None and tiles[n].row is not None)
    for (_, row), alike in groupby(lacking, lambda n: (tiles[n].shape, tiles[n].row or 0)):
        several = list(alike)
        for start in range(0, len(several), BATCH):
            some = several[start : start + BATCH]
            z = [known for number in some if (known := tiles[number].z) is not None]
            for number, x in zip(some, chain.predict(torch.stack(z), row), strict=True):
                tiles[number] = replace(tiles[number], x=x)


class Step:
    """One step of a tile, whose x is known if it has a z: p, and q where the pixels are."""

    def __init__(self, chain: Chain, tile: Tile, row: int) -> None:
        self.table, self.tile, self.row = chain.table, tile, row
        if tile.z is None or tile.x is None or tile.row is None:
            z = x = torch.zeros(tile.shape, dtype=torch.float64)
            p, q = Moments(of_z=0, of_x=0, variance=1), chain.marginal(row)
        else:
            z, x = tile.z, tile.x
            p, q = chain.reverse(tile.row, row), chain.posterior(tile.row, row)
        self.mean = p.mean(z, x).flatten()
        self.deviation = math.sqrt(p.variance)
        self.ratio = q.variance / p.variance
        self.shift = None
        if tile.pixels is not None:
            target = q.mean(z, to_data(tile.pixels).double()).flatten()
            self.shift = (target - self.mean) / self.deviation

    def take(
        self, codebook: Codebook, coder: Coder, choice: Choice, bits: float, number: int
    ) -> Tile:
        """The tile after the step. Raises Cut.

        Args: bits/dim that the model expects of the step; the number of the tile. The coefficients
        are shuffled, so that blocks are alike.
        """
        size, ideal, count = len(self.mean), 0.0, None
        if self.shift is not None:
            ideal = relative_entropy(self.shift, self.ratio)
            count = choice.count(ideal)
        likely = size * bits * self.tile.needed / self.tile.expected
        count = code_count(coder, self.table, likely / choice.bits, count)
        places = shuffled(self.row, number, size).tensor_split(
            max(count, math.ceil(size / LONGEST_BLOCK))
        )
        blocks = [Block(self.row, number, n) for n in range(len(places))]
        candidates = [0] * len(blocks)  # without a block nothing is sent
        if count:
            shifts = None if self.shift is None else [self.shift[place] for place in places]
            candidates = choice.code(coder, self.table, codebook, blocks, shifts, self.ratio)
        deviation = self.deviation * choice.spread(self.ratio)
        sample = torch.empty_like(self.mean)
        for block, place, candidate in zip(blocks, places, candidates, strict=True):
            deviates = codebook.candidate(block, candidate, len(place))
            sample[place] = self.mean[place] + deviation * deviates
        return replace(
            self.tile,
            z=(sample * _Z_UNITS).round().reshape(self.tile.shape) / _Z_UNITS,
            row=self.row,
            x=None,
            ideal_bits=self.tile.ideal_bits + ideal,
            needed=self.tile.needed + count * choice.bits,
            expected=self.tile.expected + size * bits,
        )


def relative_entropy(shift: Tensor, ratio: float) -> float:
    """KL(N(shift, ratio) || N(0, 1)) in bits, over independent coefficients [n]."""
    nats = 0.5 * (len(shift) * (ratio - 1 - math.log(ratio)) + float(shift.square().sum()))
    return nats / math.log(2)
