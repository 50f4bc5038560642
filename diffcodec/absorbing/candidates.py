"""Whether a pixel has the colour of a candidate, asked one after the other.

The inputs of the mixer are what the contexts know, what equality among the neighbours says whatever
their colours are, and how many of them have the candidate's colour.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.absorbing.grids import KINDS
from diffcodec.absorbing.memory import CONTEXTS
from diffcodec.absorbing.mixing import (
    CERTAIN,
    ONE,
    adapt,
    hashed,
    logit,
    probability,
    reweigh,
    weighted,
)

TURNS = 4
"""Candidates that have statistics of their own; the last of them serves all later ones."""

STATES = 32
"""What a context can say of a candidate."""

PATTERNS, PATTERN_BITS = 4, 16
"""Tables of what the neighbours say, and the bits of a place in them."""

INPUTS = len(CONTEXTS) + PATTERNS + 1

_NEAR, _COUNTED = 6, 12  # neighbours that count one by one, and together
_AGREEING = 8  # how many contexts say the candidate, from 0
_TABLE = KINDS * TURNS

_MISSES = 12  # lengths of the share of misses

_CHOICES = 3  # of sets

SETS = _TABLE * (_AGREEING + _COUNTED + 1 + _MISSES)
"""Sets of weights: one each by how many contexts agree, by how many neighbours have the colour, and
by how often the first candidates of the picture have missed lately."""

_SLOWNESS = 7  # of that share

_LIMIT, _RATE = 255, 8


class Odds(NamedTuple):
    """Adaptive probabilities int32, how many observations each has had, uint8, and weights.

    `states` [KINDS * len(CONTEXTS) * TURNS * STATES], `patterns` [PATTERNS, 2^PATTERN_BITS],
    `weights` int64 [SETS, INPUTS]; `misses` int64 [1], the share of first candidates that were
    wrong lately, in units of 2^-16.
    """

    states: NDArray[np.int32]
    states_seen: NDArray[np.uint8]
    patterns: NDArray[np.int32]
    patterns_seen: NDArray[np.uint8]
    weights: NDArray[np.int64]
    misses: NDArray[np.int64]


class Question(NamedTuple):
    """Questions to some of the n pixels of a wave.

    `pixels` are the numbers of those that are asked, `colours` what each pixel of the wave has, -1
    if nothing yet, int32; `probabilities` float64 that the answer is yes, which are made of inputs
    and places of probabilities [n, INPUTS], and sets of weights [n, 3].
    """

    pixels: NDArray[np.int64]
    colours: NDArray[np.int32]
    probabilities: NDArray[np.float64]
    inputs: NDArray[np.int64]
    places: NDArray[np.int64]
    sets: NDArray[np.int64]

    @classmethod
    def of(cls, n: int) -> "Question":
        """No pixel of n has a colour yet."""
        return cls(
            np.arange(n),
            np.full(n, -1, np.int32),
            np.empty(n),
            np.empty((n, INPUTS), np.int64),
            np.empty((n, INPUTS), np.int64),
            np.empty((n, _CHOICES), np.int64),
        )


@njit(cache=True, nogil=True)
def proceed(odds, stretch, squash, memory, seen, question, kind, turn, asked, bits):  # type: ignore[no-untyped-def]
    """Ask pixels for their candidate of a turn; first learn from the turn before.

    Args: what the picture has taught; the curves; the memory and what was seen of it; the question;
    the kind of the phase; the turn; how many were asked in the one before, and their answers.

    Returns how many are asked now.
    """
    if turn > 0:
        _learn(odds, question, seen, bits, turn - 1)
    count = 0
    for q in range(asked):
        n = question.pixels[q]
        if question.colours[n] < 0 and turn < seen.counts[n]:
            question.pixels[count] = n
            count += 1
    _ask(odds, stretch, squash, memory, seen, question, count, turn, kind)
    return count


@njit(cache=True, nogil=True)
def _ask(odds, stretch, squash, memory, seen, question, asked, turn, kind):  # type: ignore[no-untyped-def]
    states, _, patterns, _, weights, misses = odds
    around, _, _, shapes, candidates, _ = seen
    pixels, _, probabilities, inputs, places, sets = question
    contexts, mask = len(CONTEXTS), np.uint64((1 << PATTERN_BITS) - 1)
    table = kind * TURNS + min(turn, TURNS - 1)
    lately, share = 0, misses[0] >> 5
    while share:
        lately, share = lately + 1, share >> 1
    for q in range(asked):
        n = pixels[q]
        colour, agreeing, surest = candidates[n, turn], 0, 0
        for c in range(contexts):
            state, sure = _state(memory, seen, n, c, turn)
            if sure >= 0:
                agreeing += 1
                surest = max(surest, sure)
            place = (table * contexts + c) * STATES + state
            places[q, c] = place
            inputs[q, c] = logit(states, place, stretch)
        near, count, nearest = 0, 0, _COUNTED
        for k in range(_COUNTED):
            if around[n, k] == colour:
                near |= (k < _NEAR) << k
                count += 1
                nearest = min(nearest, k)
        agreeing = min(agreeing, _AGREEING - 1)
        places[q, contexts] = (table << _NEAR | near) * _AGREEING + agreeing
        places[q, contexts + 1] = hashed(np.uint64(shapes[n, 0]), nearest * _TABLE + table) & mask
        places[q, contexts + 2] = hashed(np.uint64(shapes[n, 1]), nearest * _TABLE + table) & mask
        confident = agreeing * 8 + surest
        places[q, contexts + 3] = (table * (_COUNTED + 1) + count) * 64 + confident
        for k in range(PATTERNS):
            inputs[q, contexts + k] = logit(patterns[k], places[q, contexts + k], stretch)
        inputs[q, INPUTS - 1] = CERTAIN
        sets[q, 0] = table * _AGREEING + agreeing
        sets[q, 1] = _TABLE * _AGREEING + table * (_COUNTED + 1) + count
        sets[q, 2] = _TABLE * (_AGREEING + _COUNTED + 1) + table * _MISSES + lately
        total = 0
        for own in sets[q]:
            total += weighted(inputs[q], weights[own])
        probabilities[q] = probability(total // _CHOICES, squash) / ONE


@njit(cache=True, nogil=True)
def _state(memory, seen, n, context, turn):  # type: ignore[no-untyped-def]
    """What a context says of a candidate; and how sure it is of it, -1 if it is for another."""
    place = seen.places[n, context]
    if memory.check[context, place] != seen.checks[n, context]:
        return 0, -1
    colour, first = seen.candidates[n, turn], memory.first[context, place]
    sure = min(memory.firsts[context, place], 7)
    if first == colour:
        return 1 + sure, sure
    if memory.second[context, place] == colour:
        return 9 + min(memory.seconds[context, place], 3), -1
    for earlier in range(turn):
        if seen.candidates[n, earlier] == first:
            return 21 + min(sure, 3), -1
    return 13 + sure, -1


@njit(cache=True, nogil=True)
def _learn(odds, question, seen, bits, turn):  # type: ignore[no-untyped-def]
    states, states_seen, patterns, patterns_seen, weights, misses = odds
    pixels, colours, probabilities, inputs, places, sets = question
    contexts = len(CONTEXTS)
    for q in range(len(bits)):
        if bits[q]:
            colours[pixels[q]] = seen.candidates[pixels[q], turn]
        given = np.int64(probabilities[q] * ONE)
        if turn == 0:
            misses[0] += ((1 - bits[q]) * (ONE - 1) - misses[0]) >> _SLOWNESS
        for own in sets[q]:
            reweigh(inputs[q], weights[own], given, bits[q], _RATE)
        for c in range(contexts):
            adapt(states, states_seen, places[q, c], bits[q], _LIMIT)
        for k in range(PATTERNS):
            adapt(patterns[k], patterns_seen[k], places[q, contexts + k], bits[q], _LIMIT)
