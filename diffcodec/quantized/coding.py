"""The host's side of a phase: coefficients go from their cells to smaller ones, through a coder.

Nothing here is a tensor. What the device has predicted comes as integers, and the loops over
coefficients are compiled: all their arithmetic is on integers, or single operations on float64
that IEEE 754 rounds in one way only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.entropy import PROBABILITY_BITS, Coder
from diffcodec.exact.cdf import MEAN_UNITS, CdfTable
from diffcodec.quantized.corrections import Odds, PhaseErrors

_ONE = 1 << PROBABILITY_BITS

FIRST_SET, LARGEST_SET = 1 << 12, 1 << 13
"""Coefficients that are coded before the first are learnt from; most in a later set, of which a
prefix may lack the signs."""

CONTEXT_LIMIT = 511
"""Largest magnitude of what a phase lets later ones know."""


@dataclass
class Batch:
    """The coefficients of a phase: three bands at some positions, in the order of the stream.

    Attributes:
        floors: int32 [n, 3], of the cells before the phase, then of those after it.
        reached: int8 [n, 3], the planes that have been reached.
        before, after: int32 [3], the planes of each band that the step begins and ends with.
        mean: int32 [n, 3], from the midpoint of the cell in 1/256 of its width.
        scale: int32 [n, 3], indices of scales of the table.
        values: int32 [n, 3], the exact coefficients, in an encoder only.
        exists: int32, indices of those of the 3n coefficients that exist, upwards.
    """

    floors: NDArray[np.int32]
    reached: NDArray[np.int8]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    mean: NDArray[np.int32]
    scale: NDArray[np.int32]
    values: NDArray[np.int32] | None
    exists: NDArray[np.int32]


def code(
    batch: Batch, table: CdfTable, coder: Coder, odds: Odds, errors: PhaseErrors | None
) -> tuple[NDArray[np.int16], bool]:
    """Code a batch in place, set by set; each goes through all its planes before the next does.

    Each plane splits a zero cell in three and any other cell in two: first a bit says whether the
    magnitude gains this plane's bit, then those that have left zero get a sign.

    Args: the coefficients; the CDF; either side of a stream; what corrects probabilities, and
    what corrects means.

    Returns:
        How far each midpoint has moved, in 1/64 of the first cell's width, int16 [n, 3]; and
        whether the coder's data ended before the last.
    """
    start = batch.floors.copy()
    values, inverse_scales = table.values.numpy(), table.inverse_scales.numpy()
    ended = False
    for chosen in _sets(batch.exists, learning=errors is not None):
        moved = np.zeros(len(chosen) if errors is not None else 0)
        if errors is not None:
            errors.correct(chosen, batch.mean, batch.scale)
        ended = _code_set(batch, chosen, values, inverse_scales, coder, odds, moved)
        if ended:
            break
        if errors is not None:
            errors.learn(chosen, batch.scale, batch.before, moved)
    moves = np.empty(batch.floors.shape, np.int16)
    _moves(start, batch.floors, batch.before, batch.reached, moves)
    return moves, ended


def _sets(exists: NDArray[np.int32], *, learning: bool) -> Iterator[NDArray[np.int32]]:
    """The first set, then longer ones; or large ones at once."""
    start, size = 0, FIRST_SET if learning else LARGEST_SET
    while start < len(exists):
        yield exists[start : start + size]
        start, size = start + size, min(4 * size, LARGEST_SET)


def _code_set(
    batch: Batch,
    chosen: NDArray[np.int32],
    values: NDArray[np.int32],
    inverse_scales: NDArray[np.int32],
    coder: Coder,
    odds: Odds,
    moved: NDArray[np.float64],
) -> bool:
    """Refine a set in place and add to `moved` how far from their expectations midpoints went.

    Returns whether the coder's data ended.
    """
    size = len(chosen)
    index, masses = np.empty(size, np.int32), np.empty((3, size), np.int32)
    case, given = np.empty(size, np.int32), np.empty(size, np.int32)
    probabilities, truth = np.empty(size), np.empty((2, size), np.int32)
    exact = batch.floors if batch.values is None else batch.values
    for _ in range(int((batch.before - batch.after).max())):
        ratio = odds.ratios()
        count = _magnitudes(
            chosen, batch.floors, batch.reached, batch.before, batch.after, batch.mean,
            batch.scale, exact, values, inverse_scales, odds.bins, ratio,
            index, masses, case, given, probabilities, truth[0],
        )  # fmt: skip
        if count == 0:
            break
        known = None if batch.values is None else truth[0, :count]
        bits = coder.code(probabilities[:count], known)
        odds.learn(case, given, bits)
        new = _signs(
            chosen, batch.floors, exact, index, masses, bits, odds.bins, odds.ratios(),
            case, given, probabilities, truth[1],
        )  # fmt: skip
        known = None if batch.values is None else truth[1, :new]
        signs = coder.code(probabilities[:new], known)
        odds.learn(case, given, signs)
        done = _apply(chosen, batch.floors, batch.reached, index, masses, bits, signs, moved)
        if done < count:
            return True
    return False


@njit(cache=True, nogil=True)
def _magnitudes(  # type: ignore[no-untyped-def]
    chosen, floors, reached, before, after, mean, scale, exact, values, inverse_scales, bins,
    ratio, index, masses, case, given, probabilities, truth,
):  # fmt: skip
    """Probabilities that magnitudes gain a bit, of those of a set that have planes left."""
    count, middle_entry = 0, len(values) // 2
    for k in range(len(chosen)):
        n, band = chosen[k] // 3, chosen[k] % 3
        plane = reached[n, band] - 1
        if plane < after[band]:
            continue
        floor, first = floors[n, band], before[band]
        # The cell before the step is the frame; edges are doubled, and count from its midpoint.
        high = abs(floor) >> first << first
        middle = 2 * high + (1 << first) - 1 if high else 0
        inner = 2 * abs(floor) - middle - 1
        split = inner + (2 << plane)
        outer = split + (2 << plane)
        side = -1 if floor < 0 else 1
        m, factor = side * mean[n, band], inverse_scales[scale[n, band]]
        at_split = _cdf(split, first, m, factor, values, middle_entry)
        at_outer = _cdf(outer, first, m, factor, values, middle_entry)
        if floor:
            at_inner = _cdf(inner, first, m, factor, values, middle_entry)
            upper = at_outer - at_split
            leaving = upper
        else:
            at_inner = _cdf(-outer, first, m, factor, values, middle_entry)
            upper = at_outer - at_split
            leaving = upper + _cdf(-split, first, m, factor, values, middle_entry) - at_inner
        whole = at_outer - at_inner
        p = _quantised(leaving, whole)
        index[count] = k
        masses[0, count], masses[1, count], masses[2, count] = upper, leaving, whole
        case[count] = _case((2 if floor else 0) + (band == 2), p, bins)
        given[count] = p
        probabilities[count] = _corrected(p, ratio[case[count]])
        truth[count] = abs(exact[n, band]) >> plane & 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _signs(  # type: ignore[no-untyped-def]
    chosen, floors, exact, index, masses, bits, bins, ratio, case, given, probabilities, truth
):
    """Probabilities that coefficients which have just left zero are positive."""
    count = 0
    for k in range(len(bits)):
        n, band = chosen[index[k]] // 3, chosen[index[k]] % 3
        if bits[k] and floors[n, band] == 0:
            p = _quantised(masses[0, k], masses[1, k])
            case[count], given[count] = _case(4 + (band == 2), p, bins), p
            probabilities[count] = _corrected(p, ratio[case[count]])
            truth[count] = exact[n, band] > 0
            count += 1
    return count


@njit(cache=True, nogil=True)
def _apply(chosen, floors, reached, index, masses, bits, signs, moved):  # type: ignore[no-untyped-def]
    """Refine cells by decisions; how many of the coefficients have all of theirs."""
    signed = 0
    for k in range(len(bits)):
        n, band = chosen[index[k]] // 3, chosen[index[k]] % 3
        floor, half = floors[n, band], 1 << (reached[n, band] - 1)
        upper, leaving, whole = masses[0, k], masses[1, k], max(masses[2, k], 1)
        # How far the midpoint moves, in its possible steps: as seen, and as it was expected to.
        if floor == 0:
            seen = 0
            if bits[k]:
                if signed == len(signs):
                    return k
                seen = 2 * signs[signed] - 1
                signed += 1
            floors[n, band] = seen * half
            step, expected = 3 * half - 1, (2 * upper - leaving) / whole
        else:
            side = -1 if floor < 0 else 1
            floors[n, band] = floor + side * bits[k] * half
            seen = side * (2 * bits[k] - 1)
            step, expected = half, side * ((2 * leaving - whole) / whole)
        reached[n, band] -= 1
        if len(moved):
            moved[index[k]] += step * 0.5 * (seen - expected)
    return len(bits)


@njit(cache=True, nogil=True)
def _moves(start, floors, before, reached, moves):  # type: ignore[no-untyped-def]
    for n in range(len(floors)):
        for band in range(3):
            first, plane = before[band], reached[n, band]
            old, new = start[n, band], floors[n, band]
            moved = _double_midpoint(new, plane) - _double_midpoint(old, first)
            moved = (moved << 7) >> first
            moves[n, band] = min(max(moved, -CONTEXT_LIMIT), CONTEXT_LIMIT)


@njit(cache=True, nogil=True)
def _double_midpoint(floor, plane):  # type: ignore[no-untyped-def]
    if floor == 0:
        return 0
    return 2 * floor + ((1 << plane) - 1 if floor > 0 else 1 - (1 << plane))


@njit(cache=True, nogil=True)
def _cdf(edge, plane, mean, factor, values, middle):  # type: ignore[no-untyped-def]
    """As `CdfTable.at`, of a doubled edge in the frame of a cell of that plane."""
    distance = ((edge * MEAN_UNITS) >> (plane + 1)) - mean
    entry = (distance * factor) >> 12
    return np.int64(values[min(max(entry, -middle), middle) + middle])


@njit(cache=True, nogil=True)
def _quantised(part, whole):  # type: ignore[no-untyped-def]
    """part / whole in units of 2^-16, never 0 or 1; one half of nothing."""
    ratio = part / whole if whole > 0 else 0.5
    return min(max(int(np.rint(ratio * _ONE)), 1), _ONE - 1)


@njit(cache=True, nogil=True)
def _case(kind, p, bins):  # type: ignore[no-untyped-def]
    return kind * (bins[-1] + 1) + bins[p]


@njit(cache=True, nogil=True)
def _corrected(p, ratio):  # type: ignore[no-untyped-def]
    odds = p * ratio
    corrected = odds / (odds + (_ONE - p))
    return min(max(np.rint(corrected * _ONE), 1.0), _ONE - 1.0) / _ONE
