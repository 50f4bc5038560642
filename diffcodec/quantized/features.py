"""What the network sees of the state: integers within LIMIT, the same in training and coding."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcodec.quantized import cells
from diffcodec.quantized.schedule import CHANNELS

LIMIT = 511
"""Largest magnitude of a feature: signed 10-bit integers."""

FEATURES = 3 + 3 + 3 * CHANNELS
"""Input channels of the network."""


def step_features(
    low: Tensor,
    low_planes: Tensor,
    floors: Tensor,
    planes: Tensor,
    finer: tuple[Tensor, Tensor] | None,
    extra_bits: int = 0,
) -> Tensor:
    """Describe the state before a step; float32 integers [N, FEATURES, h, w] within LIMIT.

    Args:
        low: the low band of the level rebuilt from all that is known, int32 [N, 3, h, w].
        low_planes: planes of its error, int32 [N, 3, 1, 1].
        floors: the level's channels before the step, int32 [N, 9, h, w].
        planes: their planes, int32 [N, 9, 1, 1].
        finer: floors and planes of the next finer level, int32 [N, 9, h', w'] with h' <= 2h
            and w' <= 2w, and [N, 9, 1, 1]; None at the finest level.
        extra_bits: bits of the samples beyond those of the pictures in training.

    The channels are the low band at two amplitude scales (absolute, and against the mean of its
    eight neighbours in units of its error), the level's midpoints at two scales in units of the
    cell, and the mean magnitude of the four children of each coefficient.
    """
    midpoints = cells.double_midpoint(floors, planes)
    parts = [
        low >> extra_bits,
        _local_detail(low) << 2 >> low_planes,
        midpoints << 5 >> planes,
        midpoints << 1 >> planes,
        torch.zeros_like(floors) if finer is None else _children(*finer, *low.shape[-2:]),
    ]
    return torch.cat(parts, 1).clamp_(-LIMIT, LIMIT).float()


def phase_features(
    floors: Tensor, planes: Tensor, refined: Tensor, refined_planes: Tensor
) -> Tensor:
    """What earlier phases of the step have decoded; float32 integers [N, C, h, w] within LIMIT.

    Args: floors and planes before the step and after it, int32. Where nothing was refined yet
    `refined` and `refined_planes` equal `floors` and `planes`, and the feature is zero.
    """
    shift = cells.double_midpoint(refined, refined_planes) - cells.double_midpoint(floors, planes)
    return (shift << 7 >> planes).clamp_(-LIMIT, LIMIT).float()


def _local_detail(low: Tensor) -> Tensor:
    """Eight times each sample's difference from the mean of its eight neighbours."""
    h, w = low.shape[-2:]
    # Replicating the border keeps the difference small there.
    padded = F.pad(low.float(), (1, 1, 1, 1), mode="replicate").to(low.dtype)
    rows = padded[..., :h, :] + padded[..., 1 : h + 1, :] + padded[..., 2:, :]
    return 9 * low - (rows[..., :w] + rows[..., 1 : w + 1] + rows[..., 2:])


def _children(floors: Tensor, planes: Tensor, h: int, w: int) -> Tensor:
    """Sum the magnitudes of the four children of each position; outside they count as zero."""
    magnitudes = cells.double_midpoint(floors, planes).abs() << 3 >> planes
    padded = F.pad(magnitudes, (0, 2 * w - magnitudes.shape[-1], 0, 2 * h - magnitudes.shape[-2]))
    rows = padded[..., 0::2, :] + padded[..., 1::2, :]
    return rows[..., 0::2] + rows[..., 1::2]
