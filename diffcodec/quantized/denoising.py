"""A denoiser for prefixes, in the pixel domain.

It is no part of the format: the entropy path and the checksum do not depend on it. Its layers
are exact all the same, so that a prefix shows the same picture on every machine.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcodec.exact.files import WEIGHTS, read
from diffcodec.exact.layers import make_exact
from diffcodec.networks import Denoiser
from diffcodec.quantized import cells
from diffcodec.quantized.pyramid import Process, mid_grey
from diffcodec.quantized.schedule import DEPTH, HIGHEST_TRAINED_RUNG, LAST_RUNG, LOW
from diffcodec.quantized.tiles import in_tiles

DENOISER = WEIGHTS / "denoiser.safetensors"

UNITS_PER_CELL = 256
"""Integer units of a correction in 2^rung, about the width of a cell in pixels."""

LIMIT = 4 * UNITS_PER_CELL
"""Largest magnitude of a correction."""

RUNG_ODDS = (0.04, 0.12, 0.17, 0.18, 0.17, 0.13, 0.08, 0.05, 0.03, 0.02, 0.01)
"""How often training draws each rung from LAST_RUNG to HIGHEST_TRAINED_RUNG."""


def network() -> Denoiser:
    """The float network, untrained."""
    return Denoiser(rungs=len(RUNG_ODDS))


def output_units(channels: int) -> Tensor:
    """Integer units per 1.0 of the network's outputs."""
    return torch.full((channels,), float(UNITS_PER_CELL))


@cache
def load() -> nn.Module:
    """The exact network. Raises ModelError if its file is missing or damaged."""
    return make_exact(network(), read(DENOISER), LIMIT)


def denoise(pixels: Tensor, rung: int, depth: int = DEPTH) -> Tensor:
    """The expected picture, given one that is known up to the error of a rung.

    Args: pixels int32 [3, H, W] of that depth; the last rung that all coefficients have completed.
    Returns: int32 [3, H, W]. What is finer or rougher than the network knows stays as it is.
    """
    deeper = depth - DEPTH
    if not LAST_RUNG <= rung - deeper <= HIGHEST_TRAINED_RUNG:
        return pixels
    height, width = pixels.shape[1:]
    padded = F.pad(pixels[None].float(), (0, width % 2, 0, height % 2), mode="replicate")
    inputs = centred((padded / 2**deeper).floor()).to(torch.int16)

    def tile(rows: slice, columns: slice) -> Tensor:
        part = inputs[..., rows, columns].float().contiguous(memory_format=torch.channels_last)
        return load()(part, row(rung - deeper)).to(torch.int16)

    correction = in_tiles(tile, *inputs.shape[2:]).movedim(-1, 0)
    corrected = padded + shuffled(correction[None].float(), rung) / UNITS_PER_CELL
    rounded = corrected.round().clamp(0, (1 << depth) - 1).to(torch.int32)
    return rounded[0, :, :height, :width]


def centred(pixels: Tensor) -> Tensor:
    """The network's inputs from pixels [N, 3, 2h, 2w] in 0..255: float [N, 12, h, w]."""
    return F.pixel_unshuffle(pixels - mid_grey(DEPTH), 2)


def shuffled(correction: Tensor, rung: int) -> Tensor:
    """Corrections [N, 12, h, w] in units of 2^rung to pixels [N, 3, 2h, 2w]."""
    return F.pixel_shuffle(correction, 2) * 2.0**rung


def row(rung: int) -> int:
    """Row of a rung in the network's tables."""
    return rung - LAST_RUNG


def prefixes(process: Process, pictures: Tensor, rung: int, ahead: int = LOW) -> Tensor:
    """What prefixes show of pictures [N, 3, H, W] uint8, float in 0..255.

    All levels have completed `rung`, those coarser than `ahead` the next one too. The pictures
    must be large enough for LEVELS levels.
    """
    pyramid = process.pyramid(*pictures.shape[-2:])
    known = {
        level: cells.reconstruct(*pyramid.cells_at(values, rung - (level > ahead), level))
        for level, values in pyramid.analyse(pictures).items()
    }
    return pyramid.rebuild(known).float()


def loss(process: Process, net: nn.Module, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of random prefixes of pictures [N, 3, H, W] uint8, in units of 4^rung."""
    rung = LAST_RUNG + int(torch.multinomial(torch.tensor(RUNG_ODDS), 1, generator=generator))
    # Half of the prefixes end inside a rung.
    ahead = min(LOW, int(torch.randint(1, 2 * LOW, (), generator=generator)))
    shown = prefixes(process, pictures, rung, ahead)
    return (expected(net, shown, rung) - pictures).square().mean() / 4**rung


def expected(net: nn.Module, shown: Tensor, rung: int) -> Tensor:
    """What the float network makes of pictures [N, 3, H, W]."""
    return shown + shuffled(net(centred(shown), row(rung)), rung)
