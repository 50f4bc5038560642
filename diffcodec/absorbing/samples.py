"""The colour of a pixel that equals no candidate: its bytes, bit by bit.

Each bit has a probability from several hashed contexts, which learn the colours of the picture, and
from a histogram of errors of a plain prediction, which knows smooth parts; they are mixed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.absorbing.grids import BASE, KINDS
from diffcodec.absorbing.memory import room
from diffcodec.absorbing.mixing import (
    CERTAIN,
    HALF,
    ONE,
    STRETCHED,
    adapt,
    hashed,
    logit,
    probability,
    reweigh,
    weighted,
)

VALUES = 256
"""Of a byte."""

FIRST, SECOND, THIRD, ALPHA, LOW = range(5)
"""Roles of bytes: of the colours in the order of the stream, of alpha, low bytes of 16 bits."""

ROLES = 5

CONTEXTS = 7
"""Hashed contexts of a byte."""

INPUTS = CONTEXTS + 2

ERRORS = 2 * VALUES - 1
"""Of a prediction; the middle one is 0."""

CLASSES = KINDS * ROLES * 9 * 9
"""Of histograms: by the spread of the neighbours and the error of the byte before."""

EXACT = np.array([True, False, False, True, True, True, False])
"""Contexts that know what stands in the picture exactly; how many have met this before chooses the
weights of the mixer."""

_MET = int(EXACT.sum()) + 1

SETS = KINDS * ROLES * 8 * _MET
"""Sets of weights."""

_LIMIT, _RATE = 60, 24
_SEEN, _BESIDE = 32, 8  # what an error counts in a histogram, and its neighbours


class Odds(NamedTuple):
    """Adaptive probabilities int32 [CONTEXTS, places], how many observations each has had, uint8;
    weights int64 [SETS, INPUTS]; histograms int64 [CLASSES, ERRORS]."""

    bits: NDArray[np.int32]
    bits_seen: NDArray[np.uint8]
    weights: NDArray[np.int64]
    histograms: NDArray[np.int64]


def unlearnt(pixels: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The probabilities of bits in a picture of so many pixels that is not begun."""
    shape = CONTEXTS, room(pixels)
    return np.full(shape, HALF, np.int32), np.zeros(shape, np.uint8)


@dataclass(frozen=True)
class Byte:
    """A byte of a pixel: of which plane, its shift in the sample, and its role."""

    plane: int
    shift: int
    role: int


def layout(mode: str, depth: int) -> list[Byte]:
    """The bytes of a pixel as the stream has them: alpha, green, blue, red; high bytes first."""
    planes = [(mode.index(letter), role) for letter, role in _ORDER[mode]]
    return [
        Byte(plane, shift, LOW if shift < depth - 8 else role)
        for plane, role in planes
        for shift in range(depth - 8, -1, -8)
    ]


_ORDER = {
    "L": [("L", FIRST)],
    "LA": [("A", ALPHA), ("L", FIRST)],
    "RGB": [("G", FIRST), ("B", SECOND), ("R", THIRD)],
    "RGBA": [("A", ALPHA), ("G", FIRST), ("B", SECOND), ("R", THIRD)],
}


class Guesses(NamedTuple):
    """Of a byte of n pixels: hashes of its contexts [n, CONTEXTS]; its prediction [n]; the class of
    its histogram [n]; sums of that up to each value [n, VALUES + 1]."""

    contexts: NDArray[np.int64]
    expected: NDArray[np.int64]
    classes: NDArray[np.int64]
    sums: NDArray[np.int64]


class Question(NamedTuple):
    """A byte of n pixels, bit by bit.

    `nodes` are the bits that are there after a leading 1, `probabilities` float64 that the next one
    is 1; they are made of inputs [n, INPUTS], places of probabilities [n, CONTEXTS] and sets of
    weights [n].
    """

    nodes: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    inputs: NDArray[np.int64]
    places: NDArray[np.int64]
    sets: NDArray[np.int64]

    @classmethod
    def of(cls, n: int) -> "Question":
        """Nothing is known of n pixels."""
        return cls(
            np.ones(n, np.int64),
            np.empty(n),
            np.empty((n, INPUTS), np.int64),
            np.empty((n, CONTEXTS), np.int64),
            np.empty(n, np.int64),
        )


