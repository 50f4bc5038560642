"""The denoiser's objective: the squared error of random prefixes."""

import torch
from torch import Tensor, nn

from diffcodec.quantized import cells
from diffcodec.quantized.denoising import centred, index, shuffled
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import LAST_RUNG, LOW

RUNG_ODDS = (0.04, 0.12, 0.17, 0.18, 0.17, 0.13, 0.08, 0.05, 0.03, 0.02, 0.01)
"""How often training draws each rung from LAST_RUNG to HIGHEST_TRAINED_RUNG."""

LEVEL_ODDS = (0.4, 0.15, 0.05, 0.03, 0.02, 0.35)
"""How often it draws each level from 1 to LOW, of those that the next rung is to refine next."""


def prefixes(process: Process, pictures: Tensor, rung: int, level: int = LOW) -> Tensor:
    """What prefixes show of pictures [N, 3, H, W] uint8, float in 0..255.

    All levels have completed `rung`, those coarser than `level` the next one too. The pictures
    must be large enough for LEVELS levels.
    """
    pyramid = process.pyramid(*pictures.shape[-2:])
    known = {
        own: cells.reconstruct(*pyramid.cells_at(values, rung - (own > level), own))
        for own, values in pyramid.analyse(pictures).items()
    }
    return pyramid.rebuild(known).float()


def random_step(generator: torch.Generator) -> tuple[int, int]:
    """The rung and the level of a random prefix."""
    rung, level = (
        first + int(torch.multinomial(torch.tensor(odds), 1, generator=generator))
        for first, odds in ((LAST_RUNG, RUNG_ODDS), (1, LEVEL_ODDS))
    )
    return rung, level


def loss(net: nn.Module, process: Process, rung: int, level: int, pictures: Tensor) -> Tensor:
    """Mean squared error of prefixes of pictures [N, 3, H, W] uint8, in units of 4^rung."""
    shown = prefixes(process, pictures, rung, level)
    return (expected(net, shown, rung, level) - pictures).square().mean() / 4**rung


def expected(net: nn.Module, shown: Tensor, rung: int, level: int = LOW) -> Tensor:
    """What the float network makes of pictures [N, 3, H, W] that `prefixes` shows."""
    return shown + shuffled(net(centred(shown), index(rung, level)), rung)
