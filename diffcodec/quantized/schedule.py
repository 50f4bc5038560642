"""The order of the chain: rungs, levels and phases.

A rung is a noise level; a step is one rung at one level of the pyramid; a phase is a part of a step
whose coefficients are coded together. How wide cells are at a rung is the ladder's to say.
"""

from dataclasses import dataclass

LEVELS = 5
"""Levels of the pyramid for all but small images."""

LOW = LEVELS + 1
"""The level index under which the low band of the coarsest level is coded."""

DEPTH = 8
"""Bits per sample of the pictures that the networks are trained on."""

MAX_DEPTH = 16
"""Most bits per sample."""

TOP_RUNG = 18
"""A rung at which every coefficient of every picture of DEPTH is still in its zero cell."""

LAST_RUNG = 2
"""The finest rung; the finish that follows takes every coefficient to its exact value."""

FINISH = LAST_RUNG - 1
"""The rung number of the finish."""

HIGHEST_TRAINED_RUNG = 12
"""Rungs above this one are too rare to train; they borrow its embedding."""

RUNGS = HIGHEST_TRAINED_RUNG - FINISH + 1
"""Number of rung embeddings: the finish and the trained rungs."""

CHANNELS = 9
"""Channels of a level: HL, LH, HH of Y, then of Co, then of Cg."""


@dataclass(frozen=True)
class Step:
    """One reverse step: `rung` refines the coefficients of `level` (LOW: the low band).

    `extra_bits` is how many bits the samples of the picture have beyond DEPTH.
    """

    rung: int
    level: int
    extra_bits: int = 0

    @property
    def rung_at_8_bits(self) -> int:
        """The rung of the same noise, against the range of the samples, at DEPTH bits.

        Below it there is none; there the finest rung stands in.
        """
        return max(self.rung - self.extra_bits, LAST_RUNG) if self.rung > FINISH else FINISH


def steps(levels: int, depth: int = DEPTH) -> list[Step]:
    """All steps of the chain in the order of the stream: rungs downwards, levels coarse to fine."""
    order, extra_bits = [LOW, *range(levels, 0, -1)], depth - DEPTH
    rungs = range(TOP_RUNG + extra_bits - 1, FINISH - 1, -1)
    return [Step(rung, level, extra_bits) for rung in rungs for level in order]


@dataclass(frozen=True)
class Phase:
    """A part of a step whose coefficients are coded together, given all earlier phases.

    `colour` is 0, 1, 2 for Y, Co, Cg; `parity` picks the positions with (row + column) % 2 of
    that value. Inside a step the phases follow each other, so that each sees its neighbours.
    """

    colour: int
    parity: int

    @property
    def channels(self) -> slice:
        """The three channels that the phase codes."""
        return slice(3 * self.colour, 3 * self.colour + 3)

    @property
    def known(self) -> int:
        """How many leading channels earlier phases have refined, at least in part."""
        return 3 * (self.colour + self.parity)


PHASES = tuple(Phase(colour, parity) for colour in range(3) for parity in range(2))


def phases(colours: int) -> list[tuple[int, Phase]]:
    """The phases of a step with their numbers; grey pictures have none of colour."""
    return [(number, phase) for number, phase in enumerate(PHASES) if phase.colour < colours]
