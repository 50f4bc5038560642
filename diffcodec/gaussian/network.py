"""The denoising network: a `NoiseNetwork`, with z and a log-SNR as what it takes.

Noise levels are continuous in training, and embeddings are tables: the tables hold knots at equal
distances of log-SNR, with straight lines in between. For a chain of T fixed steps, `tabulated`
turns them into tables of T rows; that is a network of plain FilmConv layers, which
`diffcodec.exact` can turn into integers.
"""

import copy
import math

import torch
from torch import Tensor, nn

from diffcodec.networks import FEATURES, UNITS, NoiseConv, NoiseNetwork

COLOURS = 3

FREQUENCIES = (7, 8)
"""Fourier features have the frequencies 2^n pi (VDM, appendix C): periods of two pixel values
and of one."""

LOWEST_KNOT, HIGHEST_KNOT, KNOTS = -8.0, 16.0, 33
"""Log-SNRs of the first and the last knot, and their number; beyond the ends levels share one."""

WIDTHS, BLOCKS = (32, 64, 96), (2, 2, 2)
"""Channels and residual blocks at the full, the half and the quarter resolution."""

_Z_GAIN = 128  # units per 1.0 of z: one for each pixel value; ten bits reach to four deviations


class DenoisingNetwork(nn.Module):
    """z [N, 3, H, W] and log-SNRs [N] to predictions [N, 3 or 6, H, W].

    H and W must be multiples of 4. `learned_variance` asks for six channels.
    """

    def __init__(self, *, learned_variance: bool = False) -> None:
        super().__init__()
        self.net = NoiseNetwork(
            COLOURS,
            2 * COLOURS * len(FREQUENCIES),
            COLOURS * (1 + learned_variance),
            knots=KNOTS,
            widths=WIDTHS,
            blocks=BLOCKS,
        )

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return self.net(features(z), positions(log_snr))

    def tabulated(self, log_snrs: Tensor) -> NoiseNetwork:
        """The network for fixed levels [T]: row t of its tables is the level log_snrs[t]."""
        net = copy.deepcopy(self.net)
        for layer in net.modules():
            if isinstance(layer, NoiseConv):
                layer.tabulate(positions(log_snrs))
        return net.requires_grad_(False)


def features(z: Tensor) -> Tensor:
    """z [N, C, H, W] and its Fourier features, [N, 5 C, H, W], in the units of the network.

    The exact model rounds them; the Fourier features tell what rounding z loses.
    """
    phases = torch.cat([z * (2**n * math.pi) for n in FREQUENCIES], 1)
    fine = torch.cat([phases.sin(), phases.cos()], 1)
    return torch.cat([z * _Z_GAIN, fine / UNITS[FEATURES]], 1)


def positions(log_snr: Tensor) -> Tensor:
    """Where log-SNRs lie between the knots: float, from 0 to KNOTS - 1."""
    share = (log_snr - LOWEST_KNOT) / (HIGHEST_KNOT - LOWEST_KNOT)
    return share.clamp(0, 1) * (KNOTS - 1)
