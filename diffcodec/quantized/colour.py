"""Which colour transform suits a picture: measured on a few patches of it.

YCoCg-R takes luma mostly from green, and the networks know the noise and the edges of pictures in
which green resembles it most. In a few pictures of strong colours red or blue does.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import RangeEncoder
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.detail import smoother
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import DEPTH
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.transforms import GREENS, exchanged

PATCHES, PATCH = 4, 32
"""Patches each way, and their side in pixels."""

START = 5
"""The rung that is taken as known: those after it have most of the bits."""

LONGEST = 0.99
"""How long the last rungs may be at most under another transform than the first, against those
under the first: the networks know it less, and its prefixes are not measured."""


def select(model: Model, planes: NDArray, depth: int) -> int:
    """The number of the transform that makes the last rungs of a picture's colours the shortest.

    Args: the model; uint8 or uint16 [3 or more, H, W]; bits per sample.
    """
    mosaic = torch.from_numpy(patches(planes[:3]).astype(np.int32))
    return shortest(model, [exchanged(mosaic, number) for number in range(len(GREENS))], depth)


def shortest(model: Model, candidates: Sequence[Tensor], depth: int) -> int:
    """The number of the candidate, integers [3, H, W] each, that has the shortest last rungs."""
    measured = smoother(candidates)
    if not measured:
        return 0
    lengths = {number: _bits(model, candidates[number], depth) for number in [0, *measured]}
    return min(lengths, key=lambda number: lengths[number] * (1 if number else LONGEST))


def _bits(model: Model, planes: Tensor, depth: int) -> int:
    """Length of the rungs after START."""
    _, height, width = planes.shape
    pyramid, encoder = model.process.pyramid(height, width, depth), RangeEncoder()
    state = State.of_image(pyramid, planes, Corrections(model.table, model.prior))
    state.advance(START + depth - DEPTH)
    for _ in walk(model, [state], encoder):
        pass
    return encoder.bits_used


def patches(planes: NDArray) -> NDArray:
    """A mosaic of evenly spread patches of planes [C, H, W]; all of a side no longer than they."""
    rows, columns = (_spread(side) for side in planes.shape[1:])
    return planes[:, rows][:, :, columns]


def _spread(side: int) -> NDArray:
    """Indices of patches along a side."""
    if side <= PATCHES * PATCH:
        return np.arange(side)
    starts = np.arange(PATCHES) * (side - PATCH) // (PATCHES - 1)
    return (starts[:, None] + np.arange(PATCH)).ravel()
