"""One set of coefficients from its cells to smaller ones, plane by plane, through a coder."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import Bits, Probabilities, quantise_probabilities
from diffcodec.exact.cdf import MEAN_UNITS, CdfTable

LARGEST_SET = 1 << 20
"""Most coefficients that go through all their planes before the next ones do; it bounds memory."""

Errors = NDArray[np.float32]
"""Of coefficients, each operation rounded in one way only."""

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
        """2^30 times the CDF at edges, given doubled and as they lie from the midpoints, int32."""
        units = (double_edges * MEAN_UNITS) >> (self.plane + 1)
        return self.table.at(units, self.mean, self.scale)

    def deviations(self) -> NDArray[np.float32]:
        """The scales, in 1/256 of the cell's width."""
        return self.table.deviations()[self.scale.numpy()]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Conditional":
        """The conditionals of what `change` makes of their elements, a subset of them say."""
        parts = (self.middle, self.plane, self.mean, self.scale)
        return Conditional(self.table, *map(change, parts))


Part = tuple[slice, ...]
"""A set of coefficients: those of some slices, together."""


class Learner(Protocol):
    """Corrects conditionals, a set at a time, by what it has learnt from the sets before."""

    def corrected(self, part: Part, conditional: Conditional) -> Conditional:
        """The conditionals of a set, better ones."""

    def learn(self, part: Part, conditional: Conditional, errors: Errors) -> None:
        """Take the differences of a set's coefficients from their expectations."""


def in_sets(whole: slice, first: int, most: int = LARGEST_SET) -> Iterator[slice]:
    """Parts of a slice: the first so long, each later one four times as long, up to `most`."""
    start, length = whole.start, first
    while start < whole.stop:
        yield slice(start, min(start + length, whole.stop))
        start, length = start + length, min(4 * length, most)


def refine(
    floors: Tensor,
    before: Tensor,
    after: Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
    sets: Iterable[Part],
    learner: Learner | None,
) -> tuple[Tensor, Tensor]:
    """Code coefficients from planes `before` to planes `after`; all tensors are int32 [n].

    Each plane splits a zero cell in three and any other cell in two: first a bit says whether
    the magnitude gains this plane's bit, then those that have left zero get a sign.

    Args:
        diagonal: which coefficients are of an HH band, bool [n].
        code: passes bits on, as `Calibration.code` does: kinds, probabilities and true bits to
            bits.
        truth: the exact coefficients where they are known, that is in an encoder.
        sets: parts of the coefficients; each goes through all its planes before the next does.
        learner: what corrects the conditionals.

    Returns:
        New floors, and the planes reached: `after`, but for those coefficients that came after
        the end of the coder's data.
    """
    refined, reached = floors.clone(), before.clone()
    for part in sets:
        take = partial(_take, part=part)
        given, errors = conditional.each(take), None
        if learner is not None:
            given, errors = learner.corrected(part, given), np.zeros(len(given.mean), np.float32)
        floor, plane = take(floors), take(before)
        known = None if truth is None else take(truth)
        _refine_set(floor, plane, take(after), given, take(diagonal), code, known, errors)
        _put(refined, floor, part)
        _put(reached, plane, part)
        if learner is not None and errors is not None:
            learner.learn(part, given, errors)
    return refined, reached


def _take(elements: Tensor, part: Part) -> Tensor:
    return torch.cat([elements[some] for some in part])


def _put(elements: Tensor, values: Tensor, part: Part) -> None:
    for some, own in zip(part, values.split([s.stop - s.start for s in part]), strict=True):
        elements[some] = own


def _refine_set(
    floors: Tensor,
    reached: Tensor,
    after: Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
    errors: Errors | None,
) -> None:
    """Refine floors and planes reached in place, until they are all done or the data end.

    Adds to `errors` the differences of the coefficients from their expectations.
    """
    ended = False
    while not ended and bool((going := reached > after).any()):
        # All of them is the most frequent case by far, and needs no copies.
        active = slice(None) if bool(going.all()) else going.nonzero()[:, 0]
        part = conditional.each(partial(_at, active=active))
        ended = _split(floors, reached, active, part, diagonal, code, truth, errors)


def _at(elements: Tensor, active: slice | Tensor) -> Tensor:
    return elements[active] if isinstance(active, slice) else elements.index_select(0, active)


def _split(
    floors: Tensor,
    reached: Tensor,
    active: slice | Tensor,
    conditional: Conditional,
    diagonal: Tensor,
    code: Code,
    truth: Tensor | None,
    errors: Errors | None,
) -> bool:
    """Code one plane of the active coefficients in place; whether the coder's data ended."""
    floor, plane = _at(floors, active), _at(reached, active) - 1
    half = 1 << plane
    zero, side = floor == 0, floor >> 31 | 1
    # Edges are doubled, and as they lie from the midpoint of the frame.
    way = 2 * half * side
    inner = 2 * floor - conditional.middle - side
    split = inner + way
    outer = split + way
    edges = torch.stack((torch.where(zero, -outer, inner), -split, split, outer))
    at_inner, below_split, at_split, at_outer = conditional.cdf(edges)
    upper, whole = at_outer - at_split, (at_outer - at_inner).abs()
    leaving = upper.abs() + zero * (below_split - at_inner)
    exact = None if truth is None else _at(truth, active)
    # Kinds, see calibration.KINDS.
    kinds = _at(diagonal, active).long()
    bits = code(
        (kinds + 2 * ~zero).numpy(),
        quantise_probabilities(leaving.numpy(), whole.numpy()),
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
    where = slice(told) if isinstance(active, slice) else active[:told]
    floors[where] = floor[:told] + side[:told] * gained[:told] * half[:told]
    reached[where] -= 1
    whole_round = told == len(floor)
    if errors is not None and whole_round:
        # How far the midpoint moves, in its possible steps: as seen, and as it was expected to.
        step = torch.where(zero, 3 * half - 1, half) / 2
        seen = side * torch.where(zero, gained, 2 * gained - 1)
        up, any_way = upper.float(), leaving.float()
        expected = torch.where(zero, 2 * up - any_way, side * (2 * any_way - whole))
        moved = (step * (seen - expected / whole.clamp(min=1))).numpy()
        errors[active if isinstance(active, slice) else active.numpy()] += moved
    return not whole_round
