"""The denoiser's objective: the squared error of random prefixes."""

import torch
from torch import Tensor, nn

from diffcodec.quantized import cells
from diffcodec.quantized.denoising import centred, row, shuffled
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import LAST_RUNG, LOW

RUNG_ODDS = (0.04, 0.12, 0.17, 0.18, 0.17, 0.13, 0.08, 0.05, 0.03, 0.02, 0.01)
"""How often training draws each rung from LAST_RUNG to HIGHEST_TRAINED_RUNG."""


def prefixes(process: Process, pictures: Tensor, rung: int, ahead: int = LOW) -> Tensor:
    """What prefixes show of pictures [N, 3, H, W] uint8, float in 0..255.

    All levels have completed `rung`, those coarser than `ahead` the next one too. The pictures
    must be large enough for LEVELS levels.
    """
    pyramid = process.pyramid(*pictures.shape[-2:])
    known = {
        level: cells.reconstruct(*pyramid.cells_at(values, rung - (level > ahead), level))
        for level, values in pyramid.analyse(pictures).items()
    }
    return pyramid.rebuild(known).float()


def loss(net: nn.Module, process: Process, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of random prefixes of pictures [N, 3, H, W] uint8, in units of 4^rung."""
    rung = LAST_RUNG + int(torch.multinomial(torch.tensor(RUNG_ODDS), 1, generator=generator))
    # Half of the prefixes end inside a rung.
    ahead = min(LOW, int(torch.randint(1, 2 * LOW, (), generator=generator)))
    shown = prefixes(process, pictures, rung, ahead)
    return (expected(net, shown, rung) - pictures).square().mean() / 4**rung


def expected(net: nn.Module, shown: Tensor, rung: int) -> Tensor:
    """What the float network makes of pictures [N, 3, H, W]."""
    return shown + shuffled(net(centred(shown), row(rung)), rung)
