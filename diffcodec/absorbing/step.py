"""The steps of the chain: flat blocks, and the pixels of a phase, wave by wave.

The same code serves encoder and decoder.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from diffcodec.absorbing import blocks, candidates, memory, samples
from diffcodec.absorbing.blocks import Blocks
from diffcodec.absorbing.grids import CENTRES, Phase, neighbours, phases
from diffcodec.absorbing.mixing import Curves
from diffcodec.absorbing.state import State
from diffcodec.entropy import Bits, Coder

_NO_BITS = np.empty(0, np.int32)


class _Cut(Exception):
    """The coder's data ended."""


def walk(
    curves: Curves, state: State, coder: Coder, progress: Callable[[float], None] = lambda _: None
) -> Iterator[int]:
    """Take a state down the chain, and yield each rung when it is done.

    A state with `truth` is encoded, others are decoded. The walk ends early where the coder's data
    do. `progress` gets the fraction of the work that is done.
    """
    order = phases(state.height, state.width)
    try:
        for number, phase in enumerate(order):
            if phase.kind == CENTRES and 2 * phase.spacing >= blocks.LEAST:
                _unmask_blocks(state, 2 * phase.spacing, coder)
            _unmask(curves, state, phase, coder)
            progress(4.0 ** ((number + 1 - len(order)) // 2))  # a phase has twice the last but one
            if phase.rung is not None:
                state.rung = phase.rung
                yield phase.rung
    except _Cut:
        return


def _ask(coder: Coder, probabilities: NDArray[np.float64], truth: Bits | None) -> Bits:
    """Code bits. Raises _Cut if the data end before the last."""
    bits = coder.code(probabilities, truth)
    if len(bits) < len(probabilities):
        raise _Cut
    return bits


def _unmask_blocks(state: State, side: int, coder: Coder) -> None:
    """Code which blocks have one colour, and fill them. Raises _Cut."""
    picture, learnt = state.picture, state.learnt
    found = Blocks.of(picture, state.masked, side)
    truth = None
    if state.truth is not None:
        truth = found.uniform(state.truth.met[state.truth.colours])
    flat = np.zeros(len(found.cases), np.bool_)
    try:
        for start in range(0, len(flat), blocks.SET):
            part = slice(start, start + blocks.SET)
            cases = found.cases[part]
            bits = _ask(
                coder,
                blocks.probabilities(learnt.flat, cases),
                None if truth is None else truth[part],
            )
            blocks.learn(learnt.flat, learnt.flat_seen, cases, bits)
            flat[part] = bits == 1
    finally:
        chosen = np.zeros(found.open.shape, np.bool_)
        chosen[found.open] = flat
        filled = found.spread(chosen, picture.shape) & state.masked
        picture[filled] = found.spread(found.corners, picture.shape)[filled]
        state.masked &= ~filled


def _unmask(curves: Curves, state: State, phase: Phase, coder: Coder) -> None:
    """Code the pixels of a phase that are still masked. Raises _Cut."""
    stride = state.image.shape[1]
    edge = (stride - state.width) // 2
    image = state.image.reshape(-1)
    offsets = phase.spacing * (neighbours(phase.kind) @ np.array([stride, 1]))
    for rows, columns in phase.waves(state.masked):
        at = (rows + edge) * stride + columns + edge
        seen = memory.look(state.memory, image, at, offsets, phase.kind)
        truth = None if state.truth is None else state.truth.colours[rows, columns]
        colours = _by_candidates(curves, state, seen, phase.kind, truth, coder)
        rest = np.flatnonzero(colours < 0)
        if len(rest):
            own = None if truth is None else truth[rest]
            colours[rest] = _by_samples(curves, state, seen.around[rest], phase.kind, own, coder)
        image[at] = colours
        state.masked[rows, columns] = False
        memory.remember(state.memory, seen, colours)


def _by_candidates(
    curves: Curves,
    state: State,
    seen: memory.Surroundings,
    kind: int,
    truth: NDArray[np.int32] | None,
    coder: Coder,
) -> NDArray[np.int32]:
    """Code which pixels have the colour of which candidate; -1 where of none. Raises _Cut."""
    odds, question = state.learnt.candidates, candidates.Question.of(len(seen.counts))
    wanted = None
    if state.truth is not None:
        wanted = state.truth.met[truth]
    asked, bits = len(seen.counts), _NO_BITS
    for turn in range(memory.CANDIDATES + 1):
        asked = candidates.proceed(
            odds, *curves, state.memory, seen, question, kind, turn, asked, bits
        )
        if not asked:
            break
        known = None
        if wanted is not None:
            pixels = question.pixels[:asked]
            known = (wanted[pixels] == seen.candidates[pixels, turn]).astype(np.int32)
        bits = _ask(coder, question.probabilities[:asked], known)
    return question.colours


def _by_samples(
    curves: Curves,
    state: State,
    around: NDArray[np.int32],
    kind: int,
    truth: NDArray[np.int32] | None,
    coder: Coder,
) -> NDArray[np.int32]:
    """Code the colours of pixels byte by byte, [n]. Raises _Cut."""
    odds, n = state.learnt.samples, len(around)
    values = np.zeros((n, len(state.layout)), np.uint8)
    before, errors = np.zeros(n, np.uint64), np.zeros((2, n), np.int64)
    exact = None if state.truth is None else state.truth.samples[truth]
    for number, own in enumerate(state.layout):
        guesses = samples.guess(odds, state.palette, around, number, own.role, kind, before, errors)
        question, bits = samples.Question.of(n), _NO_BITS
        table = kind * samples.ROLES + own.role
        truths = None if exact is None else exact[:, number].astype(np.int32)
        for bit in range(9):
            samples.proceed(odds, *curves, guesses, question, table, bit, bits)
            if bit < 8:
                known = None if truths is None else truths >> (7 - bit) & 1
                bits = _ask(coder, question.probabilities, known)
        found = question.nodes - samples.VALUES
        samples.note(odds, guesses, found)
        values[:, number] = found
        before = samples.extended(before, found)
        errors[1] = found - guesses.expected
        if own.role == samples.FIRST:
            errors[0] = errors[1]
    colours = np.array([state.colour_of(value) for value in values], np.int32)
    if state.truth is not None:
        state.truth.met[truth] = colours
    return colours
