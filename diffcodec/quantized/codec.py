"""The codec of the quantised process: one walk along the chain serves encoder and decoder."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from diffcodec.entropy import PROBABILITY_BITS, Coder
from diffcodec.quantized import cells, squares
from diffcodec.quantized.calibration import WAKING
from diffcodec.quantized.chain import Geometry, Selection, plane_tensor
from diffcodec.quantized.features import phase_features
from diffcodec.quantized.inference import Conditionals, Told
from diffcodec.quantized.model import Model
from diffcodec.quantized.refine import LARGEST_SET, in_sets, refine
from diffcodec.quantized.schedule import FINISH, LOW, Phase, Step, steps
from diffcodec.quantized.state import State


class _Cut(Exception):
    """The coder's data ended inside a step."""


def walk(
    model: Model,
    states: list[State],
    coder: Coder,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[int]:
    """Take states of equal size down the chain; yield each rung when it is done.

    All are empty, or at the end of the same rung. States with `values` are encoded, others are
    decoded. The walk ends early where the coder's data do. `progress` gets the fraction of the
    work that is done.
    """
    geometry = states[0].geometry
    order = [
        step
        for step in steps(geometry.levels, geometry.depth)
        if step.rung < states[0].rungs[step.level]
    ]
    work = list(accumulate(_work(geometry, step) for step in order))
    for step, done in zip(order, work, strict=True):
        try:
            for state in states:
                _take(model, state, step, coder)
        except _Cut:
            return
        progress(done / work[-1])
        if step.level == geometry.finest:
            yield step.rung


def _work(geometry: Geometry, step: Step) -> int:
    """About how long a step takes; at the highest rungs the large levels still sleep."""
    h, w = geometry.size(step.level)
    return h * w if step.twin <= 8 else 1


def _take(model: Model, state: State, step: Step, coder: Coder) -> None:
    """Refine one level of one picture to the planes of a rung. Raises _Cut."""
    level = step.level
    new = plane_tensor(step.rung, level, state.geometry.levels)
    if level == LOW:
        state.low = state.geometry.no_low()
    if level in state.awake or _wakes(model, state, step, new, coder):
        _refine(model, state, step, new, coder)
    state.planes[level], state.rungs[level] = new, step.rung
    if level != state.geometry.finest:
        known = cells.reconstruct(state.floors[level], new)
        state.low = state.geometry.finer_low(state.low, level, known)


def _wakes(model: Model, state: State, step: Step, new: Tensor, coder: Coder) -> bool:
    """Code whether the level has its first significant coefficient at this rung."""
    truth = None
    if state.values is not None:
        truth = np.array([bool((state.values[step.level].abs() >> new).any())], np.int32)
    chance = int(model.wake[step.twin, step.level - 1]) / (1 << PROBABILITY_BITS)
    bits = coder.code(np.array([chance]), truth)
    if len(bits) == 0:
        raise _Cut
    if bits[0]:
        state.awake.add(step.level)
    return bool(bits[0])


def _wake_squares(
    model: Model, state: State, step: Step, new: Tensor, coder: Coder
) -> list[Tensor]:
    """Code which squares have their first significant coefficient at this rung, if squares sleep.

    Returns the positions that are awake then, colour by colour, bool [h, w]. Raises _Cut.
    """
    level, floors = step.level, state.floors[step.level]
    height, width = floors.shape[-2:]
    if model.squares is None:
        return [torch.ones((height, width), dtype=torch.bool)] * state.colours
    chances = model.squares[step.twin, level - 1]
    before = squares.awake(floors)
    coarser = state.geometry.coarser(level)
    above = before if coarser is None else squares.awake(state.floors[coarser])
    truth = None if state.values is None else squares.awake(state.values[level].abs() >> new)
    now: list[Tensor] = []
    for colour in range(state.colours):
        other = now[-1] if now else None
        asleep = ~before[colour]
        case = squares.contexts(before[colour], above[colour], other)[asleep]
        bits = state.calibration.code(
            coder,
            (colour, step.rung == FINISH),
            np.full(len(case), WAKING),
            chances[colour][case].numpy() / (1 << PROBABILITY_BITS),
            None if truth is None else truth[colour][asleep].int().numpy(),
            prior=model.prior,
        )
        if len(bits) < len(case):
            raise _Cut
        now.append(before[colour].masked_scatter(asleep, torch.from_numpy(bits).bool()))
    return [squares.positions(flags, height, width) for flags in now]


def _refine(model: Model, state: State, step: Step, new: Tensor, coder: Coder) -> None:
    """Code the phases of a step."""
    level = step.level
    floors, old = state.floors[level], state.planes[level]
    if torch.equal(old, new):
        return  # a coarse level may be exact before the finish
    awake = _wake_squares(model, state, step, new, coder)
    conditionals = Conditionals(model, state, step)
    refined = floors.clone()
    height, width = floors.shape[-2:]
    told = Told(height, width)
    learning = state.adaptation.begin(step, height, width) if state.rules.adaptive else None
    for number, phase in state.phases():
        channels = phase.channels
        chosen = _selection(state, level, phase, awake)
        if not len(chosen.places):
            continue
        before, after = (chosen.of_channels(p[0, channels, 0, 0]) for p in (old, new))
        values = None if state.values is None else state.values[level][0, channels]
        conditional = conditionals.of_phase(number, told, chosen)
        learner = learning.of_phase(number, chosen) if learning else None
        cell, reached = refine(
            chosen.of_planes(floors[0, channels]),
            before,
            after,
            conditional,
            chosen.of_channels(torch.tensor([False, False, True])),
            partial(
                state.calibration.code,
                coder,
                (phase.colour, step.rung == FINISH),
                prior=model.prior,
            ),
            None if values is None else chosen.of_planes(values),
            learner.sets() if learner else zip(in_sets(slice(0, len(before)), LARGEST_SET)),
            learner,
        )
        if learning and learner:
            learning.add(number, chosen, learner)
        refined[0, channels] = chosen.put(refined[0, channels], cell)
        if bool((reached > after).any()):
            state.floors[level] = refined
            state.planes[level] = _reached_planes(state, level, number, old, new, reached, awake)
            raise _Cut
        shift = phase_features(
            floors[:, channels], old[:, channels], refined[:, channels], new[:, channels]
        )
        told.add(channels, shift * (state.geometry.checkerboard(level) == phase.parity))
    state.floors[level] = refined


def _selection(state: State, level: int, phase: Phase, awake: list[Tensor]) -> Selection:
    """The coefficients that a phase codes: those at the positions that are awake."""
    return state.geometry.selection(level, phase.parity).within(awake[phase.colour])


def _reached_planes(
    state: State,
    level: int,
    last: int,
    old: Tensor,
    new: Tensor,
    reached: Tensor,
    awake: list[Tensor],
) -> Tensor:
    """Planes of every coefficient when phase `last` was cut, int32 [1, 9, h, w]."""
    planes = old.expand_as(state.floors[level]).clone()
    for number, phase in state.phases()[: last + 1]:
        chosen = _selection(state, level, phase, awake)
        done = reached if number == last else chosen.of_channels(new[0, phase.channels, 0, 0])
        planes[0, phase.channels] = chosen.put(planes[0, phase.channels], done)
    for _, phase in state.phases():  # what sleeps was told before the first
        own = planes[0, phase.channels]
        own.copy_(torch.where(awake[phase.colour], own, new[0, phase.channels]))
    return planes
