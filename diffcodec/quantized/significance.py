"""Significance of blocks: whether anything in them has left zero, colour by colour.

Chroma and smooth areas are all zero down to low rungs. A flag for each of their blocks says so,
and neither the network's heads nor the coder need be asked about every coefficient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32
"""Side of a block, in positions of its level."""

CONTEXTS = 16
"""Cases that a flag's probability depends on, see `contexts`."""


def significant(magnitudes: Tensor) -> Tensor:
    """Which blocks of a level hold anything but zeros, bool [3, rows, columns].

    Args: floors, or exact magnitudes without their lower planes, int32 [1, 9, h, w].
    """
    nonzero, (height, width) = magnitudes[0] != 0, magnitudes.shape[-2:]
    colours = nonzero[0::3] | nonzero[1::3] | nonzero[2::3]
    whole = F.pad(colours, (0, -width % SIDE, 0, -height % SIDE))
    return whole.unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE)).any(4).any(2)


def contexts(before: Tensor, coarser: Tensor, other: Tensor | None) -> Tensor:
    """The case of each block of a colour, integers below CONTEXTS, int64 [rows, columns].

    Args: which of the colour's blocks were significant before the step, bool; which of the next
    coarser level's are, bool of about half the size (or, above the coarsest level, of the same);
    and which of the colour before are after the step, if there is one.
    """
    around = F.pad(before.long()[None], (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1).sum((3, 4))[0]
    many = sum((around > most).long() for most in (0, 2, 5))
    row, column = (
        torch.arange(n, device="cpu") * m // n
        for n, m in zip(before.shape, coarser.shape, strict=True)
    )
    parent = coarser[row[:, None], column].long()
    return many * 4 + parent * 2 + (0 if other is None else other.long())


def positions(blocks: Tensor, height: int, width: int) -> Tensor:
    """The positions in blocks, bool [rows, columns] to bool [height, width]."""
    spread = blocks.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)
    return spread[:height, :width]
