"""How much detail pictures have: the mean size of their finest coefficients."""

from collections.abc import Sequence

from torch import Tensor

from diffcodec.quantized.pyramid import Process

ROUGHEST = 0.97
"""How large another way's details may be at most, against the first one's, to be clearly smaller:
that spares the trial of colours five pictures in six."""


def smoother(process: Process, ways: Sequence[Tensor], depth: int) -> list[int]:
    """The numbers of those ways, of integers [3, H, W] each, with clearly smaller details.

    Against the first one's; the smallest first.
    """
    details = [_detail(process, way, depth) for way in ways]
    clearly = [way for way, detail in enumerate(details) if detail < ROUGHEST * details[0]]
    return sorted(clearly, key=details.__getitem__)


def _detail(process: Process, planes: Tensor, depth: int) -> float:
    """Mean log2 of the finest coefficients' magnitudes."""
    _, height, width = planes.shape
    finest = process.pyramid(height, width, depth).analyse(planes[None])[1]
    return float((1 + finest.abs()).double().log2().mean())
