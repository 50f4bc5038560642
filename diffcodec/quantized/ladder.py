"""The ladder: how wide the cell of each coefficient is at each rung.

It is a table of integers in the model file, so which ladder a stream follows is data. `white` makes
the tables: a band's plane at a rung is the rung less the rounded log2 of its synthesis norm, so
that the error which a rung leaves is about white in the pixels (design, section 3); and levels,
bands or colours can come later or earlier than that, as the eye prefers (design, section 5).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.quantized.schedule import (
    CHANNELS,
    DEPTH,
    FINISH,
    HIGHEST_TRAINED_RUNG,
    LAST_RUNG,
    LEVELS,
    LOW,
    MAX_DEPTH,
    RUNGS,
    TOP_RUNG,
    Step,
)

HEIGHT = TOP_RUNG + MAX_DEPTH - DEPTH + 1
"""Rows of the tables: a rung's row is its number less FINISH, and some are to spare."""

# L2 norms of the synthesis basis vectors of the 5/3 wavelet, by level (from 1; LL from 0), and
# of the columns of the inverse YCoCg-R transform.
_DETAIL_NORMS = ((1.038, 0.7186), (1.592, 0.9218), (2.919, 1.586), (5.703, 3.043), (11.33, 6.019))
_LOW_NORMS = (1.0, 1.5, 2.75, 5.375, 10.68, 21.34)
_COLOUR_NORMS = (1.732, 0.7071, 0.866)


@dataclass(frozen=True)
class Ladder:
    """Tables of integers; all tensors are int8.

    Attributes:
        details: [HEIGHT, LEVELS, CHANNELS], the plane of each channel of a level once a rung is
            done. A cell is 2^plane wide.
        low: [HEIGHT, LEVELS + 1, 3], the plane of Y, Co and Cg of the low band after 0 to LEVELS
            levels; of levels that are not the last, that of its error.
        rows: [HEIGHT, LOW], the row of the networks' rung tables that serves a level at a rung.
    """

    details: Tensor
    low: Tensor
    rows: Tensor

    @staticmethod
    def shapes() -> dict[str, tuple[int, ...]]:
        """The shapes of the tables under their names in a model file."""
        return {
            "ladder.details": (HEIGHT, LEVELS, CHANNELS),
            "ladder.low": (HEIGHT, LEVELS + 1, 3),
            "ladder.rows": (HEIGHT, LOW),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tables under their names in a model file."""
        return {"ladder.details": self.details, "ladder.low": self.low, "ladder.rows": self.rows}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "Ladder":
        """The tables of a model file; raises ModelError if cells would not be nested or whole."""
        ladder = cls(*(tensors[name] for name in cls.shapes()))
        for planes in (ladder.details, ladder.low):
            if bool((planes[0] != 0).any()) or bool((planes.diff(dim=0) < 0).any()):
                raise ModelError("The ladder of the model file does not lead to exact values.")
            if int(planes.max()) >= HEIGHT + 8:
                raise ModelError("The ladder of the model file has cells of impossible width.")
        if not 0 <= int(ladder.rows.min()) <= int(ladder.rows.max()) < RUNGS:
            raise ModelError("The ladder of the model file names rungs that there are not.")
        return ladder

    def planes(self, rung: int, level: int, levels: int) -> Tensor:
        """Planes of the channels of a level once `rung` is done, int32 [1, CHANNELS, 1, 1].

        For level LOW only channels 0, 3 and 6 exist (Y, Co, Cg of the low band after `levels`
        levels); the others repeat them.
        """
        if level == LOW:
            planes = self.low[rung - FINISH, levels].repeat_interleave(3)
        else:
            planes = self.details[rung - FINISH, level - 1]
        return planes.to(torch.int32).reshape(1, CHANNELS, 1, 1)

    def low_planes(self, rung: int, level: int) -> Tensor:
        """Planes of the error of the low band after `level` levels, int32 [1, 3, 1, 1]."""
        return self.low[rung - FINISH, level].to(torch.int32).reshape(1, 3, 1, 1)

    def index(self, step: Step) -> tuple[int, int]:
        """Rows of the rung and of the level in the networks' tables."""
        row = int(self.rows[step.rung_at_8_bits - FINISH, step.level - 1])
        return row, step.level - 1


@lru_cache
def finer_chroma(ladder: Ladder) -> Ladder:
    """The same with planes of chroma one finer, if they are not 0.

    One of a space's Cb or Cr weighs about twice as much in RGB as one of Co or Cg.
    """
    details, low = ladder.details.clone(), ladder.low.clone()
    for chroma in (details[..., CHANNELS // 3 :], low[..., 1:]):
        chroma.sub_(1).clamp_(min=0)
    return replace(ladder, details=details, low=low)


def white(
    later: Mapping[int, int | Sequence[int]] | None = None, highest: Mapping[int, int] | None = None
) -> Ladder:
    """The ladder of white error, but for what comes later or earlier.

    Args:
        later: for some levels, by how many rungs (below zero: earlier): one number, or one for
            each of the CHANNELS. A level is served by the rows of the rungs at which its first
            channel has the same cells else.
        highest: for some levels, the highest rung with a row of its own, if that is not
            HIGHEST_TRAINED_RUNG; higher ones borrow its row.
    """
    late = dict.fromkeys(range(1, LOW + 1), (0,) * CHANNELS)
    for level, delay in (later or {}).items():
        late[level] = (delay,) * CHANNELS if isinstance(delay, int) else tuple(delay)
    rungs = torch.arange(FINISH, FINISH + HEIGHT)[:, None]

    def table(norms: list[float], delays: Sequence[int]) -> Tensor:
        offsets = [
            round(math.log2(norm)) - delay for norm, delay in zip(norms, delays, strict=True)
        ]
        planes = rungs - torch.tensor(offsets)
        planes[0] = 0
        return planes.clamp(min=0).to(torch.int8)

    details = [
        table([c * norm for c in _COLOUR_NORMS for norm in (side, side, diagonal)], late[n])
        for n, (side, diagonal) in enumerate(_DETAIL_NORMS, 1)
    ]
    low = [table([c * norm for c in _COLOUR_NORMS], late[LOW][::3]) for norm in _LOW_NORMS]
    delays = torch.tensor([late[level][0] for level in range(1, LOW + 1)])
    last = torch.tensor([(highest or {}).get(n, HIGHEST_TRAINED_RUNG) for n in range(1, LOW + 1)])
    rows = (rungs.minimum(last) + delays).clamp(LAST_RUNG, HIGHEST_TRAINED_RUNG) - FINISH
    rows[0] = 0
    return Ladder(torch.stack(details, 1), torch.stack(low, 1), rows.to(torch.int8))
