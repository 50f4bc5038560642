"""The ladder: which coefficients each step refines, and from which plane to which.

Everything that both sides must agree on about the order of the stream is data in this module.
A rung is a noise level; a step is one rung at one level of the wavelet. A band's plane at rung k
is k minus its rounded log2 synthesis norm, so that the error which a rung leaves is about white
in the pixels (design, sections 2 and 3).
"""

import math
from dataclasses import dataclass

LEVELS = 5
"""Levels of the wavelet for all but small images."""

LOW = LEVELS + 1
"""The level index under which the low band of the coarsest level is coded."""

DEPTH = 8
"""Bits per sample of the pictures that the networks are trained on."""

TOP_RUNG = 18
"""A rung at which every coefficient of every picture of that depth is still in its zero cell."""

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

# L2 norms of the synthesis basis vectors of the 5/3 wavelet, by level (from 1; LL from 0), and
# of the columns of the inverse YCoCg-R transform.
_DETAIL_NORMS = ((1.038, 0.7186), (1.592, 0.9218), (2.919, 1.586), (5.703, 3.043), (11.33, 6.019))
_LOW_NORMS = (1.0, 1.5, 2.75, 5.375, 10.68, 21.34)
_COLOUR_NORMS = (1.732, 0.707, 0.866)


@dataclass(frozen=True)
class Step:
    """One reverse step: `rung` refines the coefficients of `level` (LOW: the low band).

    `deeper` is how many bits the samples of the picture have beyond DEPTH.
    """

    rung: int
    level: int
    deeper: int = 0

    @property
    def twin(self) -> int:
        """The rung of the same noise, against the range of the samples, at DEPTH bits.

        Below it there is none; there the finest rung stands in.
        """
        return max(self.rung - self.deeper, LAST_RUNG) if self.rung > FINISH else FINISH

    @property
    def index(self) -> tuple[int, int]:
        """Rows of the rung and of the level in the network's embedding tables."""
        return min(self.twin, HIGHEST_TRAINED_RUNG) - FINISH, self.level - 1


def levels(height: int, width: int) -> int:
    """Levels of the wavelet for an image of this size: LEVELS, or fewer if it is small."""
    return min(LEVELS, (max(height, width) - 1).bit_length())


def steps(levels: int, depth: int = DEPTH) -> list[Step]:
    """All steps of the chain in the order of the stream: rungs downwards, levels coarse to fine."""
    order, deeper = [LOW, *range(levels, 0, -1)], depth - DEPTH
    rungs = range(TOP_RUNG + deeper - 1, FINISH - 1, -1)
    return [Step(rung, level, deeper) for rung in rungs for level in order]


def planes(rung: int, level: int, levels: int) -> list[int]:
    """Planes of the channels of a level once `rung` is done; a cell is 2^plane wide.

    For level LOW only channels 0, 3 and 6 exist (Y, Co, Cg of the low band after `levels`
    levels); the others repeat them.
    """
    if rung == FINISH:
        return [0] * CHANNELS
    if level == LOW:
        norms = [_LOW_NORMS[levels]] * 3
    else:
        side, diagonal = _DETAIL_NORMS[level - 1]
        norms = [side, side, diagonal]
    return [
        max(0, rung - round(math.log2(colour * norm))) for colour in _COLOUR_NORMS for norm in norms
    ]


def low_planes(rung: int, level: int) -> list[int]:
    """Planes that describe the error of the low band (Y, Co, Cg) of `level` at `rung`."""
    return planes(rung, LOW, level)[::3]


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
