"""How much detail pictures have: the mean size of their finest coefficients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcodec.transforms import rgb_to_ycocg, wavelet

ROUGHEST = 0.97
"""How large details may be at most, against the first candidate's, to be clearly smaller: that
saves the measuring of colour transforms for five pictures in six."""


def smoother(candidates: Sequence[Tensor]) -> list[int]:
    """The numbers of those candidates, integers [3, H, W] each, with clearly smaller details.

    Against the first one's; the smallest first.
    """
    details = [_detail(planes) for planes in candidates]
    clearly = [number for number, detail in enumerate(details) if detail < ROUGHEST * details[0]]
    return sorted(clearly, key=details.__getitem__)


def _detail(planes: Tensor) -> float:
    """Mean log2 of the magnitudes of the finest coefficients."""
    _, finest = wavelet.forward(rgb_to_ycocg(planes.to(torch.int32)))
    return float((1 + finest.abs()).double().log2().mean())
