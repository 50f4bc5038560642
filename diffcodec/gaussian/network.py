"""What a network takes for z: integers of ten bits."""

from typing import TypeVar

import torch
from torch import Tensor

from diffcodec.exact.layers import ACTIVATION_LIMIT

Level = TypeVar("Level", float, Tensor)

ALIGNMENT = 4
"""Heights and widths are multiples of it: the network halves them at most twice."""

_DEVIATIONS = 3.5
"""Ten bits of an input reach as far as data and so many deviations of its noise together."""


def input_gain(alpha: Level, sigma: Level) -> Level:
    """Integer units of the network's input per 1.0 of z, so that its range fits ten bits."""
    return ACTIVATION_LIMIT / (alpha + _DEVIATIONS * sigma)


def as_input(z: Tensor, gain: float | Tensor) -> Tensor:
    """The integers, float32, that an exact network takes for z."""
    units = (z * gain).round().clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    return units.float().contiguous(memory_format=torch.channels_last)
