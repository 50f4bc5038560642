"""One step of the chain: the device predicts, integers cross the border, the host codes.

The same code serves encoder and decoder.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from diffcodec.entropy import PROBABILITY_BITS, Coder
from diffcodec.quantized import coding, significance
from diffcodec.quantized.corrections import SIGNIFICANCE
from diffcodec.quantized.model import Model
from diffcodec.quantized.predict import Conditionals, Context
from diffcodec.quantized.pyramid import Pyramid, checkerboard
from diffcodec.quantized.schedule import LOW, Phase, Step
from diffcodec.quantized.state import State

ALPHA, FIT = 3, 4
"""Stand for the colour of a second state, alpha, and where biases are coded, not colours."""


class _Cut(Exception):
    """The coder's data ended inside a step."""


def walk(
    model: Model,
    states: list[State],
    coder: Coder,
    progress: Callable[[float], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> Iterator[int]:
    """Take states of equal size down the chain; yield each rung when it is done.

    All are empty, or at the end of the same rung. States with `values` are encoded, others are
    decoded. The walk ends early where the coder's data do. `progress` gets the fraction of the
    work that is done, `begin` the colour of the decisions that follow, ALPHA or FIT.
    """
    pyramid = states[0].pyramid
    order = [step for step in pyramid.steps if step.rung < states[0].rungs[step.level]]
    work = list(accumulate(_work(pyramid, step) for step in order))
    for step, done in zip(order, work, strict=True):
        try:
            for state, tell in zip(states, (begin, lambda _: begin(ALPHA)), strict=False):
                _take(model, state, step, coder, tell)
        except _Cut:
            return
        progress(done / work[-1])
        if step.level == pyramid.finest:
            yield step.rung


def _work(pyramid: Pyramid, step: Step) -> int:
    """About how long a step takes; at the highest rungs the large levels are all zero."""
    h, w = pyramid.size(step.level)
    return h * w if step.rung_at_8_bits <= 8 else 1


def _take(
    model: Model, state: State, step: Step, coder: Coder, begin: Callable[[int], None]
) -> None:
    """Refine one level of one picture to the planes of a rung. Raises _Cut."""
    level, pyramid = step.level, state.pyramid
    new = pyramid.planes(step.rung, level)
    if level == LOW:
        state.low, state.low_level = pyramid.no_low(), LOW
    begin(0)
    if level in state.significant or _becomes_significant(model, state, step, new, coder):
        _refine(model, state, step, new, coder, begin)
    state.planes[level], state.rungs[level] = new, step.rung


def _becomes_significant(model: Model, state: State, step: Step, new: Tensor, coder: Coder) -> bool:
    """Code whether the level has its first significant coefficient at this rung."""
    truth = None
    if state.values is not None:
        truth = np.array([bool((state.values[step.level].abs() >> new).any())], np.int32)
    odds = int(model.level_odds[step.rung_at_8_bits, step.level - 1]) / (1 << PROBABILITY_BITS)
    bits = coder.code(np.array([odds]), truth)
    if len(bits) == 0:
        raise _Cut
    if bits[0]:
        state.significant.add(step.level)
    return bool(bits[0])


def _significant_blocks(
    model: Model,
    state: State,
    step: Step,
    new: Tensor,
    coder: Coder,
    begin: Callable[[int], None],
) -> list[Tensor]:
    """Code which blocks have their first significant coefficient at this rung.

    Returns the positions in significant blocks, colour by colour, bool [h, w]. Raises _Cut.
    """
    level, floors = step.level, state.floors[step.level]
    if max(floors.shape[-2:]) <= significance.SIDE:  # a single block, of a level that has left zero
        return [torch.ones(floors.shape[-2:], dtype=torch.bool, device="cpu")] * state.colours
    table = model.block_odds[step.rung_at_8_bits, level - 1].numpy()
    before = significance.significant(floors)
    coarser = state.pyramid.coarser(level)
    above = before if coarser is None else significance.significant(state.floors[coarser])
    truth = None
    if state.values is not None:
        truth = significance.significant(state.values[level].abs() >> new)
    now: list[Tensor] = []
    for colour in range(state.colours):
        begin(colour)
        rest = ~before[colour]
        case = significance.contexts(before[colour], above[colour], now[-1] if now else None)[rest]
        bits = state.corrections.odds(colour, step.rung).code(
            coder,
            SIGNIFICANCE,
            table[colour][case.numpy()],
            None if truth is None else truth[colour][rest].int().numpy(),
        )
        if len(bits) < len(case):
            raise _Cut
        now.append(before[colour].masked_scatter(rest, torch.from_numpy(bits).bool()))
    return [significance.positions(blocks, *floors.shape[-2:]) for blocks in now]


def _refine(
    model: Model,
    state: State,
    step: Step,
    new: Tensor,
    coder: Coder,
    begin: Callable[[int], None],
) -> None:
    """Code the phases of a step. Raises _Cut."""
    level, pyramid = step.level, state.pyramid
    old = state.planes[level]
    if torch.equal(old, new):
        return  # a coarse level may be exact before the finish
    height, width = pyramid.size(level)
    significant = _significant_blocks(model, state, step, new, coder, begin)
    parities = checkerboard(height, width)
    phases = [
        (number, phase, significant[phase.colour] & (parities == phase.parity))
        for number, phase in state.phases()
    ]
    wanted = torch.stack(significant).any(0)
    if not bool(wanted.any()):
        return
    state.refine_low(level)
    network = model.network
    if state.fitted is not None:
        numbers = [number for number, _ in state.phases()]
        begin(FIT)
        if not state.fitted.pass_row(model.process.ladder.index(step), numbers, coder):
            raise _Cut
        network = state.fitted.network
    conditionals = Conditionals(model, network, state, step, wanted)
    context = Context(height, width)
    errors = state.corrections.begin(step, height, width)
    exists = pyramid.exists(level)[:3].flatten(1)
    floors = state.floors[level].clone()
    state.floors[level] = floors
    for place, (number, phase, chosen) in enumerate(phases):
        places = chosen.flatten().nonzero()[:, 0]
        if not len(places):
            continue
        bordered = (places // width + 1) * (width + 2) + places % width + 1
        mean, scale = conditionals.of_phase(number, context, places, bordered)
        begin(phase.colour)
        batch = _batch(state, level, phase, places, (old, new), mean, scale, exists)
        moves, ended = coding.code(
            batch,
            model.table,
            coder,
            state.corrections.odds(phase.colour, step.rung),
            errors.of_phase(number, bordered.numpy()) if errors else None,
        )
        floors[0, phase.channels].flatten(1)[:, places] = torch.from_numpy(batch.floors).T
        if ended:
            state.planes[level] = _planes_at_cut(phases[place:], floors, old, new, batch)
            raise _Cut
        context.add(phase.colour, bordered, moves)


def _planes_at_cut(
    rest: list[tuple[int, Phase, Tensor]],
    floors: Tensor,
    old: Tensor,
    new: Tensor,
    batch: coding.Batch,
) -> Tensor:
    """Planes of every coefficient, int32 [1, 9, h, w], when the first of some phases was cut."""
    planes = new.expand_as(floors).clone()  # what is not significant is decided, too
    for _, phase, chosen in rest:
        own = planes[0, phase.channels]
        own.copy_(torch.where(chosen, old[0, phase.channels], own))
    _, phase, chosen = rest[0]
    reached = torch.from_numpy(batch.reached).to(torch.int32).T
    planes[0, phase.channels].flatten(1)[:, chosen.flatten()] = reached
    return planes


def _batch(
    state: State,
    level: int,
    phase: Phase,
    places: Tensor,
    planes: tuple[Tensor, Tensor],
    mean: np.ndarray,
    scale: np.ndarray,
    exists: Tensor,
) -> coding.Batch:
    """The coefficients of a phase at some positions, for the host."""

    def at(tensor: Tensor) -> np.ndarray:
        own = tensor[0, phase.channels].flatten(1)
        return own.index_select(1, places).T.contiguous().numpy()

    before, after = (p[0, phase.channels, 0, 0].numpy() for p in planes)
    real = exists.index_select(1, places).T.flatten()
    return coding.Batch(
        floors=at(state.floors[level]),
        reached=np.tile(before.astype(np.int8), (len(places), 1)),
        before=before,
        after=after,
        mean=mean,
        scale=scale,
        values=None if state.values is None else at(state.values[level]),
        exists=real.nonzero()[:, 0].to(torch.int32).numpy(),
    )
