"""One set of coefficients from its cells to smaller ones, plane by plane, through a coder."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import Bits, Probabilities, quantise_probabilities
from diffcodec.exact.cdf import MEAN_UNITS, CdfTable

SET = 1 << 20
"""Coefficients that go through all their planes before the next ones do; it bounds memory."""

Code = Callable[[NDArray[np.int64], Probabilities, Bits | None], Bits]


@dataclass
class Conditional:
    """Gaussians over coefficients, each in the frame of the cell in which the step found it.

    All int32 [n]: twice the midpoint and the plane of the cell; the mean in 1/256 of the cell's
    width from the midpoint; the index of the scale in the table.
    """

    table: CdfTable
    middle: Tensor
    plane: Tensor
    mean: Tensor
    scale: Tensor

    def cdf(self, double_edges: Tensor) -> Tensor:
        """2^30 times the CDF at edges that are given doubled, int32 [n]."""
        units = (double_edges - self.middle) * MEAN_UNITS >> self.plane + 1
        return self.table.at(units, self.mean, self.table.inverse_scales[self.scale])

    def take(self, where: Tensor | slice) -> "Conditional":
        """The conditionals of a subset."""
        return Conditional(
            self.table,
            self.middle[where],
            self.plane[where],
            self.mean[where],
            self.scale[where],
        )


def refine(
    floors: Tensor,
    before: Tensor,
    after: Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Code coefficients from planes `before` to planes `after`; all tensors are int32 [n].

    Each plane splits a zero cell in three and any other cell in two: first a bit says whether
    the magnitude gains this plane's bit, then those that have left zero get a sign.

    Args:
        diagonal: which coefficients are of an HH band, bool [n].
        code: passes bits on, as `Calibration.code` does: kinds, probabilities and true bits to
            bits.
        truth: the exact coefficients where they are known, that is in an encoder.

    Returns:
        New floors, and the planes reached: `after`, but for those coefficients that came after
        the end of the coder's data.
    """
    refined, reached = floors.clone(), before.clone()
    for start in range(0, len(floors), SET):
        part = slice(start, start + SET)
        _refine_set(
            refined[part],
            reached[part],
            after[part],
            conditional.take(part),
            diagonal[part],
            code,
            None if truth is None else truth[part],
        )
    return refined, reached


def _refine_set(
    floors: Tensor,
    reached: Tensor,
    after: Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
) -> None:
    """Refine floors and planes reached in place, until they are all done or the data end."""
    ended = False
    while not ended and len(active := (reached > after).nonzero()[:, 0]):
        part = conditional if len(active) == len(floors) else conditional.take(active)
        ended = _split(floors, reached, active, part, diagonal, code, truth)


def _split(
    floors: Tensor,
    reached: Tensor,
    active: Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
) -> bool:
    """Code one plane of the active coefficients in place; whether the coder's data ended."""
    floor, plane = floors[active], reached[active] - 1
    half = 1 << plane
    magnitude, zero = floor.abs(), floor == 0
    side = 1 - 2 * (floor < 0).int()
    split = 2 * (magnitude + half) - 1
    outer = split + 2 * half
    inner = torch.where(zero, -outer, 2 * magnitude - 1)
    at_split, at_outer = conditional.cdf(split * side), conditional.cdf(outer * side)
    at_inner = conditional.cdf(inner * side)
    upper, whole = at_outer - at_split, at_outer - at_inner
    leaving = upper.abs()
    zeros = zero.nonzero()[:, 0]
    leaving[zeros] += conditional.take(zeros).cdf(-split[zeros]) - at_inner[zeros]
    exact = truth[active] if truth is not None else None
    # Kinds, see calibration.KINDS.
    kinds = diagonal[active].long()
    bits = code(
        (kinds + 2 * ~zero).numpy(),
        quantise_probabilities(leaving.numpy(), whole.abs().numpy()),
        None if exact is None else (exact.abs() >> plane & 1).numpy(),
    )
    told = len(bits)
    gained = torch.from_numpy(bits)
    new = (gained.bool() & zero[:told]).nonzero()[:, 0]
    signs = code(
        (kinds[new] + 4).numpy(),
        quantise_probabilities(upper[new].numpy(), leaving[new].numpy()),
        None if exact is None else (exact[new] > 0).int().numpy(),
    )
    side[new[: len(signs)]] = 2 * torch.from_numpy(signs) - 1
    if len(signs) < len(new):
        told = int(new[len(signs)])  # the first coefficient that has left zero to a side unknown
    where = active[:told]
    floors[where] = side[:told] * (magnitude[:told] + gained[:told] * half[:told])
    reached[where] -= 1
    return told < len(active)
