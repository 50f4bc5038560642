"""Means corrected by what the errors of this very picture have in common.

Noise of a sensor, demosaicing and scanning leave errors that are correlated in a way of each
picture's own: between neighbours, between colours, from rung to rung. So the regression of a
coefficient's error on errors that are known already is learnt along the way (recursive least
squares, weighted by the information in a decision).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.exact.cdf import MEAN_UNITS
from diffcodec.quantized.chain import Selection
from diffcodec.quantized.model import MEAN_LIMIT
from diffcodec.quantized.refine import Conditional, Errors, Part, in_sets
from diffcodec.quantized.schedule import CHANNELS, PHASES, Step

UNITS = 16
"""Units of an error per standard deviation."""

LIMIT = 5 * UNITS
"""Largest magnitude of an error."""

HIGHEST_RUNG = 4
"""Rungs above this one have too few bits to be worth the time."""

FIRST_SET, LARGEST_SET = 1 << 11, 1 << 18
"""Coefficients of a band that are coded before the first are learnt from; most in a later set."""

_PRIOR = 100.0 * UNITS**4
"""Observations, of one deviation each, that speak for no correction."""

LEARNT = 1 << 12
"""Most coefficients of a set that are learnt from, evenly spread."""

WEIGHT_UNITS = 1 << 12
"""Weights are integers too; sums of their products with errors stay below 2^24."""

_MEMORY = 63 / 64
"""What is left of the sums after each further set."""


class Adaptation:
    """What is known of the errors of one picture.

    An error is the difference of a coefficient from its expectation, in standard deviations.
    Errors are integers, and sums of their products stay below 2^53, so that products of matrices
    are exact; all else is single operations that IEEE 754 rounds in one way only. So encoder and
    decoder agree on any machine.
    """

    def __init__(self) -> None:
        self._regressions: Regressions = {}
        self._latest: dict[int, Tensor] = {}  # errors of each level in its last step

    def begin(self, step: Step, height: int, width: int) -> "StepErrors | None":
        """Begin a step at a level of this size; None if its rung is too high to be corrected."""
        if step.twin > HIGHEST_RUNG:
            return None
        errors = StepErrors(self._regressions, height, width, self._latest.get(step.level))
        self._latest[step.level] = errors.errors
        return errors


class StepErrors:
    """The errors of one step, and of the one before at the same level.

    `errors` is int16 [CHANNELS, height + 2, width + 2]: zero at its border and where unknown.
    """

    def __init__(
        self, regressions: "Regressions", height: int, width: int, before: Tensor | None
    ) -> None:
        self._regressions, self._before = regressions, before
        self.errors = torch.zeros((CHANNELS, height + 2, width + 2), dtype=torch.int16)

    def of_phase(self, number: int, selection: Selection) -> "PhaseErrors":
        """What foretells the errors of a phase."""
        phase, places, stride = PHASES[number], selection.bordered, self.errors.shape[2]

        def at(errors: Tensor, colour: int) -> Tensor:
            return errors.flatten(1)[3 * colour : 3 * colour + 3, places]

        def beside(errors: Tensor) -> list[Tensor]:
            own = errors.flatten(1)[phase.channels]
            return [own[:, places - step] + own[:, places + step] for step in (1, stride)]

        features = [at(self.errors, colour) for colour in range(phase.colour)]
        if phase.parity:
            features += beside(self.errors)
        if self._before is not None:
            features += [at(self._before, colour) for colour in range(CHANNELS // 3)]
            features += beside(self._before)
        bands = selection.bands
        flat = [selection.of_rows(feature).numpy() for feature in features]
        known = np.array(flat, np.int16).reshape(len(features), bands[-1].stop)
        return PhaseErrors(self._regressions, number, known, bands)

    def add(self, number: int, selection: Selection, phase_errors: "PhaseErrors") -> None:
        """Take the errors of a phase, for later ones to see."""
        inside = self.errors[PHASES[number].channels, 1:-1, 1:-1]
        inside.copy_(selection.put(inside, torch.from_numpy(phase_errors.errors)))


class PhaseErrors:
    """The errors of one phase, int16 [n], and the features that foretell them, [features, n]."""

    def __init__(
        self,
        regressions: "Regressions",
        number: int,
        features: NDArray[np.int16],
        bands: list[slice],
    ) -> None:
        self._regressions, self._number = regressions, number
        self._features, self._bands = features, bands
        self.errors = np.zeros(bands[-1].stop, np.int16)

    def sets(self) -> Iterator[Part]:
        """The sets in which the phase is coded: a slice of each band."""
        bands = (in_sets(band, FIRST_SET, LARGEST_SET) for band in self._bands)
        return zip_longest(*bands, fillvalue=slice(0, 0))

    def corrected(self, part: Part, conditional: Conditional) -> Conditional:
        """The conditionals of a set, their means moved to where errors lead."""
        shifts = [
            self._regression(band).weights.astype(np.float32)
            @ self._features[:, some].astype(np.float32)
            for band, some in enumerate(part)
        ]
        scale = conditional.deviations() / (UNITS * WEIGHT_UNITS)
        means = np.rint(np.concatenate(shifts) * scale).astype(np.int32)
        mean = conditional.mean + torch.from_numpy(means)
        return replace(conditional, mean=mean.clamp_(-MEAN_LIMIT, MEAN_LIMIT))

    def learn(self, part: Part, conditional: Conditional, errors: Errors) -> None:
        """Take note of the errors that are left of a set, in units of its coefficients."""
        means = np.ldexp(errors * MEAN_UNITS, -conditional.plane.numpy())
        seen = np.rint(means * UNITS / conditional.deviations()).clip(-LIMIT, LIMIT)
        ends = np.cumsum([some.stop - some.start for some in part])
        for band, (some, own) in enumerate(zip(part, np.split(seen, ends[:-1]), strict=True)):
            if len(own):
                self.errors[some] = own
                spread = slice(some.start, some.stop, -(-len(own) // LEARNT))
                told, left = self._features[:, spread], self.errors[spread]
                self._regression(band).learn(told, left)

    def _regression(self, band: int) -> "Regression":
        key = self._number, band, len(self._features)
        return self._regressions.setdefault(key, Regression(len(self._features)))


class Regression:
    """Recursive least squares.

    `equations` are the normal ones, float64 [features, features + 1], `weights` their solution in
    WEIGHT_UNITS, integers.
    """

    def __init__(self, features: int) -> None:
        self.equations, self.weights = np.zeros((features, features + 1)), np.zeros(features)

    def learn(self, features: NDArray[np.int16], left: NDArray[np.int16]) -> None:
        """Take note of the errors that these weights have left, [n], and of their features."""
        told, target = features.astype(np.float64), left.astype(np.float64)
        matrix = told * target**2 @ told.T
        right = told @ target * UNITS**2
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
