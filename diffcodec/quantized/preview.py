"""The picture that a state stands for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcodec.quantized import cells, denoising
from diffcodec.quantized.schedule import FINISH, LOW
from diffcodec.quantized.state import State


def plain(state: State) -> Tensor:
    """The picture as the cells alone describe it, int32 [colours, H, W]; exact at the end."""
    known = {
        level: cells.reconstruct(floors, state.planes[level])
        for level, floors in state.floors.items()
    }
    return state.pyramid.rebuild(known)[0, : state.colours]


def picture(state: State) -> Tensor:
    """The expected picture, int32 [colours, H, W]: the plain one, denoised unless exact.

    Inside a rung it lies between what the denoiser makes of the last rung and of the next one,
    at each place by how much of the next rung is decoded there.
    """
    shown, pyramid = plain(state), state.pyramid
    if not any(planes.any() for planes in state.planes.values()):
        return shown
    rung, colours = state.rungs[pyramid.finest], state.colours
    pixels = shown.expand(3, -1, -1)
    before = denoising.denoise(pixels, rung, pyramid.depth)[:colours]
    if rung == FINISH or not bool((share := _decoded_share(state)).any()):
        return before
    after = denoising.denoise(pixels, rung - 1, pyramid.depth)[:colours]
    return torch.lerp(before.double(), after.double(), share.double()).round().to(torch.int32)


def _decoded_share(state: State) -> Tensor:
    """How much of the rung after the last whole one is decoded at each pixel, float [H, W]."""
    pyramid = state.pyramid
    size, rung = (pyramid.height, pyramid.width), state.rungs[pyramid.finest]
    total = torch.zeros(size, device="cpu", dtype=torch.float32)
    for level, planes in state.planes.items():
        old, new = (pyramid.planes(r, level).float() for r in (rung, rung - 1))
        done = ((old - planes) / (old - new).clamp(min=1)).clamp(0, 1)
        real = done[:, ::3] if level == LOW else done
        times = pyramid.levels if level == LOW else level
        # All coefficients count alike, and coarse levels have few.
        weight = (1 if level == LOW else 3) / 4**times
        spread = real.mean(1, keepdim=True).expand(1, 1, *pyramid.size(level))
        total += weight * F.interpolate(spread, scale_factor=2**times)[0, 0, : size[0], : size[1]]
    around = F.pad(total[None, None], (4, 4, 4, 4), mode="replicate")
    return F.avg_pool2d(around, 9, 1)[0, 0].clamp(0, 1)
