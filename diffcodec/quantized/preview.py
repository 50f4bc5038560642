"""The picture that a state stands for."""

from torch import Tensor

from diffcodec.quantized import cells, chain, denoising
from diffcodec.quantized.schedule import LOW
from diffcodec.quantized.state import State


def plain(state: State) -> Tensor:
    """The picture as the cells alone tell it, int32 [colours, H, W]; exact at the end."""
    low = state.geometry.no_low()
    for level in (LOW, *range(state.geometry.levels, 0, -1)):
        known = cells.reconstruct(state.floors[level], state.planes[level])
        low = state.geometry.finer_low(low, level, known)
    return chain.synthesise(low, state.geometry.depth)[0, : state.colours]


def picture(state: State) -> Tensor:
    """The expected picture, int32 [colours, H, W]: what the cells tell, denoised unless exact."""
    shown, geometry = plain(state), state.geometry
    if not any(planes.any() for planes in state.planes.values()):
        return shown
    rung = state.rungs[geometry.finest]
    return denoising.denoise(shown.expand(3, -1, -1), rung, geometry.depth)[: state.colours]
