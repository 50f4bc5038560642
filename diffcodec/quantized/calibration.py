"""Probabilities corrected by what this very picture's stream has shown so far.

A model is wrong in the same direction all over a picture whose noise or sharpness it has not met.
So decisions are counted by the probability that they were given, and later ones take the odds
that earlier ones have had: secondary symbol estimation, as in PAQ (Mahoney, 2005).
"""

import numpy as np
from numpy.typing import NDArray

from diffcodec.entropy import PROBABILITY_BITS, Bits, Coder, Probabilities
from diffcodec.quantized.versions import NEWEST, RULES, Rules

KINDS, WAKING = 7, 6
"""Kinds of decisions: leaving zero, gaining a bit, sign; each for HL and LH, and for HH. The last
is whether a square wakes."""

_TAIL = 2.0 ** -np.arange(15, 1, -0.5)
_EDGES_1 = np.concatenate([_TAIL, np.arange(6, 15) / 20, 1 - _TAIL[::-1]])
"""Edges of the bins in version 1. Some are out of order, so the bin that a search finds there
depends on the search: numpy's, which takes the keys in turn."""

_BINS = len(_EDGES_1) + 1
_ONE = 1 << PROBABILITY_BITS

_BIN = np.searchsorted(np.sort(_EDGES_1), np.arange(_ONE) / _ONE)
"""The bin of a probability in units of 1/_ONE, from version 2 on."""


class Calibration:
    """Counts of the decisions of one picture, by the rules of its stream.

    All counts are sums of integers below 2^53 and each operation on them is rounded in one way
    only, so encoder and decoder agree on any machine.
    """

    def __init__(self, rules: Rules = RULES[NEWEST]) -> None:
        self._rules = rules
        # For each set: seen ones, expected ones, seen zeros, expected zeros; in 1/_ONE.
        self._counts: dict[tuple[int, bool], NDArray[np.float64]] = {}

    def code(
        self,
        coder: Coder,
        group: tuple[int, bool],
        kinds: NDArray[np.int64],
        probabilities: Probabilities,
        truth: Bits | None,
        *,
        prior: int,
    ) -> Bits:
        """Pass bits through the coder with corrected probabilities, and learn from them.

        Args: the coder; colour of the coefficients and whether this is the finish; the kind of
        each decision, 0..KINDS-1; its probability and the true bit, as `Coder.code` takes them;
        the model's prior.
        """
        counts = self._counts.setdefault(group, np.zeros((4, KINDS * _BINS)))
        seen, expected, unseen, unexpected = counts + float(prior) * _ONE
        ratio = (seen / expected) / (unseen / unexpected)
        units = probabilities * _ONE
        if self._rules.ordered:
            where = kinds * _BINS + _BIN[units.astype(np.int64)]
        else:
            where = kinds * _BINS + np.searchsorted(_EDGES_1, probabilities)
        odds = probabilities * ratio[where]
        corrected = odds / (odds + (1 - probabilities))
        bits = coder.code(np.clip(np.rint(corrected * _ONE), 1, _ONE - 1) / _ONE, truth)
        told = len(bits)
        where, bins = where[:told], KINDS * _BINS
        total = np.bincount(where, minlength=bins) * _ONE
        ones = np.bincount(where[bits.astype(bool)], minlength=bins) * _ONE
        foretold = np.bincount(where, units[:told], bins)
        counts *= self._rules.memory
        counts += [ones, foretold, total - ones, total - foretold]
        return bits
