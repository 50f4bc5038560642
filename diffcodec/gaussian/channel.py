"""Progressive lossy coding by reverse channel coding: samples of q at about their relative entropy.

Each step sends a sample of q(z_s | z_t, x) to a decoder that knows p(z_s | z_t) only (Ho et al.,
2020, algorithms 3 and 4; Theis et al., 2022: DiffC). Both sides have the same endless list of
samples of p. The encoder sends the number of one of them, chosen by the Poisson functional
representation (Li and El Gamal, 2018; Theis and Ahmed, 2022: algorithm 1), which makes it a sample
of q. As the search takes time exponential in the relative entropy, a picture's coefficients go in
blocks of about BLOCK_BITS each.

The relative entropy that decides the number of blocks must be known to the decoder: it is what the
model expects of a step, times how much the tile's earlier blocks have needed in comparison.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import Bits, Coder, Probabilities, quantise_probabilities
from diffcodec.exact import backends
from diffcodec.exact.cdf import QUANTILE_UNITS
from diffcodec.gaussian.chain import Chain, Moments
from diffcodec.gaussian.decoder import to_data

BLOCK_BITS = 11
"""Bits that a block aims at. Less makes the overhead of a number larger; with more, the candidates
there are do not suffice: at 14 the samples fell short of q by a quarter of a deviation (measured).
"""

LONGEST_BLOCK = 4096
"""Most coefficients of a block."""

_ROWS, _SIGNS = 1 << 13, 1 << 10
"""Rows of deviates, and choices of signs; their product is the number of candidates of a block."""

_ROW_STRIDE = 5063
"""Rows between the first ones of two blocks: odd, and about the golden section of all."""

_LARGEST_BATCH = 64
"""Choices of signs that are searched together."""

_REACH = 6.0
"""A search does not wait for candidates beyond so many deviations."""

_Z_UNITS = 1 << 16
"""z is a multiple of one over this."""

_EXPONENT_BITS = 5
"""Of the exponent of a number."""

_INCREMENT = 32
"""What a number that was coded adds to the frequency of its exponent."""

_PRIOR_COUNT = 400
"""What the likeliest exponent starts with."""

_PRIOR_BITS = 30.0
"""Bits for which a tile is taken to have needed what the model expected."""

_DEVIATES, _SIGN_BITS, _SHUFFLES, _TIMES = range(4)
"""Purposes of random numbers."""


class _Cut(Exception):
    """The coder's data ended inside a step."""


def walk(chain: Chain, tiles: list["Tile"], coder: Coder) -> Iterator[int]:
    """Take tiles down the chain, and yield the row of each milestone.

    Tiles with pixels are encoded, others decoded. The walk ends early where the coder's data do;
    some tiles are then a step ahead of the others.
    """
    codebook, numbers, serial = Codebook(chain.quantiles), Numbers(), 0
    for row, bits in zip(chain.milestones, chain.milestone_bits, strict=True):
        for tile in tiles:
            step = Step(chain, tile, row)
            blocks = tile.blocks(bits, serial)
            try:
                tile.z = step.send(blocks, serial, codebook, numbers, coder)
            except _Cut:
                return
            tile.row, serial = row, serial + len(blocks)
        yield row


@dataclass
class Tile:
    """What is known of a tile.

    Attributes:
        pixels: uint8 [C, H, W] where they are known, that is in an encoder.
        z, row: float64 [C, H, W], a sample of the chain at that row; none before the first step.
        ideal_bits: in an encoder, the relative entropy of all steps so far.
        needed, expected: bits of the numbers so far, and what the model expected of them.
    """

    shape: torch.Size
    pixels: Tensor | None = None
    z: Tensor | None = None
    row: int | None = None
    ideal_bits: float = 0.0
    needed: float = _PRIOR_BITS
    expected: float = _PRIOR_BITS

    def blocks(self, bits: float, serial: int) -> list[Tensor]:
        """Begin a step: the places of the coefficients of each of its blocks.

        Args: bits/dim that the model expects; the number of the first block. The coefficients are
        shuffled, so that blocks are alike.
        """
        count = math.prod(self.shape)
        likely = count * bits * self.needed / self.expected
        self.expected += count * bits
        number = max(1, round(likely / BLOCK_BITS), math.ceil(count / LONGEST_BLOCK))
        random = _random(_SHUFFLES, serial << 32).random_raw(count)
        return list(torch.from_numpy(random.argsort(kind="stable")).tensor_split(number))


class Step:
    """One step of one tile: p, and q where the pixels are known."""

    def __init__(self, chain: Chain, tile: Tile, row: int) -> None:
        self.tile = tile
        if tile.z is None or tile.row is None:
            z = x = torch.zeros(tile.shape, dtype=torch.float64)
            self.p, q = Moments(of_z=0, of_x=0, variance=1), chain.marginal(row)
        else:
            z, x = tile.z, chain.predict(tile.z[None], tile.row)[0]
            self.p, q = chain.reverse(tile.row, row), chain.posterior(tile.row, row)
        self.mean = self.p.mean(z, x).flatten()
        self.deviation = math.sqrt(self.p.variance)
        self.ratio = q.variance / self.p.variance
        self.shift = None
        if tile.pixels is not None:
            target = q.mean(z, to_data(tile.pixels).double()).flatten()
            self.shift = (target - self.mean) / self.deviation

    def send(
        self,
        blocks: list[Tensor],
        serial: int,
        codebook: "Codebook",
        numbers: "Numbers",
        coder: Coder,
    ) -> Tensor:
        """The sample that the decoder gets, block by block. Raises _Cut."""
        sample = torch.empty_like(self.mean)
        for number, places in enumerate(blocks, serial):
            chosen = None
            if self.shift is not None:
                shift = self.shift[places]
                self.tile.ideal_bits += relative_entropy(shift, self.ratio)
                chosen = codebook.search(number, shift, self.ratio)
            chosen = numbers.code(coder, chosen)
            self.tile.needed += exponent(chosen)
            deviates = codebook.candidate(number, chosen, len(places))
            sample[places] = self.mean[places] + self.deviation * deviates
        return (sample * _Z_UNITS).round().reshape(self.tile.shape) / _Z_UNITS


