"""Probabilities that adapt, and their mixing: all of it in integers, the same on every machine.

As in PAQ (Mahoney, 2005): an adaptive probability follows what it predicts, by a step that shrinks
with the number of observations; the logits of several are added with weights that follow the
gradient of the code length, one set of weights for each context of the mixer.

Probabilities have PRECISION bits inside a table and PROBABILITY_BITS in a decision; logits are in
units of 1/256, weights in units of 2^-16.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.entropy import PROBABILITY_BITS

PRECISION = 22

LOGITS = 3072
"""A mixed logit is smaller than that."""

SHARPEST = 1 << 4
"""The least probability of a decision, and what the greatest lacks of one."""

STRETCHED = 12
"""Bits of a probability whose logit is looked up."""

CERTAIN = 256
"""The input that is always there."""

ONE = 1 << PROBABILITY_BITS
HALF = 1 << PRECISION - 1

_FULL = (1 << PRECISION) - 1
_STEPS = np.array([int(ONE / (count + 1.6)) for count in range(256)])
_SHIFT = PRECISION - STRETCHED
_RATE = 18
_ENOUGH = 2 * SHARPEST


class Curves(NamedTuple):
    """Logits of probabilities, int32 [2^STRETCHED], and probabilities of logits, [2 LOGITS]."""

    stretch: NDArray[np.int32]
    squash: NDArray[np.int32]


def curves() -> Curves:
    """The curves that a model file holds, as this machine's logarithm rounds them."""
    p = (np.arange(1 << STRETCHED) + 0.5) / (1 << STRETCHED)
    logit = np.arange(-LOGITS, LOGITS) / 256
    squash = np.rint(ONE / (1 + np.exp(-logit))).clip(SHARPEST, ONE - SHARPEST)
    return Curves(np.rint(256 * np.log(p / (1 - p))).astype(np.int32), squash.astype(np.int32))


@njit(cache=True, nogil=True)
def hashed(state, value):  # type: ignore[no-untyped-def]
    """A hash uint64 with one more integer in it."""
    state = (state ^ np.uint64(value + 1)) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(29))


@njit(cache=True, nogil=True)
def logit(table, place, curve):  # type: ignore[no-untyped-def]
    """The logit of an adaptive probability."""
    return curve[table[place] >> _SHIFT]


@njit(cache=True, nogil=True)
def adapt(table, counts, place, bit, limit):  # type: ignore[no-untyped-def]
    """Move an adaptive probability towards a bit."""
    count = counts[place]
    table[place] += ((_FULL * bit - table[place]) * _STEPS[count]) >> PROBABILITY_BITS
    if count < limit:
        counts[place] = count + 1


@njit(cache=True, nogil=True)
def weighted(inputs, weights):  # type: ignore[no-untyped-def]
    """A sum of logits with weights; in units of both."""
    total = 0
    for k in range(len(inputs)):
        total += inputs[k] * weights[k]
    return total


@njit(cache=True, nogil=True)
def probability(total, curve):  # type: ignore[no-untyped-def]
    """The probability of a weighted sum, in units of 2^-PROBABILITY_BITS."""
    return curve[min(max(total >> 16, 1 - LOGITS), LOGITS - 1) + LOGITS]


@njit(cache=True, nogil=True)
def reweigh(inputs, weights, given, bit, rate):  # type: ignore[no-untyped-def]
    """Move weights along the gradient of a bit's code length; `given` was its probability."""
    error = bit * ONE - given
    if abs(error) <= _ENOUGH:  # probabilities end there, and weights would grow for ever
        return
    for k in range(len(inputs)):
        weights[k] += (inputs[k] * rate * error + (1 << _RATE - 1)) >> _RATE
