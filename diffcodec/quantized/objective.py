"""The training objective: the exact bits of one step for each crop of a batch.

The chain is a deterministic function of the image, so the bits of all its steps add up to the
code length, which is the negative ELBO of the quantised process (design, section 2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcodec.exact.cdf import MAX_LOG_SCALE, MIN_LOG_SCALE, TAIL
from diffcodec.networks import Index, StepNetwork
from diffcodec.quantized import cells, chain, schedule
from diffcodec.quantized.features import phase_features, step_features
from diffcodec.quantized.schedule import CHANNELS, FINISH, LEVELS, LOW, PHASES

_MARGINAL_WEIGHT = 0.1
"""Weight of the bits that the first head alone would need; previews take their means from it."""


@dataclass(frozen=True)
class CropKind:
    """Crops of one size serve the levels at which they have enough positions.

    `level_weights` multiply mean bits per coefficient, so that a quarter from level to level
    would be the lossless file; `rungs` has for each rung its probability of being drawn and its
    weight in the loss. The weights favour coarse levels and high rungs, that is the prefixes,
    which are a small part of the lossless file.
    """

    size: int
    batch: int
    level_weights: dict[int, float]
    rungs: dict[int, tuple[float, float]]


KINDS = (
    CropKind(
        128,
        4,
        {1: 1.0, 2: 0.35},
        {
            FINISH: (0.20, 1.0),
            2: (0.16, 1.0),
            3: (0.16, 1.2),
            4: (0.15, 1.5),
            5: (0.13, 2.0),
            6: (0.10, 2.5),
            7: (0.06, 3.0),
            8: (0.03, 3.0),
            9: (0.01, 3.0),
        },
    ),
    CropKind(
        512,
        1,
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
    ),
)


class Objective:
    """Losses of the quantised process on one device."""

    def __init__(self, device: torch.device) -> None:
        rungs = range(FINISH, schedule.HIGHEST_TRAINED_RUNG + 2)
        self.planes = torch.stack(
            [
                torch.cat([chain.plane_tensor(r, level, LEVELS) for level in range(1, LOW + 1)])
                for r in rungs
            ]
        ).to(device)  # [rung, level, 9, 1, 1]
        self.low_planes = torch.stack(
            [
                torch.cat([chain.low_plane_tensor(r, min(lv, LEVELS)) for lv in range(1, LOW + 1)])
                for r in rungs
            ]
        ).to(device)

    def loss(
        self, net: StepNetwork, kind: CropKind, crops: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Weighted bits per coefficient of one random rung for each crop [N, 3, H, W] uint8."""
        rungs, (odds, weights) = list(kind.rungs), zip(*kind.rungs.values(), strict=True)
        drawn = torch.multinomial(
            torch.tensor(odds), len(crops), replacement=True, generator=generator
        )
        rung = torch.tensor(rungs)[drawn].to(crops.device)
        scale = (torch.tensor(weights) / torch.tensor(odds))[drawn].to(crops.device) / len(rungs)
        bits = self.step_bits(net, chain.analyse(crops), rung, list(kind.level_weights))
        total = torch.zeros((), device=crops.device)
        for level, (coded, marginal) in bits.items():
            real = CHANNELS / 3 if level == LOW else CHANNELS
            per_sample = (coded + _MARGINAL_WEIGHT * marginal).sum((1, 2, 3)) / (
                real * coded.shape[-1] * coded.shape[-2]
            )
            total = total + kind.level_weights[level] * (scale * per_sample).mean()
        return total

    def step_bits(
        self, net: StepNetwork, values: dict[int, Tensor], rung: Tensor, levels: list[int]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Bits of each coefficient of some levels in one rung, for each sample of a batch.

        Args: exact coefficients from `chain.analyse` (of pictures with LEVELS levels), the rung
        of each sample, int64 [N].
        Returns: for each level the bits as they are coded and the bits that the first head
        alone would need, float32 [N, 9, h, w] each.
        """
        before = torch.where(rung == FINISH, schedule.LAST_RUNG, rung + 1)
        geometry = chain.Geometry(values[1].shape[-2] * 2, values[1].shape[-1] * 2)
        low = geometry.no_low().to(rung.device).expand(len(rung), -1, -1, -1)
        result = {}
        for level in (LOW, *range(LEVELS, 0, -1)):
            old, new = self._planes(before, level), self._planes(rung, level)
            if level in levels:
                finer = geometry.finer(level)
                children = None
                if finer is not None:
                    planes = self._planes(before, finer)
                    children = cells.floor(values[finer], planes), planes
                features = step_features(
                    low,
                    self.low_planes[rung - FINISH, level - 1],
                    cells.floor(values[level], old),
                    old,
                    children,
                )
                index = (
                    (rung - FINISH).clamp_max(schedule.RUNGS - 1),
                    torch.full_like(rung, level - 1),
                )
                coded, marginal = _level_bits(net, index, features, values[level], old, new)
                real = geometry.exists(level).to(low.device)
                result[level] = coded * real, marginal * real
            known = cells.reconstruct(cells.floor(values[level], new), new)
            low = geometry.finer_low(low, level, known)
            if level == min(levels):
                break
        return result

    def _planes(self, rung: Tensor, level: int) -> Tensor:
        return self.planes[rung - FINISH, level - 1]


def _level_bits(
    net: StepNetwork, index: Index, features: Tensor, values: Tensor, old: Tensor, new: Tensor
) -> tuple[Tensor, Tensor]:
    floors, refined = cells.floor(values, old), cells.floor(values, new)
    told = phase_features(floors, old, refined, new)
    trunk = net.trunk(features, index)
    even = chain.checkerboard(*values.shape[-2:]).to(values.device) == 0
    first = net.head(0, trunk, None, index)
    mean, log_scale = (part.clone() for part in first.chunk(2, 1))
    for number, phase in enumerate(PHASES[1:], 1):
        known = told[:, : phase.known]
        if phase.parity:
            known = torch.cat((known[:, : 3 * phase.colour], known[:, phase.channels] * even), 1)
        here = even if phase.parity == 0 else ~even
        phase_mean, phase_scale = net.head(number, trunk, known, index).chunk(2, 1)
        for whole, part in ((mean, phase_mean), (log_scale, phase_scale)):
            whole[:, phase.channels] = torch.where(here, part, whole[:, phase.channels])
    coded = gaussian_bits(mean, log_scale, floors, old, refined, new)
    mean, log_scale = first.chunk(2, 1)
    return coded, gaussian_bits(mean, log_scale, floors, old, refined, new)


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
