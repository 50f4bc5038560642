"""The picture that a state stands for."""

from dataclasses import replace

import torch
from torch import Tensor

from diffcodec.quantized import chain
from diffcodec.quantized.inference import Conditionals
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import FINISH, LOW, Step
from diffcodec.quantized.state import State


def picture(model: Model, state: State) -> Tensor:
    """The expected picture given the state, uint8 [colours, H, W]; exact at the end of the chain.

    Each coefficient takes E[coefficient | cell] under the conditional of its next step.
    """
    view = replace(state, low=state.geometry.no_low())
    for level in (LOW, *range(state.geometry.levels, 0, -1)):
        view.low = state.geometry.finer_low(view.low, level, _coefficients(model, view, level))
    rgb = chain.synthesise(view.low)[0, : state.colours]
    return rgb.clamp(0, 255).to(torch.uint8)


def _coefficients(model: Model, state: State, level: int) -> Tensor:
    """Integers for the channels of a level, int32 [1, 9, h, w]."""
    floors, planes = state.floors[level], state.planes[level]
    if level not in state.awake or not planes.any():
        return floors
    step = Step(max(state.rungs[level] - 1, FINISH), level)
    planes = planes.expand_as(floors)
    expected = torch.zeros_like(floors)
    for channels, conditional in Conditionals(model, state, step).marginals():
        if channels.start >= 3 * state.colours:
            break
        expected[0, channels] = conditional.expectation(
            floors[0, channels].flatten(), planes[0, channels].flatten()
        ).view_as(floors[0, channels])
    # Exact zeros have a cell of width two; the padding of odd sizes is no coefficient at all.
    exact = (planes == 0) | ~state.geometry.exists(level)
    return torch.where(exact, floors, expected)
