"""The picture that a state stands for."""

from torch import Tensor

from diffcodec.quantized import cells, chain, denoising
from diffcodec.quantized.state import State


def plain(state: State) -> Tensor:
    """The picture as the cells alone tell it, int32 [colours, H, W]; exact at the end."""
    known = {
        level: cells.reconstruct(floors, state.planes[level])
        for level, floors in state.floors.items()
    }
    return chain.rebuild(state.geometry, known)[0, : state.colours]


def picture(state: State) -> Tensor:
    """The expected picture, int32 [colours, H, W]: what the cells tell, denoised unless exact."""
    shown, geometry = plain(state), state.geometry
    if not any(planes.any() for planes in state.planes.values()):
        return shown
    rung = state.rungs[geometry.finest]
    return denoising.denoise(shown.expand(3, -1, -1), rung, geometry.depth)[: state.colours]
