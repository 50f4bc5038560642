"""The training objective: the exact bits of one step for each crop of a batch.

The chain is a deterministic function of the image, so the bits of all its steps add up to the
code length, which is the negative ELBO of the quantised process (design, section 2).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from diffcodec.exact.cdf import MAX_LOG_SCALE, MIN_LOG_SCALE, TAIL
from diffcodec.exact.layers import Index
from diffcodec.quantized import cells
from diffcodec.quantized.features import phase_features, step_features
from diffcodec.quantized.pyramid import Process, Pyramid, checkerboard
from diffcodec.quantized.schedule import DEPTH, LOW, PHASES, Step
from diffcodec.training.networks import Experts
from diffcodec.transforms.spaces import Space

Cells = tuple[Tensor, Tensor]
"""Floors and planes of a level."""


class Conditionals(Protocol):
    """What gives conditionals: `Experts`, or a network like it. Methods as there."""

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """Activations of the trunk."""

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """Means and log2 scales."""


@dataclass(frozen=True)
class Emphasis:
    """What the bits of a batch of crops count in the loss.

    `levels` multiply mean bits per coefficient: a quarter from level to level would be the lossless
    file. `rungs` has for each rung its probability of being drawn and its weight.
    """

    levels: dict[int, float]
    rungs: dict[int, tuple[float, float]]


def random_rung(emphasis: Emphasis, generator: torch.Generator) -> int:
    """One of the rungs of an emphasis."""
    odds = torch.tensor([odds for odds, _ in emphasis.rungs.values()])
    return list(emphasis.rungs)[int(torch.multinomial(odds, 1, generator=generator))]


def step_loss(
    net: Experts,
    emphasis: Emphasis,
    rung: int,
    crops: Tensor,
    process: Process,
    space: Space | None = None,
) -> Tensor:
    """Weighted bits per coefficient of a random rung for crops [N, 3, H, W] uint8.

    They are RGB or, if there is a space, integers of that.
    """
    odds, weight = emphasis.rungs[rung]
    total = torch.zeros((), device=crops.device)
    height, width = crops.shape[2:]
    pyramid = process.pyramid(height, width, space=space)
    bits = step_bits(net, pyramid, pyramid.analyse(crops), rung, list(emphasis.levels))
    for level, coded in bits.items():
        total = total + emphasis.levels[level] * coded.mean()
    return total * weight / (odds * len(emphasis.rungs))


def step_bits(
    net: Experts, pyramid: Pyramid, values: dict[int, Tensor], rung: int, levels: list[int]
) -> dict[int, Tensor]:
    """Bits of each coefficient of those of some levels that one rung refines.

    Args: the network; exact coefficients of pictures, and their pyramid; the rung; the levels.
    Returns: for each of those levels float32 [N, 9, h, w].
    """
    result = {}
    for level, index, features, before, after in step_inputs(pyramid, values, rung, levels):
        bits = level_bits(net, index, features, before, after)
        result[level] = bits * _exists(pyramid, level, bits.device)
    return result


def step_inputs(
    pyramid: Pyramid, values: dict[int, Tensor], rung: int, levels: list[int]
) -> Iterator[tuple[int, Index, Tensor, Cells, Cells]]:
    """What the network gets of a rung: at each of some levels that the rung refines.

    Yields the level, the rows in the network's tables, features, and the cells before and after.
    """
    device = values[LOW].device
    before = rung + 1
    low = values[LOW].new_zeros((len(values[LOW]), 3, *pyramid.size(LOW)))
    for level in pyramid.coarse_to_fine:
        refined, new = pyramid.cells_at(values[level], rung, level)
        if level in levels and pyramid.refines(rung, level):  # what is exact would train nothing
            floors, old = pyramid.cells_at(values[level], before, level)
            finer = pyramid.finer(level)
            features = step_features(
                low,
                pyramid.low_planes(rung, level, device),
                floors,
                old,
                None if finer is None else pyramid.cells_at(values[finer], before, finer),
                pyramid.depth - DEPTH,
            )
            index = pyramid.process.ladder.index(Step(rung, level, pyramid.depth - DEPTH))
            yield level, index, features, (floors, old), (refined, new)
        if level == min(levels):
            break
        low = pyramid.finer_low(low, level, cells.reconstruct(refined, new))


@lru_cache(256)
def _exists(pyramid: Pyramid, level: int, device: torch.device) -> Tensor:
    return pyramid.exists(level).to(device)


@lru_cache(256)
def _even(height: int, width: int, device: torch.device) -> Tensor:
    return (checkerboard(height, width) == 0).to(device)


def level_bits(
    net: Conditionals, index: Index, features: Tensor, before: Cells, after: Cells
) -> Tensor:
    """Bits of one level, float32 [N, 9, h, w], from its features and its cells."""
    moves = phase_features(*before, *after)
    trunk = net.trunk(features, index)
    even = _even(*moves.shape[-2:], moves.device)
    conditionals = []
    for number, phase in enumerate(PHASES):
        known = moves[:, : phase.known]
        if phase.parity:
            known = torch.cat((known[:, : 3 * phase.colour], known[:, phase.channels] * even), 1)
        conditionals.append(net.head(number, trunk, known if phase.known else None, index))
    # Each head has its say about the positions of its phase; the phases of a colour alternate.
    pairs = zip(conditionals[::2], conditionals[1::2], strict=True)
    outputs = torch.stack([torch.where(even, *pair) for pair in pairs], 1)
    mean, log_scale = (part.flatten(1, 2) for part in outputs.chunk(2, 2))
    return gaussian_bits(mean, log_scale, *before, *after)


def gaussian_bits(
    mean: Tensor, log_scale: Tensor, floors: Tensor, old: Tensor, refined: Tensor, new: Tensor
) -> Tensor:
    """Bits to tell the refined cell inside the old one under N(mean, scale^2).

    Mean and scale are in widths of the old cell, from its midpoint; log_scale is a log2.
    """
    middle, unit = cells.double_midpoint(floors, old), (2 << old).float()
    inverse_scale = torch.exp2(-log_scale.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE))
    outer = _mass(*cells.double_edges(floors, old), middle, unit, mean, inverse_scale)
    inner = _mass(*cells.double_edges(refined, new), middle, unit, mean, inverse_scale)
    return torch.log2(outer / inner)


def _mass(
    low: Tensor, high: Tensor, middle: Tensor, unit: Tensor, mean: Tensor, inverse_scale: Tensor
) -> Tensor:
    a = ((low - middle) / unit - mean) * inverse_scale
    b = ((high - middle) / unit - mean) * inverse_scale
    core = torch.erf(b * math.sqrt(0.5)) - torch.erf(a * math.sqrt(0.5))
    # Of a mean far away, b - a would have nothing left.
    return 0.5 * core + TAIL * ((high - low) / unit * inverse_scale)
