"""What a picture's own decoded errors change: odds of decisions, and means of coefficients.

Encoder and decoder must agree to the last bit, so the order of additions is as written.
"""

from dataclasses import dataclass

import numpy as np

from .coder import ONE, RangeDecoder
from .model import Model

KINDS, SIGNIFICANCE = 7, 6
"""Kinds of decisions: leaving zero, gaining a bit, sign, each for HL and LH, then for HH; and
whether a block becomes significant."""

_POWERS = 2.0 ** -(np.arange(3, 31) / 2)
_EDGES = np.sort(np.concatenate((_POWERS, np.arange(6, 15) / 20, 1 - _POWERS)))
_BINS = np.searchsorted(_EDGES, np.arange(ONE) / ONE)
_MEMORY = 63 / 64

_UNITS = 16  # of an error, in a standard deviation
_LARGEST = 5 * _UNITS
_LEARNT = 4096
_WEIGHTS = 4096  # units of a weight
_PRIOR = 100 * 16**4


def quantised(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Probabilities part / whole in ONE, int64; one half of nothing."""
    ratio = np.where(whole > 0, part / np.maximum(whole, 1), 0.5)
    return np.rint(ratio * ONE).clip(1, ONE - 1).astype(np.int64)


class Odds:
    """Counts of decisions by kind and probability, and what they make of later ones."""

    def __init__(self, prior: int, yields: bool) -> None:
        self._prior, self._yields = float(prior), yields
        # Ones seen and expected, zeros seen and expected.
        self._counts = np.zeros((4, KINDS * (len(_EDGES) + 1)))

    def read(self, decoder: RangeDecoder, kind: np.ndarray | int, given: np.ndarray) -> np.ndarray:
        """Read decisions of these kinds and model's probabilities, and learn from them.

        Returns int64; fewer once the data have ended.
        """
        seen, expected, unseen, unexpected = self._counts / ONE
        ratios = self._ratio(seen, expected) / self._ratio(unseen, unexpected)
        case = kind * (len(_EDGES) + 1) + _BINS[given]
        odds = given * ratios[case]
        probabilities = np.rint(odds / (odds + (ONE - given)) * ONE).clip(1, ONE - 1)
        bits = decoder.read(probabilities.astype(np.int64))
        if len(bits):
            case, given = case[: len(bits)], given[: len(bits)]
            self._counts *= _MEMORY
            # `add.at` adds one decision after the other.
            np.add.at(self._counts[0], case, ONE * bits)
            np.add.at(self._counts[1], case, given)
            np.add.at(self._counts[2], case, ONE * (1 - bits))
            np.add.at(self._counts[3], case, ONE - given)
        return bits

    def _ratio(self, seen: np.ndarray, expected: np.ndarray) -> np.ndarray:
        prior = np.full_like(seen, self._prior)
        if self._yields:
            beyond = (seen - expected) ** 2 - 16 * expected
            doubted = beyond > 0
            own = expected[doubted] ** 2 / beyond[doubted]
            prior[doubted] = own.clip(1 / 16, self._prior)
        return (seen + prior) / (expected + prior)


class _Regression:
    """Recursive least squares of the errors of a band in a phase on errors known before."""

    def __init__(self, count: int) -> None:
        self._equations = np.zeros((count, count + 1))
        self.weights = np.zeros(count)  # integers, in 1 / _WEIGHTS

    def learn(self, known: np.ndarray, left: np.ndarray) -> None:
        """Take errors [n] that these weights have left, and the known ones [count, n]; integers."""
        known, left = known.astype(np.float64), left.astype(np.float64)
        matrix = known * left**2 @ known.T
        right = known @ left * _UNITS**2
        for column, weight in zip(matrix.T, self.weights, strict=True):
            right += column * (weight / _WEIGHTS)
        self._equations *= _MEMORY
        self._equations += np.column_stack((matrix, right))
        self.weights = np.rint(self._solution() * _WEIGHTS).clip(-2 * _WEIGHTS, 2 * _WEIGHTS)

    def _solution(self) -> np.ndarray:
        """By Gauss and Jordan, without pivots."""
        rows = self._equations.copy()
        for i in range(len(rows)):
            rows[i, i] += _PRIOR
        for i in range(len(rows)):
            rows[i] /= rows[i, i]
            for other in range(len(rows)):
                if other != i:
                    rows[other] -= rows[other, i] * rows[i]
        return rows[:, -1]


@dataclass
class Errors:
    """What foretells the errors of one phase.

    Attributes:
        colour, parity: of the phase.
        own: errors of this step so far, int64 [9, (h + 2) * (w + 2)], zero where unknown.
        before: those of the step before at this level; None if there was none.
        stride: places from a row to the next.
        regressions: of the three bands.
        deviations: of each index of a scale, float64.
    """

    colour: int
    parity: int
    own: np.ndarray
    before: np.ndarray | None
    stride: int
    regressions: list[_Regression]
    deviations: np.ndarray

    def known(self, band: int, places: np.ndarray) -> np.ndarray:
        """The errors known before that foretell those of a band, int64 [count, n]."""
        channel = 3 * self.colour + band
        parts = [self.own[3 * colour + band, places] for colour in range(self.colour)]
        if self.parity:
            parts += self._near(self.own[channel], places)
        if self.before is not None:
            parts += [self.before[3 * colour + band, places] for colour in range(3)]
            parts += self._near(self.before[channel], places)
        return np.array(parts, np.int64).reshape(len(parts), len(places))

    def _near(self, errors: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        return [errors[places - step] + errors[places + step] for step in (1, self.stride)]

    def corrected(
        self, mean: np.ndarray, scale: np.ndarray, band: int, places: np.ndarray
    ) -> np.ndarray:
        """Means of a band at places, moved to where errors lead; int64."""
        shift = self.regressions[band].weights @ self.known(band, places)
        moved = np.rint(shift * (self.deviations[scale] / (_UNITS * _WEIGHTS)))
        return (mean + moved.astype(np.int64)).clip(-1024, 1024)

    def learn(
        self, moved: np.ndarray, plane: int, scale: np.ndarray, band: int, places: np.ndarray
    ) -> None:
        """Take how far coefficients of a band were from their expectations, float64.

        Args: that; the band's plane before the step; indices of scales; the band; the places.
        """
        errors = np.rint(moved * 256 / (1 << plane) * _UNITS / self.deviations[scale])
        own, regression = self.own[3 * self.colour + band], self.regressions[band]
        own[places] = errors.clip(-_LARGEST, _LARGEST).astype(np.int64)
        if len(regression.weights):
            spread = places[:: -(-len(places) // _LEARNT)]
            regression.learn(self.known(band, spread), own[spread])


class Adaptation:
    """Everything that is learnt from one picture."""

    def __init__(self, model: Model) -> None:
        self._deviations = model.deviations.astype(np.float64)
        self._prior, self._yields = model.prior, model.yields
        self._odds: dict[tuple[int, bool], Odds] = {}
        self._regressions: dict[tuple[int, int, int, int], _Regression] = {}
        self._own: dict[int, np.ndarray] = {}  # of each level
        self._before: dict[int, np.ndarray | None] = {}

    def odds(self, colour: int, *, finish: bool) -> Odds:
        """The odds of a colour, at the finish or before it."""
        return self._odds.setdefault((colour, finish), Odds(self._prior, self._yields))

    def begin(self, level: int, height: int, width: int) -> None:
        """Begin a step at a level of this size."""
        self._before[level] = self._own.get(level)
        self._own[level] = np.zeros((9, height + 2, width + 2), np.int64)

    def errors(self, level: int, colour: int, parity: int) -> Errors:
        """The errors that a phase of the step works with."""
        own, before = self._own[level], self._before[level]
        count = colour + 2 * parity + (0 if before is None else 5)
        return Errors(
            colour,
            parity,
            own.reshape(9, -1),
            None if before is None else before.reshape(9, -1),
            own.shape[2],
            [
                self._regressions.setdefault((colour, parity, band, count), _Regression(count))
                for band in range(3)
            ],
            self._deviations,
        )
