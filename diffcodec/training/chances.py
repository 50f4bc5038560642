"""How often levels, and squares of them, become significant: counted over pictures.

A level or a square of one colour is significant once a coefficient in it has left zero. Chances are
int32 in 2^-16, with half an observation added on either side, so never 0 or 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from diffcodec.quantized import chain, squares
from diffcodec.quantized.schedule import FINISH, LOW, TOP_RUNG, steps


def level_chances(images: list[Tensor], interpolated: int = 0) -> Tensor:
    """For each rung and level the chance that an insignificant level becomes significant.

    Args:
        images: uint8 [3, H, W].
        interpolated: as for `chain.Geometry`.

    Returns: [TOP_RUNG, LOW].
    """
    asked = torch.full((TOP_RUNG, LOW), 1.0)
    left = torch.full((TOP_RUNG, LOW), 0.5)
    for image in tqdm(images, "counting", disable=None):
        for level, values in chain.analyse(image[None], interpolated=interpolated).items():
            levels = chain.Geometry(*image.shape[1:]).levels
            for rung in range(TOP_RUNG - 1, FINISH - 1, -1):
                asked[rung, level - 1] += 1
                if (values.abs() >> chain.plane_tensor(rung, level, levels)).any():
                    left[rung, level - 1] += 1
                    break
    return _chances(left, asked)


def square_chances(images: list[Tensor], interpolated: int = 0) -> Tensor:
    """The same for each rung, level, colour and context of a square in a significant level.

    Returns: [TOP_RUNG, LOW, 3, squares.CONTEXTS].
    """
    asked = torch.full((TOP_RUNG, LOW, 3, squares.CONTEXTS), 1.0)
    left = torch.full_like(asked, 0.5)
    for image in tqdm(images, "counting", disable=None):
        peaks = {
            level: F.max_pool2d(values.abs().float(), squares.SIDE, ceil_mode=True).int()
            for level, values in chain.analyse(image[None], interpolated=interpolated).items()
        }
        geometry = chain.Geometry(*image.shape[1:])
        known = {level: torch.zeros_like(peak[0, ::3]).bool() for level, peak in peaks.items()}
        for step in steps(geometry.levels):
            level, before = step.level, known[step.level]
            planes = chain.plane_tensor(step.rung, level, geometry.levels)
            known[level] = now = (peaks[level] >> planes != 0)[0].unflatten(0, (3, 3)).any(1)
            if not bool(now.any()):
                continue  # nothing is asked about squares of an insignificant level
            coarser = geometry.coarser(level)
            above = before if coarser is None else known[coarser]
            for colour, pending in enumerate(~before):
                other = now[colour - 1] if colour else None
                case = squares.contexts(before[colour], above[colour], other)
                for counts, which in ((asked, pending), (left, pending & now[colour])):
                    seen = torch.bincount(case[which], minlength=squares.CONTEXTS)
                    counts[step.rung, level - 1, colour] += seen
    return _chances(left, asked)


def _chances(left: Tensor, asked: Tensor) -> Tensor:
    return (left / asked * (1 << 16)).round().clamp(1, (1 << 16) - 1).to(torch.int32)
