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
from diffcodec.entropy import PROBABILITY_BITS, Bits, Coder


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
        memory.remember(state.memory, seen.around, phase.kind, colours)


def _by_candidates(
    curves: Curves,
    state: State,
    seen: memory.Surroundings,
    kind: int,
    truth: NDArray[np.int32] | None,
    coder: Coder,
) -> NDArray[np.int32]:
    """Code which pixels have the colour of which candidate; -1 where of none. Raises _Cut."""
    odds, colours = state.learnt.candidates, np.full(len(seen.counts), -1, np.int32)
    wanted = None
    if state.truth is not None:
        wanted = state.truth.met[truth]
    asked = np.flatnonzero(seen.counts > 0)
    for turn in range(memory.CANDIDATES):
        if not len(asked):
            break
        question = candidates.ask(odds, *curves, state.memory, seen, asked, turn, kind)
        candidate = seen.candidates[asked, turn]
        bits = _ask(
            coder,
            question.probabilities / (1 << PROBABILITY_BITS),
            None if wanted is None else (wanted[asked] == candidate).astype(np.int32),
        )
        candidates.learn(odds, question, bits, turn)
        colours[asked[bits == 1]] = candidate[bits == 1]
        asked = asked[bits == 0]
        asked = asked[seen.counts[asked] > turn + 1]
    return colours


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
    known, errors = np.zeros(n, np.uint64), np.zeros((2, n), np.int64)
    exact = None if state.truth is None else state.truth.samples[truth]
    for number, own in enumerate(state.layout):
        guesses = samples.guess(odds, state.palette, around, number, own.role, kind, known, errors)
        nodes = np.ones(n, np.int64)
        for bit in range(8):
            table = kind * samples.ROLES + own.role
            question = samples.ask(odds, *curves, guesses, nodes, bit, table)
            bits = _ask(
                coder,
                question.probabilities / (1 << PROBABILITY_BITS),
                None if exact is None else (exact[:, number] >> (7 - bit) & 1).astype(np.int32),
            )
            samples.learn(odds, question, bits)
            nodes = 2 * nodes + bits
        found = nodes - samples.VALUES
        samples.note(odds, guesses, found)
        values[:, number] = found
        known = samples.extended(known, found)
        errors[1] = found - guesses.expected
        if own.role == samples.FIRST:
            errors[0] = errors[1]
    colours = np.array([state.colour_of(value) for value in values], np.int32)
    if state.truth is not None:
        state.truth.met[truth] = colours
    return colours
