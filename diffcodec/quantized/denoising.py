"""A denoiser for prefixes, in the pixel domain.

It is no part of the format: the entropy path and the checksum do not depend on it. Its layers
are exact all the same, so that a prefix shows the same picture on every machine.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.exact.config import Significand, from_json
from diffcodec.exact.layers import Index
from diffcodec.exact.networks import (
    DenoiserShape,
    ExactDenoiser,
    denoiser_layers,
    exact_layers,
    tensor_shapes,
)
from diffcodec.quantized.pyramid import mid_grey
from diffcodec.quantized.schedule import DEPTH, HIGHEST_TRAINED_RUNG, LAST_RUNG, LOW
from diffcodec.quantized.tiles import HALO, everywhere, in_tiles

UNITS_PER_CELL = 256
"""Integer units of a correction in 2^rung, about the width of a cell in pixels."""

LIMIT = 4 * UNITS_PER_CELL
"""Largest magnitude of a correction."""


@dataclass(frozen=True)
class Config:
    """The configuration of the denoiser: its shape, and bits of the activations."""

    PROCESS: ClassVar = "denoiser"

    network: DenoiserShape
    significand: Significand


def output_units(channels: int) -> Tensor:
    """Integer units per 1.0 of the network's outputs."""
    return torch.full((channels,), float(UNITS_PER_CELL))


def build(file: files.ModelFile) -> ExactDenoiser:
    """The network that a file holds, on the device of the call. Raises ModelError if unsuitable."""
    config = from_json(Config, file.config)
    if (config.network.rungs, config.network.levels) != (HIGHEST_TRAINED_RUNG - LAST_RUNG + 1, LOW):
        raise ModelError("The denoiser is not made for this version of diffcodec.")
    if config.network.reach > HALO:
        raise ModelError("The denoiser sees farther than tiles allow.")
    layers = denoiser_layers(config.network)
    file.check(tensor_shapes(layers))
    convs = exact_layers(layers, file.tensors, config.significand, LIMIT)
    return ExactDenoiser(convs).to(backends.device())


load = files.loader(build)
"""Reads a file of the denoiser. Raises ModelError if it is missing, damaged or unsuitable."""


def denoise(pixels: Tensor, rung: int, level: int = LOW, depth: int = DEPTH) -> Tensor:
    """The expected picture, given one that is known up to the error of a rung and a level.

    Args: pixels int32 [3, H, W] of that depth; the last rung that all coefficients have completed;
    the finest level that has not completed more: coarser ones have the next rung, too.
    Returns: int32 [3, H, W]. What is finer or rougher than the network knows stays as it is.
    """
    extra_bits = depth - DEPTH
    if not LAST_RUNG <= rung - extra_bits <= HIGHEST_TRAINED_RUNG:
        return pixels
    height, width = pixels.shape[1:]
    padded = F.pad(pixels[None].float(), (0, width % 2, 0, height % 2), mode="replicate")
    inputs = centred((padded / 2**extra_bits).floor()).to(torch.int16)

    network, device = load(files.DENOISER), backends.device()

    def tile(rows: slice, columns: slice) -> Tensor:
        part = inputs[..., rows, columns].to(device, torch.float32)
        part = part.contiguous(memory_format=torch.channels_last)
        return network(part, index(rung - extra_bits, level)).to("cpu", torch.int16)

    correction = in_tiles(tile, everywhere(*inputs.shape[2:])).movedim(-1, 0)
    corrected = padded + shuffled(correction[None].float(), rung) / UNITS_PER_CELL
    rounded = corrected.round().clamp(0, (1 << depth) - 1).to(torch.int32)
    return rounded[0, :, :height, :width]


def centred(pixels: Tensor) -> Tensor:
    """The network's inputs from pixels [N, 3, 2h, 2w] in 0..255: float [N, 12, h, w]."""
    return F.pixel_unshuffle(pixels - mid_grey(DEPTH), 2)


def shuffled(correction: Tensor, rung: int) -> Tensor:
    """Corrections [N, 12, h, w] in units of 2^rung to pixels [N, 3, 2h, 2w]."""
    return F.pixel_shuffle(correction, 2) * 2.0**rung


def index(rung: int, level: int) -> Index:
    """Rows of a rung and of a level in the network's tables."""
    return rung - LAST_RUNG, level - 1
