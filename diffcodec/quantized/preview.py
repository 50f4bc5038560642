"""The picture that a state stands for."""

import torch
from torch import Tensor

from diffcodec.exact.cdf import CdfTable
from diffcodec.quantized import cells, chain
from diffcodec.quantized.refine import Conditional
from diffcodec.quantized.schedule import LOW
from diffcodec.quantized.state import State


def picture(table: CdfTable, state: State) -> Tensor:
    """The expected picture given a decoder's state, uint8 [colours, H, W]; exact at the end.

    Each coefficient lies half-way between E[coefficient | cell] under the conditional that its
    cell was last read with and the point of a cell that suits a peaked density: training fits
    the conditionals to the edges of cells, and inside them real tails are heavier than Gaussian.
    """
    low = state.geometry.no_low()
    for level in (LOW, *range(state.geometry.levels, 0, -1)):
        low = state.geometry.finer_low(low, level, _coefficients(table, state, level))
    rgb = chain.synthesise(low)[0, : state.colours]
    return rgb.clamp(0, 255).to(torch.uint8)


def _coefficients(table: CdfTable, state: State, level: int) -> Tensor:
    """Integers for the channels of a level, int32 [1, 9, h, w]."""
    floors, planes = state.floors[level], state.planes[level]
    if level not in state.beliefs or not planes.any():
        return floors
    planes = planes.expand_as(floors)
    expected = torch.zeros_like(floors)
    for channel in range(3 * state.colours):
        cell, plane = floors[0, channel].flatten(), planes[0, channel].flatten()
        mean, scale, frame = (part[channel].flatten().int() for part in state.beliefs[level])
        origin = cells.double_midpoint(cells.floor(cell, frame), frame)
        belief = Conditional(table, origin, frame, mean, scale)
        both = belief.expectation(cell, plane) + cells.reconstruct(cell, plane)
        middle = torch.div(both, 2, rounding_mode="trunc")
        expected[0, channel] = middle.view_as(floors[0, channel])
    # Exact zeros have a cell of width two; the padding of odd sizes is no coefficient at all.
    exact = (planes == 0) | ~state.geometry.exists(level)
    return torch.where(exact, floors, expected)
