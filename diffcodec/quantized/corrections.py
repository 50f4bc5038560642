"""What a picture's own decoded errors change in means and in odds.

Noise of a sensor, demosaicing and scanning leave errors that are correlated in a way of each
picture's own: between neighbours, between colours, from rung to rung. So the regression of a
coefficient's error on errors that are known already is learnt along the way (recursive least
squares, weighted by the information in a decision). And a model is wrong in the same direction all
over a picture whose noise or sharpness it has not met, so decisions are counted by the probability
that they were given, and later ones take the odds that earlier ones have had: secondary symbol
estimation, as in PAQ (Mahoney, 2005).

Products of matrices are of integers and stay below 2^53, so that they are exact; all else, the
adding up of counts too, is single operations in one order, which IEEE 754 rounds in one way only.
So encoder and decoder agree on any machine.
"""

import copy

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.entropy import PROBABILITY_BITS, Bits, Coder
from diffcodec.exact.cdf import MEAN_UNITS, CdfTable
from diffcodec.quantized.model import MEAN_LIMIT, Model
from diffcodec.quantized.schedule import CHANNELS, FINISH, PHASES, Phase, Step

KINDS, SIGNIFICANCE = 7, 6
"""Kinds of decisions: leaving zero, gaining a bit, sign; each for HL and LH, and for HH. The last
is whether a block becomes significant."""

UNITS = 16
"""Units of an error per standard deviation."""

LIMIT = 5 * UNITS
"""Largest magnitude of an error."""

HIGHEST_RUNG = 4
"""Rungs above this one have too few bits to be worth the time."""

LEARNT = 1 << 12
"""Most coefficients of a band of a set that are learnt from, evenly spread."""

WEIGHT_UNITS = 1 << 12
"""Weights of a regression are integers too."""

_ONE = 1 << PROBABILITY_BITS
_TAIL = 2.0 ** -np.arange(15, 1, -0.5)
_EDGES = np.sort(np.concatenate([_TAIL, np.arange(6, 15) / 20, 1 - _TAIL[::-1]]))
_BINS = np.searchsorted(_EDGES, np.arange(_ONE) / _ONE).astype(np.int32)
_BINS[-1] = len(_EDGES)

_PRIOR = 100.0 * UNITS**4
"""Observations, of one deviation each, that speak for no regression."""

_MEMORY = 63 / 64
"""What is left of the sums and counts after each further set."""

_CHANCE = 16.0
"""Variances that a count's squared distance from what was expected may be by chance."""

_LEAST = 1 / 16
"""Observations that are left of a prior that yields."""


class Corrections:
    """Everything that is learnt from one picture while it is coded.

    Args: the CDF of the model, how many observations of each kind and size of decision speak
    for the odds as they are, and whether they yield, as of `Odds`.
    """

    def __init__(self, table: CdfTable, prior: int, *, yields: bool = False) -> None:
        self._deviations = table.deviations().astype(np.float64)
        self._prior, self._yields = prior, yields
        self._odds: dict[tuple[int, bool], Odds] = {}
        self._regressions: Regressions = {}
        self._errors: dict[int, NDArray[np.int16]] = {}  # of each level in its last step

    @classmethod
    def of_model(cls, model: Model) -> "Corrections":
        """Nothing learnt yet, with the prior of a model."""
        return cls(model.table, model.prior, yields=model.yields)

    def odds(self, colour: int, rung: int) -> "Odds":
        """What corrects the probabilities of a colour at a rung."""
        new = Odds(self._prior, yields=self._yields)
        return self._odds.setdefault((colour, rung == FINISH), new)

    def begin(self, step: Step, height: int, width: int) -> "StepErrors | None":
        """Begin a step at a level of this size; None if its rung is too high for regressions."""
        if step.rung_at_8_bits > HIGHEST_RUNG:
            return None
        before = self._errors.get(step.level)
        step_errors = StepErrors(self._regressions, self._deviations, height, width, before)
        self._errors[step.level] = step_errors.errors
        return step_errors

    def clone(self) -> "Corrections":
        """A copy that learns on its own."""
        return copy.deepcopy(self)


