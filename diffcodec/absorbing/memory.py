"""What followed the surroundings of a pixel before: hashed contexts of exact colours.

A context is the colours of some nearest known pixels. For each it remembers two colours that
followed, and how often in a row. So glyphs, tiles and dither that were seen once are predicted.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffcodec.absorbing.grids import NEIGHBOURS
from diffcodec.absorbing.mixing import hashed

CONTEXTS = np.array([NEIGHBOURS, 12, 9, 7, 5, 4, 3, 2])
"""Known pixels in each context."""

CANDIDATES = 8
"""Most colours that are asked for before a pixel gets its colour by its samples."""

SHORT, LONG = 6, 12
"""How many of the nearest pixels a pattern of equality has, which is blind to their colours."""

MOST_SEEN = 31

_LEAST_BITS, _MOST_BITS = 12, 20  # of the number of a context's places


class Memory(NamedTuple):
    """Of each context [len(CONTEXTS), places]: a check of what a place is for, 0 if nothing; the
    colour that followed, and one that did before, -1 if none; how often each."""

    check: NDArray[np.int16]
    first: NDArray[np.int32]
    firsts: NDArray[np.uint8]
    second: NDArray[np.int32]
    seconds: NDArray[np.uint8]


class Surroundings(NamedTuple):
    """Of n pixels: colours of the neighbours [n, NEIGHBOURS], -1 where there are none; places in
    the contexts and their checks [n, len(CONTEXTS)]; hashes of the patterns of SHORT and LONG
    pixels [n, 2]; candidates [n, CANDIDATES], and how many there are."""

    around: NDArray[np.int32]
    places: NDArray[np.int64]
    checks: NDArray[np.int16]
    shapes: NDArray[np.int64]
    candidates: NDArray[np.int32]
    counts: NDArray[np.int64]


def room(pixels: int) -> int:
    """How many places each hashed context of a picture of so many pixels has."""
    return 1 << min(max(pixels.bit_length(), _LEAST_BITS), _MOST_BITS)


def empty(pixels: int) -> Memory:
    """The memory of a picture of so many pixels that is not begun."""
    shape = len(CONTEXTS), room(pixels)
    return Memory(
        np.zeros(shape, np.int16),
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.uint8),
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.uint8),
    )


def look(
    memory: Memory,
    image: NDArray[np.int32],
    at: NDArray[np.int64],
    offsets: NDArray[np.int64],
    kind: int,
) -> Surroundings:
    """The surroundings of pixels of a phase of some kind.

    Args: colours of the bordered picture, flat, -1 where masked; places in it of the pixels, and
    how far away from them their neighbours are.
    """
    found = Surroundings(
        np.empty((len(at), NEIGHBOURS), np.int32),
        np.empty((len(at), len(CONTEXTS)), np.int64),
        np.empty((len(at), len(CONTEXTS)), np.int16),
        np.empty((len(at), 2), np.int64),
        np.empty((len(at), CANDIDATES), np.int32),
        np.empty(len(at), np.int64),
    )
    _look(memory, image, at, offsets, kind, found)
    return found


@njit(cache=True, nogil=True)
def _look(memory, image, at, offsets, kind, found):  # type: ignore[no-untyped-def]
    around, places, checks, shapes, candidates, counts = found
    mask = np.uint64(memory.check.shape[1] - 1)
    for n in range(len(at)):
        for k in range(len(offsets)):
            around[n, k] = image[at[n] + offsets[k]]
        _shapes(around[n], kind, shapes[n])
        count = 0
        for c in range(len(CONTEXTS)):
            place, check = _place(around[n], kind, c, mask)
            places[n, c], checks[n, c] = place, check
            if memory.check[c, place] == check:
                count = _join(memory.first[c, place], candidates[n], count)
                count = _join(memory.second[c, place], candidates[n], count)
        for k in range(len(offsets)):
            count = _join(around[n, k], candidates[n], count)
        counts[n] = count


@njit(cache=True, nogil=True)
def _shapes(around, kind, shapes):  # type: ignore[no-untyped-def]
    """Hash, for each neighbour, which of those before it has the same colour first."""
    state = np.uint64(kind)
    for k in range(LONG):
        same = k
        for earlier in range(k):
            if around[earlier] == around[k]:
                same = earlier
                break
        state = hashed(state, same)
        if k == SHORT - 1:
            shapes[0] = np.int64(state >> np.uint64(1))
    shapes[1] = np.int64(state >> np.uint64(1))


@njit(cache=True, nogil=True)
def _place(around, kind, context, mask):  # type: ignore[no-untyped-def]
    """Where a context is remembered, and the check of it."""
    state = np.uint64(kind * len(CONTEXTS) + context)
    for k in range(CONTEXTS[context]):
        state = hashed(state, around[k])
    return np.int64(state & mask), np.int16(state >> np.uint64(50)) + 1


@njit(cache=True, nogil=True)
def _join(colour, candidates, count):  # type: ignore[no-untyped-def]
    """Add a colour to the candidates, of which there are so many, unless it is one already."""
    if colour < 0 or count == len(candidates):
        return count
    for k in range(count):
        if candidates[k] == colour:
            return count
    candidates[count] = colour
    return count + 1


@njit(cache=True, nogil=True)
def remember(memory, seen, colours):  # type: ignore[no-untyped-def]
    """Remember which colours followed their surroundings."""
    check, first, firsts, second, seconds = memory
    for n in range(len(colours)):
        colour = colours[n]
        for c in range(len(CONTEXTS)):
            place, own = seen.places[n, c], seen.checks[n, c]
            if check[c, place] != own:
                if firsts[c, place] > 1:  # what has proved itself goes slowly
                    firsts[c, place] -= 2
                else:
                    check[c, place] = own
                    first[c, place], firsts[c, place] = colour, 0
                    second[c, place], seconds[c, place] = -1, 0
            elif first[c, place] == colour:
                firsts[c, place] = min(firsts[c, place] + 1, MOST_SEEN)
            else:
                firsts[c, place] //= 2
                if second[c, place] == colour:
                    seconds[c, place] += 1
                elif seconds[c, place] > 0:
                    seconds[c, place] -= 1
                else:
                    second[c, place] = colour
                if second[c, place] == colour and seconds[c, place] >= firsts[c, place]:
                    second[c, place], first[c, place] = first[c, place], colour
                    firsts[c, place], seconds[c, place] = seconds[c, place], firsts[c, place]
