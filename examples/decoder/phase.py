"""A phase: coefficients go from their cells to smaller ones, bit by bit."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from .adaptation import Errors, Odds, quantised
from .coder import RangeDecoder
from .model import Model

_FIRST_SET, _LARGEST_SET = 1 << 12, 1 << 13


@dataclass
class Coefficients:
    """Coefficients in the order of the stream, arrays of int64 [n] that change in place.

    Attributes:
        place: in a plane with a border of one, flattened.
        band: 0 HL, 1 LH, 2 HH.
        floor: sign and magnitude with the bits below the plane missing.
        plane: how many bits are missing.
        before, after: planes before the step and after it.
        mean: from the midpoint of the cell before the step, in 1/256 of its width.
        scale: index of a scale.
    """

    place: np.ndarray
    band: np.ndarray
    floor: np.ndarray
    plane: np.ndarray
    before: np.ndarray
    after: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def part(self, chosen: slice | np.ndarray) -> "Coefficients":
        """Some of them; those of a slice change here when they change there."""
        return Coefficients(*(getattr(self, field.name)[chosen] for field in fields(self)))


def decode(
    whole: Coefficients, model: Model, decoder: RangeDecoder, odds: Odds, errors: Errors | None
) -> None:
    """Refine coefficients, set by set, as far as the data go.

    Args: the coefficients; the tables; the decoder; what corrects odds; what corrects means, at the
    rungs that have this.
    """
    for chosen in _sets(len(whole.floor), learning=errors is not None):
        part = whole.part(chosen)
        bands = [(band, np.flatnonzero(part.band == band)) for band in range(3)]
        bands = [(band, members) for band, members in bands if len(members)]
        if errors:
            for band, members in bands:
                mean, scale, place = (x[members] for x in (part.mean, part.scale, part.place))
                part.mean[members] = errors.corrected(mean, scale, band, place)
        moved = _decode_set(part, model, decoder, odds)
        if decoder.ended:
            return
        if errors:
            for band, members in bands:
                plane = int(part.before[members[0]])
                errors.learn(moved[members], plane, part.scale[members], band, part.place[members])


def _sets(count: int, *, learning: bool) -> Iterator[slice]:
    start, size = 0, _FIRST_SET if learning else _LARGEST_SET
    while start < count:
        yield slice(start, start + size)
        start, size = start + size, _LARGEST_SET


def _decode_set(c: Coefficients, model: Model, decoder: RangeDecoder, odds: Odds) -> np.ndarray:
    """Refine a set; returns how far midpoints moved beyond what was expected, float64 [n]."""
    moved = np.zeros(len(c.floor))
    while len(left := np.flatnonzero(c.plane > c.after)) and not decoder.ended:
        now = c.part(left)
        half, zero, diagonal = 1 << (now.plane - 1), now.floor == 0, now.band == 2
        upper, leaving, whole = _masses(now, model)
        kind = np.where(zero, 0, 2) + diagonal
        bits = odds.read(decoder, kind, quantised(leaving, whole))
        new = np.flatnonzero(bits.astype(bool) & zero[: len(bits)])
        positive = odds.read(decoder, 4 + diagonal[new], quantised(upper[new], leaving[new]))
        # Where the data end, coefficients before the first one without its sign are refined.
        done = slice(len(bits) if len(positive) == len(new) else new[len(positive)])
        side = np.where(now.floor < 0, -1, 1)
        side[new[: len(positive)]] = 2 * positive - 1
        bits, side, zero, half = bits[done], side[done], zero[done], half[done]
        upper, leaving, whole = upper[done], leaving[done], np.maximum(whole[done], 1)
        # How far the midpoint moves, in its possible steps: as seen, and as it was expected to.
        seen = side * np.where(zero, bits, 2 * bits - 1)
        expected = np.where(
            zero, (2 * upper - leaving) / whole, side * ((2 * leaving - whole) / whole)
        )
        moved[left[done]] += np.where(zero, 3 * half - 1, half) * 0.5 * (seen - expected)
        c.floor[left[done]] += side * bits * half
        c.plane[left[done]] -= 1
    return moved


def _masses(c: Coefficients, model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2^30 times the probabilities of the cell's upper part, of a one, and of the cell; int64.

    For a cell around zero the upper part is its positive one. The lower side of a negative cell is
    its inner one: all is seen from zero.
    """
    size, magnitude = 2 << (c.plane - 1), np.abs(c.floor)
    start = magnitude >> c.before << c.before
    middle = np.where(start > 0, 2 * start + (1 << c.before) - 1, 0)  # of the first cell, doubled
    inner = 2 * magnitude - middle - 1
    split, outer = inner + size, inner + 2 * size
    mean = np.where(c.floor < 0, -c.mean, c.mean)

    def mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        low, high = (model.cdf(edge, c.before, mean, c.scale) for edge in (low, high))
        return high - low

    zero, upper = c.floor == 0, mass(split, outer)
    leaving = upper + np.where(zero, mass(-outer, -split), 0)
    return upper, leaving, mass(np.where(zero, -outer, inner), outer)