class Odds:
    """Counts of decisions by kind and probability: a picture's own odds.

    `bins` is the bin of each probability in units of 2^-16, int32.

    Args: how many observations speak for the probabilities as they are; whether few are left of
    them where the counts cannot be chance, as in a picture of a kind that the model has not met.
    """

    bins = _BINS

    def __init__(self, prior: int, *, yields: bool = False) -> None:
        self._prior, self._yields = float(prior), yields
        # Seen ones, expected ones, seen zeros, expected zeros; in 2^-16.
        self._counts = np.zeros((4, KINDS * (len(_EDGES) + 1)))

    def ratios(self) -> NDArray[np.float64]:
        """By what the odds of each kind and bin are to be multiplied, float64."""
        seen, expected, unseen, unexpected = self._counts / _ONE
        return self._ratio(seen, expected) / self._ratio(unseen, unexpected)

    def _ratio(
        self, seen: NDArray[np.float64], expected: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Observations over expected ones, both with the prior.

        Where they differ by more than chance, the prior is what makes the variance of that ratio's
        logarithm as large as it turned out to be (empirical Bayes).
        """
        prior = np.full_like(seen, self._prior)
        if self._yields:
            away = seen - expected
            beyond = away * away - _CHANCE * expected
            doubted = beyond > 0
            square = expected[doubted] * expected[doubted]
            prior[doubted] = np.clip(square / beyond[doubted], _LEAST, self._prior)
        return (seen + prior) / (expected + prior)

    def code(self, coder: Coder, kind: int, given: NDArray[np.int32], truth: Bits | None) -> Bits:
        """Pass decisions of one kind through a coder, and learn from them.

        Args: either side of a stream; the kind, below KINDS; probabilities in 2^-16; the true bits,
        if they are known.
        """
        given = given.astype(np.int32)
        case = kind * (len(_EDGES) + 1) + _BINS[given]
        odds = given * self.ratios()[case]
        corrected = np.rint(odds / (odds + (_ONE - given)) * _ONE)
        bits = coder.code(np.clip(corrected, 1, _ONE - 1) / _ONE, truth)
        self.learn(case, given, bits)
        return bits

    def learn(self, case: NDArray[np.int32], given: NDArray[np.int32], bits: Bits) -> None:
        """Take decisions: their kind and bin, their probability in 2^-16, and how they came out.

        The first two can be longer than the bits that are there.
        """
        if len(bits):
            self._counts *= _MEMORY
            _count(self._counts, case, given, bits)


class StepErrors:
    """The errors of one step, and of the one before at the same level.

    An error is the difference of a coefficient from its expectation, in deviations. `errors` is
    int16 [CHANNELS, height + 2, width + 2]: zero at its border and where unknown.
    """

    def __init__(
        self,
        regressions: "Regressions",
        deviations: NDArray[np.float64],
        height: int,
        width: int,
        before: NDArray[np.int16] | None,
    ) -> None:
        self._regressions, self._deviations, self._before = regressions, deviations, before
        self.errors = np.zeros((CHANNELS, height + 2, width + 2), np.int16)

    def of_phase(self, number: int, bordered: NDArray[np.int64]) -> "PhaseErrors":
        """What foretells the errors of a phase at positions of the bordered plane, int64 [n]."""
        return PhaseErrors(
            self._regressions, self._deviations, number, bordered, self.errors, self._before
        )


class PhaseErrors:
    """The errors of a phase, and the regressions that foretell them from those known before."""

    def __init__(
        self,
        regressions: "Regressions",
        deviations: NDArray[np.float64],
        number: int,
        bordered: NDArray[np.int64],
        errors: NDArray[np.int16],
        before: NDArray[np.int16] | None,
    ) -> None:
        phase: Phase = PHASES[number]
        count = phase.colour + 2 * phase.parity + (0 if before is None else CHANNELS // 3 + 2)
        self._regressions = [
            regressions.setdefault((number, band, count), Regression(count)) for band in range(3)
        ]
        self._deviations, self._bordered, self._count = deviations, bordered, count
        self._errors = errors.reshape(CHANNELS, -1)
        self._before = self._errors[:0] if before is None else before.reshape(CHANNELS, -1)
        self._stride, self._phase = errors.shape[2], (phase.colour, phase.parity)

    def correct(
        self, chosen: NDArray[np.int32], mean: NDArray[np.int32], scale: NDArray[np.int32]
    ) -> None:
        """Move means of the batch, int32 [n, 3], to where errors lead; in place.

        Args: indices of the set's coefficients; means and indices of scales.
        """
        weights = np.array([r.weights for r in self._regressions], np.int64)
        if weights.any():
            _correct(
                chosen, mean, scale, self._deviations, weights, self._features(chosen), self._count
            )

    def learn(
        self,
        chosen: NDArray[np.int32],
        scale: NDArray[np.int32],
        planes: NDArray[np.int32],
        moved: NDArray[np.float64],
    ) -> None:
        """Take how far the coefficients of a set were from their expectations, float64.

        Args: their indices; all indices of scales; planes before the step; the differences.
        """
        own = self._errors[3 * self._phase[0] : 3 * self._phase[0] + 3]
        _note(chosen, scale, planes, moved, self._deviations, self._bordered, own)
        bands = chosen % 3
        for band, regression in enumerate(self._regressions):
            members = chosen[bands == band]
            if len(members) and self._count:
                spread = members[:: -(-len(members) // LEARNT)]
                regression.learn(self._features(spread).T, own[band, self._bordered[spread // 3]])

    def _features(self, chosen: NDArray[np.int32]) -> NDArray[np.int16]:
        """The errors known before that foretell those of coefficients, [n, count]."""
        features = np.empty((len(chosen), self._count), np.int16)
        _gather(
            chosen, self._bordered, self._errors, self._before, self._stride, *self._phase, features
        )
        return features


class Regression:
    """Recursive least squares.

    `equations` are the normal ones, float64 [features, features + 1], `weights` their solution in
    WEIGHT_UNITS, integers.
    """

    def __init__(self, features: int) -> None:
        self.equations, self.weights = np.zeros((features, features + 1)), np.zeros(features)

    def learn(self, features: NDArray[np.int16], left: NDArray[np.int16]) -> None:
        """Take the errors that these weights have left, [n], and their features, [count, n]."""
        known, target = features.astype(np.float64), left.astype(np.float64)
        matrix = known * target**2 @ known.T
        right = known @ target * UNITS**2
        for column, weight in zip(matrix.T, self.weights, strict=True):
            right += column * (weight / WEIGHT_UNITS)  # what was corrected already
        self.equations *= _MEMORY
        self.equations += np.column_stack([matrix, right])
        most = 2 * WEIGHT_UNITS
        self.weights = np.rint(_solve(self.equations) * WEIGHT_UNITS).clip(-most, most)


Regressions = dict[tuple[int, int, int], Regression]
"""For each phase, band and number of features."""


def _solve(equations: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights, by Gauss and Jordan: LAPACK's last bits differ between machines."""
    rows = equations.copy()
    for i in range(len(rows)):
        rows[i, i] += _PRIOR
    for i in range(len(rows)):
        rows[i] /= rows[i, i]
        others = rows[:, i].copy()
        others[i] = 0
        rows -= np.multiply.outer(others, rows[i])
    return rows[:, -1]


@njit(cache=True, nogil=True)
def _count(counts, case, given, bits):  # type: ignore[no-untyped-def]
    for k in range(len(bits)):
        one = bits[k]
        counts[0 if one else 2, case[k]] += _ONE
        counts[1, case[k]] += given[k]
        counts[3, case[k]] += _ONE - given[k]


@njit(cache=True, nogil=True)
def _gather(  # type: ignore[no-untyped-def]
    chosen, bordered, errors, before, stride, colour, parity, features
):
    for k in range(len(chosen)):
        place, band, j = bordered[chosen[k] // 3], chosen[k] % 3, 0
        own = 3 * colour + band
        for earlier in range(colour):
            features[k, j] = errors[3 * earlier + band, place]
            j += 1
        if parity:
            features[k, j] = errors[own, place - 1] + errors[own, place + 1]
            features[k, j + 1] = errors[own, place - stride] + errors[own, place + stride]
            j += 2
        if len(before):
            for any_colour in range(3):
                features[k, j + any_colour] = before[3 * any_colour + band, place]
            features[k, j + 3] = before[own, place - 1] + before[own, place + 1]
            features[k, j + 4] = before[own, place - stride] + before[own, place + stride]


@njit(cache=True, nogil=True)
def _correct(chosen, mean, scale, deviations, weights, features, count):  # type: ignore[no-untyped-def]
    for k in range(len(chosen)):
        n, band = chosen[k] // 3, chosen[k] % 3
        shift = 0
        for j in range(count):
            shift += weights[band, j] * features[k, j]
        moved = np.rint(shift * (deviations[scale[n, band]] / (UNITS * WEIGHT_UNITS)))
        corrected = mean[n, band] + int(moved)
        mean[n, band] = min(max(corrected, -MEAN_LIMIT), MEAN_LIMIT)


@njit(cache=True, nogil=True)
def _note(chosen, scale, planes, moved, deviations, bordered, own):  # type: ignore[no-untyped-def]
    for k in range(len(chosen)):
        n, band = chosen[k] // 3, chosen[k] % 3
        mean = moved[k] * MEAN_UNITS / (1 << planes[band])
        error = np.rint(mean * UNITS / deviations[scale[n, band]])
        own[band, bordered[n]] = min(max(error, -LIMIT), LIMIT)
