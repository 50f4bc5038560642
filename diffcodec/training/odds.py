"""How often levels and blocks leave zero, counted over pictures: tables of a model file."""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from diffcodec.quantized import significance
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import FINISH, LOW, TOP_RUNG


def level_odds(process: Process, images: list[Tensor]) -> Tensor:
    """For each rung and level the probability that a level which is all zero leaves zero.

    In 2^-16, int32 [TOP_RUNG, LOW]; counted over images uint8 [3, H, W], with half an observation
    added on either side.
    """
    zero = torch.full((TOP_RUNG, LOW), 1.0)
    left = torch.full((TOP_RUNG, LOW), 0.5)
    for image in tqdm(images, "counting", disable=None):
        pyramid = process.pyramid(*image.shape[-2:])
        for level, values in pyramid.analyse(image[None]).items():
            for rung in range(TOP_RUNG - 1, FINISH - 1, -1):
                zero[rung, level - 1] += 1
                if (values.abs() >> pyramid.planes(rung, level)).any():
                    left[rung, level - 1] += 1
                    break
    return _odds(left, zero)


def block_odds(process: Process, images: list[Tensor]) -> Tensor:
    """For each rung, level, colour and case the probability that a block leaves zero.

    In 2^-16, int32 [TOP_RUNG, LOW, 3, significance.CONTEXTS]; counted as `level_odds` counts.
    """
    zero = torch.full((TOP_RUNG, LOW, 3, significance.CONTEXTS), 1.0)
    left = torch.full_like(zero, 0.5)
    for image in tqdm(images, "counting", disable=None):
        pyramid = process.pyramid(*image.shape[-2:])
        peaks = {
            level: F.max_pool2d(values.abs().float(), significance.SIDE, ceil_mode=True).int()
            for level, values in pyramid.analyse(image[None]).items()
        }
        known = {level: torch.zeros_like(peak[0, ::3]).bool() for level, peak in peaks.items()}
        for step in pyramid.steps:
            level, before = step.level, known[step.level]
            planes = pyramid.planes(step.rung, level)
            known[level] = now = (peaks[level] >> planes != 0)[0].unflatten(0, (3, 3)).any(1)
            if not bool(now.any()):
                continue  # the level is all zero, and nothing is coded of its blocks
            coarser = pyramid.coarser(level)
            above = before if coarser is None else known[coarser]
            for colour, rest in enumerate(~before):
                other = now[colour - 1] if colour else None
                case = significance.contexts(before[colour], above[colour], other)
                for counts, which in ((zero, rest), (left, rest & now[colour])):
                    seen = torch.bincount(case[which], minlength=significance.CONTEXTS)
                    counts[step.rung, level - 1, colour] += seen
    return _odds(left, zero)


def _odds(left: Tensor, zero: Tensor) -> Tensor:
    """The share of those that were zero which left it, int32 in 2^-16, neither none nor all."""
    return (left / zero * (1 << 16)).round().clamp(1, (1 << 16) - 1).to(torch.int32)
