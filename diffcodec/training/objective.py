"""The training objective: the exact bits of one step for each crop of a batch.

The chain is a deterministic function of the image, so the bits of all its steps add up to the
code length, which is the negative ELBO of the quantised process (design, section 2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcodec.exact.cdf import MAX_LOG_SCALE, MIN_LOG_SCALE, TAIL
from diffcodec.exact.layers import Index
from diffcodec.quantized import cells, chain
from diffcodec.quantized.features import phase_features, step_features
from diffcodec.quantized.schedule import LEVELS, LOW, PHASES, Step, planes
from diffcodec.training.networks import Experts


@dataclass(frozen=True)
class Emphasis:
    """What the bits of a batch of crops count in the loss.

    `levels` multiply mean bits per coefficient: a quarter from level to level would be the lossless
    file. `rungs` has for each rung its probability of being drawn and its weight.
    """

    levels: dict[int, float]
    rungs: dict[int, tuple[float, float]]


def step_loss(
    net: Experts,
    emphasis: Emphasis,
    crops: Tensor,
    generator: torch.Generator,
    interpolated: int = 0,
) -> Tensor:
    """Weighted bits per coefficient of one random rung for crops [N, 3, H, W] uint8.

    `interpolated` as for `chain.Geometry`.
    """
    rungs, (odds, weights) = list(emphasis.rungs), zip(*emphasis.rungs.values(), strict=True)
    drawn = int(torch.multinomial(torch.tensor(odds), 1, generator=generator))
    total = torch.zeros((), device=crops.device)
    values = chain.analyse(crops, interpolated=interpolated)
    bits = step_bits(net, values, rungs[drawn], list(emphasis.levels), interpolated)
    for level, coded in bits.items():
        total = total + emphasis.levels[level] * coded.mean()
    return total * weights[drawn] / (odds[drawn] * len(rungs))


def step_bits(
    net: Experts, values: dict[int, Tensor], rung: int, levels: list[int], interpolated: int = 0
) -> dict[int, Tensor]:
    """Bits of each coefficient of those of some levels that one rung refines.

    Args: exact coefficients from `chain.analyse` (of pictures with LEVELS levels), the rung, the
    levels, and at how many of them chroma is interpolated.
    Returns: for each of those levels float32 [N, 9, h, w].
    """
    device = values[1].device
    before = rung + 1
    height, width = (2 * side for side in values[1].shape[-2:])
    geometry = chain.Geometry(height, width, interpolated=interpolated)
    low = geometry.no_low().to(device).expand(len(values[1]), -1, -1, -1)

    def state(level: int, done: int) -> tuple[Tensor, Tensor]:
        return chain.cells_at(values[level], done, level, LEVELS)

    def refines(level: int) -> bool:  # what is exact already would train nothing
        return planes(rung, level, LEVELS) != planes(before, level, LEVELS)

    result = {}
    for level in (LOW, *range(LEVELS, min(levels) - 1, -1)):
        refined, new = state(level, rung)
        if level in levels and refines(level):
            floors, old = state(level, before)
            finer = geometry.finer(level)
            features = step_features(
                low,
                chain.low_plane_tensor(rung, min(level, LEVELS)).to(device),
                floors,
                old,
                None if finer is None else state(finer, before),
            )
            index = Step(rung, level).index
            bits = _level_bits(net, index, features, (floors, old), (refined, new))
            real = geometry.exists(level).to(device)
            result[level] = bits * real
        low = geometry.finer_low(low, level, cells.reconstruct(refined, new))
    return result


def _level_bits(
    net: Experts,
    index: Index,
    features: Tensor,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
) -> Tensor:
    """Bits of one level; `before` and `after` are its floors and planes."""
    decoded = phase_features(*before, *after)
    trunk = net.trunk(features, index)
    even = chain.checkerboard(*decoded.shape[-2:]).to(decoded.device) == 0
    conditionals = []
    for number, phase in enumerate(PHASES):
        known = decoded[:, : phase.known]
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
