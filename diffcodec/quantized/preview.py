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

    Inside a step it lies between what the denoiser makes of pictures before the step and after it,
    at each place by how much of the step is decoded there.
    """
    shown, pyramid = plain(state), state.pyramid
    if not any(planes.any() for planes in state.planes.values()):
        return shown
    rung, pixels = state.rungs[pyramid.finest], shown.expand(3, -1, -1)

    def denoised(rung: int, level: int) -> Tensor:
        return denoising.denoise(pixels, rung, level, pyramid.depth)[: state.colours]

    level = next(n for n in pyramid.coarse_to_fine if state.rungs[n] == rung)
    before = denoised(rung, level)
    if rung == FINISH or not bool((share := _decoded_share(state, level)).any()):
        return before
    finer = pyramid.finer(level)
    after = denoised(rung - 1, LOW) if finer is None else denoised(rung, finer)
    return torch.lerp(before.double(), after.double(), share.double()).round().to(torch.int32)


def _decoded_share(state: State, level: int) -> Tensor:
    """How much of the step after the last whole one is decoded at each pixel, float [H, W]."""
    pyramid = state.pyramid
    size, rung = (pyramid.height, pyramid.width), state.rungs[level]
    old, new = (pyramid.planes(r, level).float() for r in (rung, rung - 1))
    done = (old - state.planes[level]) / (old - new).clamp(min=1)
    real = done[:, ::3] if level == LOW else done
    spread = real.mean(1, keepdim=True).expand(1, 1, *pyramid.size(level))
    scale = 2 ** (pyramid.levels if level == LOW else level)
    pixels = F.interpolate(spread, scale_factor=scale)[..., : size[0], : size[1]]
    around = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    return F.avg_pool2d(around, 9, 1)[0, 0].clamp(0, 1)
