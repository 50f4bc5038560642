"""The colour transforms of streams, and which of them suits a picture.

    0        YCoCg-R
    1, 2     red or blue in green's place, and green in theirs, and YCoCg-R
    3, 4     what the picture was converted from is coded: JPEG's YCbCr; 4: bottom up
    5, 6     the same of WebP's YUV
    7, 8     the same of Photo CD's YCC
    9, 10    as 3 and 4, with chroma that was doubled by JPEG's decoder
    11, 12   as 5 and 6, with chroma that was doubled by WebP's
    13 to 18 as 9 and 10, of what was cut out at an odd column, an odd row, and both
    19 to 24 as 11 and 12, likewise

YCoCg-R takes luma mostly from green, and the networks know the noise and the edges of pictures in
which green resembles it most. In a few pictures of strong colours red or blue does: that is
measured on a few patches. What was converted from another space is always coded there. Where chroma
was interpolated from every second row and column, the picture is turned so that these are the
first, the third and so on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.container import Header
from diffcodec.entropy import RangeEncoder
from diffcodec.errors import FormatError
from diffcodec.quantized import model as models
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.detail import smoother
from diffcodec.quantized.model import Model
from diffcodec.quantized.pyramid import mid_grey, middle
from diffcodec.quantized.schedule import DEPTH
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.transforms import GREENS, exchanged, origin, spaces
from diffcodec.transforms.spaces import SPACES, Space

PATCHES, PATCH = 4, 32
"""Patches each way, and their side in pixels."""

START = 5
"""The rung that is taken as known: those after it have most of the bits."""

LONGEST = 0.99
"""How long the last rungs may be at most under another transform than the first, against those
under the first: the networks know it less, and its prefixes are not measured."""


def space(header: Header) -> Space | None:
    """The space whose integers the stream of a picture has, if it is not RGB."""
    number = header.colours - len(GREENS)
    return SPACES[number // 2] if number >= 0 else None


def grey(header: Header) -> NDArray:
    """What a picture is where nothing is known, uint8 or uint16 [C, 1, 1]."""
    found = np.full((len(header.mode), 1, 1), mid_grey(header.depth), f"<u{header.depth // 8}")
    own = space(header)
    if own is not None:
        found[:3] = spaces.to_rgb(own, middle(header.depth, own)).numpy()
    return found


def blank(header: Header, height: int, width: int) -> NDArray:
    """What is shown where nothing is known, uint8 or uint16 [C, height, width]."""
    return np.broadcast_to(grey(header), (len(header.mode), height, width)).copy()


def check(header: Header) -> None:
    """Raise FormatError for a transform that is not known, or not of pictures of this kind."""
    known = 1
    if header.mode.startswith("RGB"):
        known = len(GREENS) + (2 * len(SPACES) if header.depth == DEPTH else 0)
    if header.colours >= known:
        raise FormatError(
            f"The file uses colour transform {header.colours} of {header.mode} pictures, "
            "which this version of diffcodec does not know."
        )


def turned(planes: Tensor, header: Header) -> Tensor:
    """Planes [C, H, W] of the picture as those of its stream, and the other way round."""
    if header.mirrored:
        planes = planes.flip(-1)
    if header.colours < len(GREENS):
        return exchanged(planes, header.colours)
    return planes.flip(-2) if (header.colours - len(GREENS)) % 2 else planes


def prepare(
    model: Model | None, header: Header, planes: NDArray, *, rgb: bool
) -> tuple[Model, Header, NDArray]:
    """The model of a picture, its header with that and with its transform, and planes for that.

    Args: the model, or None for the installed one that suits; the header; uint8 or uint16
    [C, H, W]; whether no other space than RGB is looked for.
    """
    coloured, found = header.mode.startswith("RGB"), None
    if coloured and header.depth == DEPTH and not rgb:
        found = origin.find(planes[:3], turned=not header.tile)
    default = models.default(header.height, header.width, converted=found is not None)
    model = model or models.load(default)
    header = replace(header, model=model.id)
    if not coloured:
        return model, header, planes
    if found is None:
        return model, replace(header, colours=select(model, planes, header.depth)), planes
    colours = len(GREENS) + 2 * found.number + found.upwards
    header = replace(header, colours=colours, mirrored=found.mirrored)
    return model, header, np.concatenate((found.planes, planes[3:]))


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
    state = State.of_image(pyramid, planes, Corrections.of_model(model))
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
