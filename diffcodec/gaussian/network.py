"""The denoising network: a `NoiseNetwork`, with z and a log-SNR as what it takes.

Noise levels are continuous in training, and embeddings are tables: the tables hold knots at equal
distances of log-SNR, with straight lines in between. For a chain of T fixed steps, `tabulated`
turns them into tables of T rows; that is a network of plain FilmConv layers, which
`diffcodec.exact` can turn into integers.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffcodec.gaussian.process import alpha, per_example, sigma
from diffcodec.networks import ACTIVATION_LIMIT, NoiseConv, NoiseNetwork

Level = TypeVar("Level", float, Tensor)

COLOURS = 3

LOWEST_KNOT, HIGHEST_KNOT, KNOTS = -6.0, 14.0, 33
"""Log-SNRs of the first and the last knot, and their number; beyond the ends levels share one."""

WIDTHS, BLOCKS = (48, 64, 96), (1, 2, 2)
"""Channels and residual blocks at the full, the half and the quarter resolution."""

ALIGNMENT = 1 << len(WIDTHS) - 1
"""Heights and widths are multiples of it."""

_DEVIATIONS = 3.5
"""Ten bits of an input reach as far as data and so many deviations of its noise together."""


class DenoisingNetwork(nn.Module):
    """z [N, 3, H, W] and log-SNRs [N] to predictions [N, 3 or 6, H, W].

    H and W must be multiples of ALIGNMENT. `learned_variance` asks for six channels.
    """

    def __init__(self, *, learned_variance: bool = False) -> None:
        super().__init__()
        self.net = NoiseNetwork(
            COLOURS,
            COLOURS * (1 + learned_variance),
            knots=KNOTS,
            widths=WIDTHS,
            blocks=BLOCKS,
        )

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        gain = input_gain(alpha(log_snr), sigma(log_snr))
        return self.net(z * per_example(gain, z), positions(log_snr))

    def tabulated(self, log_snrs: Tensor) -> NoiseNetwork:
        """The network for fixed levels [T]: row t of its tables is the level log_snrs[t].

        It takes z times the input gain of that level.
        """
        net = copy.deepcopy(self.net)
        for layer in net.modules():
            if isinstance(layer, NoiseConv):
                layer.tabulate(positions(log_snrs))
        return net.requires_grad_(False)


def input_gain(alpha: Level, sigma: Level) -> Level:
    """Integer units of the network's input per 1.0 of z, so that its range fits ten bits."""
    return ACTIVATION_LIMIT / (alpha + _DEVIATIONS * sigma)


def as_input(z: Tensor, gain: float | Tensor) -> Tensor:
    """The integers, float32, that an exact network takes for z."""
    units = (z * gain).round().clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    return units.float().contiguous(memory_format=torch.channels_last)


def positions(log_snr: Tensor) -> Tensor:
    """Where log-SNRs lie between the knots: float, from 0 to KNOTS - 1."""
    share = (log_snr - LOWEST_KNOT) / (HIGHEST_KNOT - LOWEST_KNOT)
    return share.clamp(0, 1) * (KNOTS - 1)
