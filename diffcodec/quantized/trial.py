"""Which colour stands best in green's place: tried on a few patches of a picture.

YCoCg-R takes luma mostly from green, and the networks know the noise and the edges of pictures in
which green resembles it most. In a few pictures of strong colours red or blue does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcodec.entropy import RangeEncoder
from diffcodec.quantized.codec import walk
from diffcodec.quantized.detail import smoother
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import DEPTH
from diffcodec.quantized.state import State

PATCHES, PATCH = 4, 32
"""Patches each way, and their side in pixels."""

START = 5
"""The rung that is taken as known: those after it have most of the bits."""

LONGEST = 0.99
"""How long another way than the first may be at most, in the first one's length: the networks
know it less, and its prefixes are not tried."""


def shortest(model: Model, ways: Sequence[Tensor], depth: int) -> int:
    """The number of the way, of integers [3, H, W] each, that has the shortest last rungs."""
    tried = smoother(ways, depth)
    if not tried:
        return 0
    lengths = {way: _bits(model, ways[way], depth) for way in [0, *tried]}
    lengths[0] *= LONGEST
    return min(lengths, key=lengths.__getitem__)


def _bits(model: Model, planes: Tensor, depth: int) -> float:
    """Length of the rungs after START."""
    state, encoder = State.of_image(planes, depth, model.interpolated), RangeEncoder()
    state.advance(START + depth - DEPTH)
    for _ in walk(model, [state], encoder):
        pass
    return encoder.bits_used


def patches(planes: Tensor) -> Tensor:
    """A mosaic of evenly spread patches of planes [C, H, W]; all of a side no longer than they."""
    rows, columns = (_spread(side) for side in planes.shape[1:])
    return planes[:, rows][:, :, columns]


def _spread(side: int) -> Tensor:
    """Indices of patches along a side."""
    if side <= PATCHES * PATCH:
        return torch.arange(side)
    starts = torch.linspace(0, side - PATCH, PATCHES, dtype=torch.float32).long()
    return (starts[:, None] + torch.arange(PATCH)).flatten()
