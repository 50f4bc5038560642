"""The training objective: the exact bits of one step for each crop of a batch.

The chain is a deterministic function of the image, so the bits of all its steps add up to the
code length, which is the negative ELBO of the quantised process (design, section 2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcodec.exact.cdf import MAX_LOG_SCALE, MIN_LOG_SCALE, TAIL
from diffcodec.networks import Experts, Index
from diffcodec.quantized import cells, chain
from diffcodec.quantized.features import phase_features, step_features
from diffcodec.quantized.schedule import FINISH, LEVELS, LOW, PHASES, Step


@dataclass(frozen=True)
class CropKind:
    """Crops of one size serve the levels at which they have enough positions.

    They are drawn at every `every`-th step, as `training.data.Draw` says. `level_weights` multiply
    mean bits per coefficient: a quarter from level to level would be the lossless file; `rungs`
    has for each rung its probability of being drawn and its weight in the loss. For all but
    thumbnails the weights favour coarse levels and high rungs, that is the prefixes, which are a
    small part of the lossless file.
    """

    size: int
    batch: int
    every: int
    level_weights: dict[int, float]
    rungs: dict[int, tuple[float, float]]
    grid: int = 1
    half_chroma: float = 0.0
    drawn: float = 0.0


THUMBNAIL = 32
"""The side of the pictures that the thumbnails' model is trained on."""

PICTURES = (
    CropKind(
        128,
        16,
        1,
        {1: 1.0, 2: 0.35},
        {
            FINISH: (0.34, 1.0),
            2: (0.15, 1.0),
            3: (0.13, 1.2),
            4: (0.11, 1.5),
            5: (0.10, 2.0),
            6: (0.08, 2.5),
            7: (0.05, 3.0),
            8: (0.03, 3.0),
            9: (0.01, 3.0),
        },
        half_chroma=0.3,
        drawn=0.06,
    ),
    CropKind(
        512,
        2,
        2,
        {3: 0.15, 4: 0.06, 5: 0.03, LOW: 0.02},
        {
            FINISH: (0.06, 1.0),
            2: (0.06, 1.0),
            3: (0.08, 1.2),
            4: (0.10, 1.5),
            5: (0.12, 2.0),
            6: (0.13, 2.5),
            7: (0.13, 3.0),
            8: (0.12, 3.0),
            9: (0.09, 3.0),
            10: (0.06, 3.0),
            11: (0.03, 3.0),
            12: (0.02, 3.0),
        },
        half_chroma=0.3,
        drawn=0.06,
    ),
)
"""For pictures of any size."""

THUMBNAILS = (
    CropKind(
        THUMBNAIL,
        128,
        1,
        {1: 1.0, 2: 0.33, 3: 0.1, 4: 0.04, 5: 0.02, LOW: 0.01},
        {
            FINISH: (0.30, 1.0),
            2: (0.13, 1.0),
            3: (0.12, 1.0),
            4: (0.11, 1.0),
            5: (0.10, 1.0),
            6: (0.08, 1.0),
            7: (0.06, 1.0),
            8: (0.04, 1.0),
            9: (0.025, 1.0),
            10: (0.015, 1.0),
            11: (0.01, 1.0),
            12: (0.01, 1.0),
        },
        grid=THUMBNAIL,
    ),
)
"""For very small pictures, of which the lossless file is all that counts."""


def step_loss(net: Experts, kind: CropKind, crops: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted bits per coefficient of one random rung for crops [N, 3, H, W] uint8."""
    rungs, (odds, weights) = list(kind.rungs), zip(*kind.rungs.values(), strict=True)
    drawn = int(torch.multinomial(torch.tensor(odds), 1, generator=generator))
    total = torch.zeros((), device=crops.device)
    bits = step_bits(net, chain.analyse(crops), rungs[drawn], list(kind.level_weights))
    for level, coded in bits.items():
        total = total + kind.level_weights[level] * coded.mean()
    return total * kind.every * weights[drawn] / (odds[drawn] * len(rungs))


def step_bits(
    net: Experts, values: dict[int, Tensor], rung: int, levels: list[int]
) -> dict[int, Tensor]:
    """Bits of each coefficient of some levels in one rung.

    Args: exact coefficients from `chain.analyse` (of pictures with LEVELS levels), the rung, the
    levels.
    Returns: for each level float32 [N, 9, h, w].
    """
    device = values[1].device
    before = rung + 1
    geometry = chain.Geometry(values[1].shape[-2] * 2, values[1].shape[-1] * 2)
    low = geometry.no_low().to(device).expand(len(values[1]), -1, -1, -1)

    def state(level: int, done: int) -> tuple[Tensor, Tensor]:
        planes = chain.plane_tensor(done, level, LEVELS).to(device)
        return cells.floor(values[level], planes), planes

    result = {}
    for level in (LOW, *range(LEVELS, min(levels) - 1, -1)):
        refined, new = state(level, rung)
        if level in levels:
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
    told = phase_features(*before, *after)
    trunk = net.trunk(features, index)
    even = chain.checkerboard(*told.shape[-2:]).to(told.device) == 0
    conditionals = []
    for number, phase in enumerate(PHASES):
        known = told[:, : phase.known]
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
    return 0.5 * core + TAIL * (b - a)