def relative_entropy(shift: Tensor, ratio: float) -> float:
    """KL(N(shift, ratio) || N(0, 1)) in bits, over independent coefficients [n]."""
    nats = 0.5 * (len(shift) * (ratio - 1 - math.log(ratio)) + float(shift.square().sum()))
    return nats / math.log(2)


class Codebook:
    """The samples of p that both sides share, in normal deviates.

    Candidate i of a block is row i % _ROWS of a fixed table of deviates, counted from a row of the
    block's own, under choice i // _ROWS of the block's random signs. So an encoder weighs many
    candidates by one product of matrices.
    """

    def __init__(self, quantiles: Tensor) -> None:
        self._quantiles = quantiles.numpy()
        self._device = backends.device()

    def candidate(self, block: int, number: int, length: int) -> Tensor:
        """Deviates float64 [length], multiples of one over QUANTILE_UNITS."""
        choice, row = divmod(number, _ROWS)
        row = (row + _first_row(block)) % _ROWS
        deviates = self._rows(row, 1)[0, :length] * self._signs(block, choice, 1, length)[0]
        return torch.from_numpy(deviates / float(QUANTILE_UNITS))

    def search(self, block: int, shift: Tensor, ratio: float) -> int:
        """The number of a candidate that is a sample of N(shift, ratio).

        The Poisson functional representation: candidate i arrives at the time T_i of a Poisson
        process, and the one with the least T_i p(z_i) / q(z_i) is chosen. An encoder may draw the
        times for itself. Among the _ROWS * _SIGNS candidates that there are, blocks of much more
        than BLOCK_BITS find an approximate sample only.
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
        times = np.random.Generator(_random(_TIMES, block << 32))
        best, chosen, now, choice, batch = math.inf, 0, 0.0, 0, 1
        while choice < _SIGNS and (choice == 0 or math.log(now) - most < best):
            signs = torch.from_numpy(self._signs(block, choice, batch, length)).to(linear)
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
        raw = _random(_DEVIATES, first * LONGEST_BLOCK // 16).random_raw(count * LONGEST_BLOCK // 4)
        numbers = raw.astype("<u8").view("<u2")
        deviates = self._quantiles[numbers >> 1]
        return np.where(numbers & 1, -deviates, deviates).reshape(count, LONGEST_BLOCK)

    def _signs(self, block: int, first: int, count: int, length: int) -> NDArray[np.int8]:
        """Choices of signs for a block, [count, length]."""
        words = math.ceil(length / 256) * 4
        raw = _random(_SIGN_BITS, (block << 32) + first * words // 4).random_raw(count * words)
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8).reshape(count, -1), axis=1)
        return 1 - 2 * bits[:, :length].astype(np.int8)


class Numbers:
    """Codes the numbers of candidates: the exponent by its frequency so far, then plain bits.

    The Zipf distribution of Li and El Gamal (2018) knows the mean of the logarithm only; blocks
    that are alike have logarithms in a narrower range.
    """

    def __init__(self) -> None:
        # At first a bell around BLOCK_BITS, in integers, as both sides must have the same.
        distance = np.arange(1 << _EXPONENT_BITS) - BLOCK_BITS
        self._counts = 1 + _PRIOR_COUNT * 8**4 // (8**4 + distance**4)

    def code(self, coder: Coder, number: int | None) -> int:
        """Pass a number through the coder; raises _Cut where its data end."""
        value = None if number is None else number + 1
        sent = None if number is None else exponent(number)
        first, width = 0, len(self._counts)
        while width > 1:
            width //= 2
            upper = self._counts[first + width : first + 2 * width].sum()
            whole = self._counts[first : first + 2 * width].sum()
            chance = quantise_probabilities(np.array([upper]), np.array([whole]))
            truth = None if sent is None else np.array([sent - first >= width], np.int32)
            first += width * int(_code(coder, chance, truth)[0])
        self._counts[first] += _INCREMENT
        places = np.arange(first)[::-1]
        bits = None if value is None else (value >> places & 1).astype(np.int32)
        bits = _code(coder, np.full(first, 0.5), bits)
        return (1 << first) + int((bits.astype(np.int64) << places).sum()) - 1


def _first_row(block: int) -> int:
    """Blocks that find their candidate early must not all find it in the same rows."""
    return block * _ROW_STRIDE % _ROWS


def exponent(number: int) -> int:
    """The exponent of number + 1."""
    return (number + 1).bit_length() - 1


def _code(coder: Coder, probabilities: Probabilities, truth: Bits | None) -> Bits:
    bits = coder.code(probabilities, truth)
    if len(bits) < len(probabilities):
        raise _Cut
    return bits


def _random(purpose: int, counter: int) -> np.random.Philox:
    """A counter-based generator (Salmon et al., 2011) at a place of the stream for a purpose.

    Its raw output is the same on every machine.
    """
    return np.random.Philox(key=purpose, counter=counter)