def guess(
    odds: Odds,
    palette: NDArray[np.uint8],
    around: NDArray[np.int32],
    number: int,
    role: int,
    kind: int,
    known: NDArray[np.uint64],
    errors: NDArray[np.int64],
) -> Guesses:
    """What is expected of a byte.

    Args:
        odds: what the picture has taught.
        palette: the bytes of each colour, [colours, bytes].
        around: colours of the neighbours of n pixels, [n, NEIGHBOURS].
        number, role: of the byte.
        kind: of the phase.
        known: hashes of the bytes before it, [n].
        errors: of the predictions of the first colour and of the byte before, [2, n].
    """
    n = len(around)
    guesses = Guesses(
        np.empty((n, CONTEXTS), np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty((n, VALUES + 1), np.int64),
    )
    _guess(odds.histograms, palette, around, number, role, kind, known, errors, guesses)
    return guesses


@njit(cache=True, nogil=True)
def _guess(histograms, palette, around, number, role, kind, known, errors, guesses):  # type: ignore[no-untyped-def]
    contexts, expected, classes, sums = guesses
    v = np.empty(4, np.int64)
    own = np.uint64(kind * ROLES + role)
    for q in range(len(known)):
        for k in range(4):
            v[k] = VALUES // 2
            for j in range(k, around.shape[1]):
                if around[q, j] >= 0:
                    v[k] = palette[around[q, j], number]
                    break
        low, high = min(min(v[0], v[1]), min(v[2], v[3])), max(max(v[0], v[1]), max(v[2], v[3]))
        if kind == BASE:
            plain = min(max(v[0] + v[1] - v[2], min(v[0], v[1])), max(v[0], v[1]))
        else:
            plain = (v[0] + v[1] + v[2] + v[3] - low - high + 1) >> 1
        if role in (SECOND, THIRD):  # colours err together
            plain = min(max(plain + errors[0, q], 0), VALUES - 1)
        expected[q] = plain
        spread, beside = _length(high - low), _length(abs(errors[1, q]))
        classes[q] = ((kind * ROLES + role) * 9 + spread) * 9 + beside
        sums[q, 0] = 0
        for value in range(VALUES):
            count = histograms[classes[q], value - plain + VALUES - 1]
            sums[q, value + 1] = sums[q, value] + count
        a, b = around[q, 0], around[q, 1]
        exact = hashed(np.uint64(role), known[q])
        contexts[q, 0] = exact >> np.uint64(1)
        near = hashed(hashed(hashed(own, plain >> 1), spread), beside)
        contexts[q, 1] = near >> np.uint64(1)
        contexts[q, 2] = hashed(exact, 1 + (plain >> 2)) >> np.uint64(1)
        contexts[q, 3] = hashed(hashed(hashed(own, v[0]), v[1]), known[q]) >> np.uint64(1)
        contexts[q, 4] = hashed(hashed(exact, VALUES + a), 0) >> np.uint64(1)
        four = hashed(hashed(hashed(hashed(own, a), b), around[q, 2]), around[q, 3])
        contexts[q, 5] = hashed(four, known[q]) >> np.uint64(1)
        coarse = (v[0] >> 4 << 4 | v[1] >> 4) << 8 | v[2] >> 4 << 4 | v[3] >> 4
        contexts[q, 6] = hashed(hashed(hashed(own, coarse), beside), 1) >> np.uint64(1)


@njit(cache=True, nogil=True)
def _length(number):  # type: ignore[no-untyped-def]
    """The bits of a number."""
    bits = 0
    while number:
        bits, number = bits + 1, number >> 1
    return bits


@njit(cache=True, nogil=True)
def proceed(odds, stretch, squash, guesses, question, table, bit, bits):  # type: ignore[no-untyped-def]
    """Ask for a bit of a byte, from the highest, number 0, on; first learn from the one before.

    Args: what the picture has taught; the curves; what is expected of the byte; the question; the
    role of the byte and the kind of the phase as one number; the number of the bit, 8 after the
    last; the bits before it, int32 [n], if there are any.
    """
    if bit > 0:
        _learn(odds, question, bits)
    if bit < 8:
        _ask(odds, stretch, squash, guesses, question, table, bit)


@njit(cache=True, nogil=True)
def _ask(odds, stretch, squash, guesses, question, table, bit):  # type: ignore[no-untyped-def]
    bits, seen, weights, _ = odds
    contexts, _, _, sums = guesses
    nodes, probabilities, inputs, places, sets = question
    mask = np.uint64(bits.shape[1] - 1)
    for q in range(len(nodes)):
        met = 0
        for k in range(CONTEXTS):
            place = np.int64(hashed(np.uint64(contexts[q, k]), nodes[q]) & mask)
            places[q, k] = place
            inputs[q, k] = logit(bits[k], place, stretch) if seen[k, place] else 0
            if seen[k, place] and EXACT[k]:
                met += 1
        low = (nodes[q] << (8 - bit)) - VALUES
        high = low + (VALUES >> bit)
        upper = sums[q, high] - sums[q, (low + high) >> 1]
        whole = sums[q, high] - sums[q, low]
        inputs[q, CONTEXTS] = stretch[upper * ((1 << STRETCHED) - 1) // whole]
        inputs[q, CONTEXTS + 1] = CERTAIN
        sets[q] = (table * 8 + bit) * _MET + met
        probabilities[q] = probability(weighted(inputs[q], weights[sets[q]]), squash) / ONE


@njit(cache=True, nogil=True)
def _learn(odds, question, bits):  # type: ignore[no-untyped-def]
    table, seen, weights, _ = odds
    nodes, probabilities, inputs, places, sets = question
    for q in range(len(bits)):
        given = np.int64(probabilities[q] * ONE)
        reweigh(inputs[q], weights[sets[q]], given, bits[q], _RATE)
        for k in range(CONTEXTS):
            adapt(table[k], seen[k], places[q, k], bits[q], _LIMIT)
        nodes[q] = 2 * nodes[q] + bits[q]


@njit(cache=True, nogil=True)
def extended(known, values):  # type: ignore[no-untyped-def]
    """Hashes of bytes, uint64 [n], with one more in each."""
    longer = np.empty_like(known)
    for q in range(len(known)):
        longer[q] = hashed(known[q], values[q])
    return longer


@njit(cache=True, nogil=True)
def note(odds, guesses, values):  # type: ignore[no-untyped-def]
    """Learn from the errors of a byte's predictions."""
    for q in range(len(values)):
        error = values[q] - guesses.expected[q] + VALUES - 1
        histogram = odds.histograms[guesses.classes[q]]
        histogram[error] += _SEEN
        if error > 0:
            histogram[error - 1] += _BESIDE
        if error < ERRORS - 1:
            histogram[error + 1] += _BESIDE
